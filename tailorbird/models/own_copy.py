"""A model's weights once more, to be changed without changing those that other models share."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tailorbird.models.engine import Engine
from tailorbird.models.exports.merged import write_merged
from tailorbird.models.local import LocalWeights


def own_copy(weights: LocalWeights, device: torch.device | None = None) -> LocalWeights:
    """The same weights in float32 in an engine of their own, an adapter merged into them.

    Args:
        weights: what is copied.
        device: where the copy is put; None is where the given ones are.

    Raises:
        Unsupported: the adapter is more than plain LoRA on linear layers.
    """
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        write_merged(weights, Path(folder), "f32")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    engine = weights.engine
    where: Any = device or engine.device
    own = Engine(model.to(where), engine.tokenizer, engine.template.context)
    return replace(weights, engine=own, reference=None, adapter=None)
