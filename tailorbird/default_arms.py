"""Which arms are compared where none are named: what suits the task, the examples, the documents and the machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from tailorbird.bases import Base
from tailorbird.data.problems import plural
from tailorbird.recipe_file import BASE_ARM
from tailorbird.records import Example

FEWEST_TO_TRAIN = 32
"""Examples; fine-tuning on fewer is decided by chance."""
FEWEST_FROM_NOTHING = 200
"""A network that knows no language learns none from fewer."""
MOST_WORK = 2e15
"""Floating-point operations of a training without a GPU: some five hours on two cores."""
SHOWN_EXAMPLES = 3000
"""So many examples, of one and of several passes, a fine-tuning sees by default, about."""
SHOWN = 5
"""Examples in front of a question, by default."""
LETTERS_A_TOKEN = 4
PASSAGES = 1800
"""Letters of the passages that knowledge puts before a question, about."""
FEWEST_PASSES, MOST_PASSES = 2, 10
STARTER_PARAMETERS = 1.35e8
DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")


def default_arms(
    *,
    classify: bool,
    documents: bool,
    examples: Sequence[Example],
    bases: Sequence[Base],
    device: bool | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arms by name, floors first, being quick, then cheap to dear; and what was left out, in sentences.

    Args:
        classify: whether the task is to choose a label.
        documents: whether there are documents or live sources to look things up in.
        examples: those to learn from.
        bases: what arms start from.
        device: whether there is a GPU; None looks for one.
    """
    num_train, notes = len(examples), list[str]()
    looked_up = ["knowledge", "few_shot+knowledge"] if documents else []
    arms = ["blank", "majority", *(["tfidf_linear", "embedding_linear"] if classify else []), "nearest"]
    arms += [BASE_ARM, "few_shot", *looked_up]
    tuned = ["fine_tune", "few_shot+fine_tune", *(["knowledge+fine_tune"] if documents else [])]
    told = plural(num_train, "example")
    trainable = [base for base in bases if not base.remote]
    if trainable and num_train < FEWEST_TO_TRAIN:
        why = f"{told} to learn from, and fine-tuning on fewer than {FEWEST_TO_TRAIN} is decided by chance"
        notes.append(_left_out(tuned, why))
    elif trainable:
        device = has_device() if device is None else device
        least = min(parameters(base) for base in trainable)
        long = [] if device else [arm for arm in tuned if work(arm, examples, least) > MOST_WORK]
        arms += [arm for arm in tuned if arm not in long]
        notes += [_left_out(long, "without a GPU, training takes many hours")] if long else []
    if num_train >= FEWEST_FROM_NOTHING:
        arms.append("from_scratch")
    else:
        notes.append(_left_out(["from_scratch"], f"{told} to learn from, fewer than {FEWEST_FROM_NOTHING}"))
    return tuple(arms), tuple(notes)


def work(arm: str, examples: Sequence[Example], num_parameters: float) -> float:
    """Floating-point operations of an arm's training, about: 6 a parameter and token (Kaplan et al. 2020, §2.1)."""
    some = examples[:200]
    letters = sum(len(example.prompt) + len(example.completion) for example in some) / len(some)
    parts = arm.split("+")
    # Each lesson reads what is put in front of it, too.
    lesson = letters * (1 + SHOWN * ("few_shot" in parts)) + PASSAGES * ("knowledge" in parts)
    passes = max(FEWEST_PASSES, min(MOST_PASSES, round(SHOWN_EXAMPLES / len(examples))))
    return 6 * num_parameters * passes * len(examples) * lesson / LETTERS_A_TOKEN


def parameters(base: Base) -> float:
    """Of a base's weights, by their bytes; the starter's where they do not lie here."""
    return weight_bytes(base) / 2 or STARTER_PARAMETERS


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
