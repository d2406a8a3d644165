"""Which arms are compared where none are named: what suits the task, the examples, the documents and the machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from tailorbird.bases import Base
from tailorbird.data.problems import plural
from tailorbird.recipe_file import BASE_ARM

FEWEST_TO_TRAIN = 32
"""Examples; fine-tuning on fewer is decided by chance."""
FEWEST_FROM_NOTHING = 200
"""A network that knows no language learns none from fewer."""
LARGEST_WITHOUT_DEVICE = 2e9
"""Bytes of weights, of about a thousand million parameters: training more without a GPU takes days."""
DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")


def default_arms(
    *,
    classify: bool,
    documents: bool,
    num_train: int,
    bases: Sequence[Base],
    device: bool | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arms by name, floors first, being quick, then cheap to dear; and what was left out, in sentences.

    Args:
        classify: whether the task is to choose a label.
        documents: whether there are documents or live sources to look things up in.
        num_train: examples to learn from.
        bases: what arms start from.
        device: whether there is a GPU; None looks for one.
    """
    notes: list[str] = []
    looked_up = ["knowledge", "few_shot+knowledge"] if documents else []
    arms = ["blank", "majority", *(["tfidf_linear", "embedding_linear"] if classify else []), "nearest"]
    arms += [BASE_ARM, "few_shot", *looked_up]
    tuned = ["fine_tune", "few_shot+fine_tune", *(["knowledge+fine_tune"] if documents else [])]
    device = has_device() if device is None else device
    trainable = [base for base in bases if not base.remote]
    small = [base for base in trainable if device or weight_bytes(base) <= LARGEST_WITHOUT_DEVICE]
    told = plural(num_train, "example")
    if num_train < FEWEST_TO_TRAIN:
        why = f"{told} to learn from, and fine-tuning on fewer than {FEWEST_TO_TRAIN} is decided by chance"
        notes += [_left_out(tuned, why)] if trainable else []
    elif small:
        arms += tuned
    elif trainable:
        size = max(weight_bytes(base) for base in trainable) / 1e9
        notes.append(_left_out(tuned, f"without a GPU, training weights of {size:.1f} GB takes days"))
    if num_train >= FEWEST_FROM_NOTHING:
        arms.append("from_scratch")
    else:
        notes.append(_left_out(["from_scratch"], f"{told} to learn from, fewer than {FEWEST_FROM_NOTHING}"))
    return tuple(arms), tuple(notes)


def weight_bytes(base: Base) -> float:
    """Bytes of a base's weights as far as they lie here as a file or folder; 0 where that is not known."""
    place = Path(base.reference).expanduser()
    if base.remote or not place.exists():
        return 0.0
    files = [place] if place.is_file() else [*place.glob("*.safetensors"), *place.glob("*.gguf")]
    return float(sum(path.stat().st_size for path in files))


def has_device() -> bool:
    """Whether this machine seems to have a GPU, told without loading what would use it."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return any(Path(name).exists() for name in DEVICES)


def _left_out(arms: Sequence[str], why: str) -> str:
    return f"left out: {', '.join(arms)} ({why}); --arms names what is wanted"
