"""What stands at the beginning of every request, kept with a saved model as keys and values: computed once for good.

It pays for metaprompts that show the same examples to all: the first request after a model is opened finds them there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird.errors import ContextTooLong
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, Wrapped, as_seen_by_weights, weights_of
from tailorbird.records import Message

if TYPE_CHECKING:
    from tailorbird.data.task import Task

FILE, FACTS = "prefix.safetensors", "facts"
LEAST_TOKENS, MOST_TOKENS = 64, 4_096
"""Fewer are computed as fast as they are read; more would make a saved model large."""
PROBES = ("a parcel", "Something quite different!")
"""Two messages: what is put before both alike, is put before every one."""


def keep_prefix(model: Model, task: Task | None, folder: Path) -> None:
    """Writes what all requests to a wrapped local model begin with; nothing where that is little."""
    weights = weights_of(model)
    if task is None or not isinstance(model, Wrapped) or not isinstance(weights, LocalWeights):
        return
    from safetensors.torch import save_file

    from tailorbird.models.prefill import common_prefix

    template = weights.engine.template
    try:
        seen = [as_seen_by_weights(model, task.request([Message("user", probe)])) for probe in PROBES]
        prompts = [template.prompt(request).ids for request in seen]
    except ContextTooLong:
        return
    ids = prompts[0][: common_prefix(prompts)]
    if LEAST_TOKENS <= len(ids) <= MOST_TOKENS:
        # One entry: several are written in any order, and equal models would be files of other bytes.
        facts = {FACTS: json.dumps({"ids": ids, "weights": _identity(weights)})}
        save_file(weights.engine.prefix(ids, weights.adapter), str(folder / FILE), facts)


def use_prefix(model: Model, folder: Path) -> None:
    """Gives the engine what was kept with a saved model, if it was made by these very weights."""
    weights, path = weights_of(model), folder / FILE
    if not path.is_file() or not isinstance(weights, LocalWeights):
        return
    from safetensors import safe_open

    with safe_open(str(path), "pt") as stored:
        # Without them an earlier version wrote it; it is computed when it is asked.
        facts = json.loads((stored.metadata() or {}).get(FACTS, "{}"))
        if facts.get("weights") != _identity(weights):
            return
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    weights.engine.keep_prefix(tuple(facts["ids"]), tensors, weights.adapter)


def _identity(weights: LocalWeights) -> str:
    engine = weights.engine
    own = engine.fingerprint(weights.adapter) if weights.adapter else ""
    return f"{engine.fingerprint()} {own} {engine.device.type} {engine.model.dtype}"
