"""What the model says of preferences before it is trained: DPO holds it against what it says later.

It is asked once, before the first step and without gradients. Where checkpoints are kept it is kept beside
them, so that a run that goes on is held against the same numbers, whatever its parameters are by then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tailorbird.data.storage import write_atomic
from tailorbird.network import processes
from tailorbird.network.batches import split
from tailorbird.network.loss import forks, sequence_log_probabilities, shares
from tailorbird.network.network import Network, set_mode
from tailorbird.network.objectives import gaps
from tailorbird.network.precision import bfloat16_products
from tailorbird.network.sequences import Preference, Unit, add_to_hash
from tailorbird.network.settings import TrainSettings

REFERENCE_FILE = "reference.json"
ASKED_TOGETHER = 64
"""Preferences of like length among which batches are made."""


def referenced(
    network: Network,
    units: Sequence[Unit],
    settings: TrainSettings,
    device: torch.device,
    *,
    folder: Path | None = None,
    identity: str = "",
    everywhere: bool = False,
) -> Sequence[Unit]:
    """The same units, every preference with its reference; `network` is the model before training.

    Many processes share the work out, unless it is to be done everywhere. The network is left in evaluation
    mode if it had to be asked.

    Args:
        network: asked where a reference is missing.
        units: of which preferences with a reference stay as they are.
        settings: how much is computed at once, and how.
        device: where the work is done.
        folder: where the references of this run are kept; None keeps none.
        identity: names the model, such as the hash of its weights.
        everywhere: every process asks for all, as it must where layers are shared out: they run together.
    """
    if settings.beta is None:
        return units
    asked = list(dict.fromkeys(u for u in units if isinstance(u, Preference) and u.reference is None))
    if not asked:
        return units
    key = _key(asked, identity)
    values = processes.from_first(lambda: _kept(folder, key)) if folder else None
    if values is None:
        values = _ask(network, asked, settings, device, everywhere=everywhere)
        if folder and processes.is_first():
            content = json.dumps({"preferences": key, "reference": values})
            write_atomic(folder / REFERENCE_FILE, content.encode())
    known: dict[Unit, float] = dict(zip(asked, values, strict=True))
    return [_with_reference(unit, known.get(unit)) for unit in units]


def _with_reference(unit: Unit, reference: float | None) -> Unit:
    if isinstance(unit, Preference) and reference is not None:
        return replace(unit, reference=reference)
    return unit


@torch.no_grad()
def _ask(
    network: Network,
    preferences: list[Preference],
    settings: TrainSettings,
    device: torch.device,
    *,
    everywhere: bool,
) -> list[float]:
    """Each one's log π(preferred) - log π(rejected)."""
    set_mode(network, training=False)
    share = shares(network, wanted=settings.share_prefix)
    own = sorted(range(len(preferences)), key=lambda n: len(preferences[n]))
    if not everywhere:
        own = own[processes.rank() :: processes.num_processes()]
    found: dict[Unit, float] = {}
    for start in range(0, len(own), ASKED_TOGETHER):
        some = [preferences[n] for n in own[start : start + ASKED_TOGETHER]]
        forked = forks(network, share=share)
        for batch in split(some, settings.max_batch_tokens, share=share, forked=forked):
            with bfloat16_products(device, wanted=settings.bf16_on_cuda):
                log_p_B = sequence_log_probabilities(network, batch, device=device, share=share)
            found |= zip(batch.units, gaps(log_p_B).tolist(), strict=True)
    values = [found.get(preference, 0.0) for preference in preferences]
    return values if everywhere else processes.summed(values, device)


def _key(preferences: Sequence[Preference], identity: str) -> str:
    digest = hashlib.blake2b(identity.encode(), digest_size=8)
    add_to_hash(digest, preferences)
    return digest.hexdigest()


def _kept(folder: Path | None, key: str) -> list[float] | None:
    """What was written for these preferences and this model; None where there is nothing."""
    path = folder / REFERENCE_FILE if folder else None
    if path is None or not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["reference"] if record["preferences"] == key else None
