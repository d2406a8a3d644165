"""What a run was made of, kept beside its answers so that a later run can say what is different.

run/run.json        when, base, seed, documents, every arm's settings
    examples.npz    of every example its id and a hash of its prompt, by part
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tailorbird.data.keys import keys_of
from tailorbird.data.storage import write_atomic
from tailorbird.data.task import Data

RECORD, EXAMPLES = "run.json", "examples.npz"
PARTS = ("train", "dev", "test")

Steps = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """The examples of one part: `ids` [N] and `prompts` [N], 64-bit hashes of the normalised messages."""

    ids: npt.NDArray[np.bytes_]
    prompts: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class RunRecord:
    """What a run was made of, as far as it was asked to say.

    `started` and `finished` are seconds since 1970, `finished` 0 until it is. `recipes` are the arms' steps with
    every setting. `against` names the run that it was last compared with, `report` is where its last report was put.
    """

    name: str
    base: str = ""
    seed: int = 0
    documents: str = ""
    started: float = 0.0
    finished: float = 0.0
    recipes: Mapping[str, Steps] = field(default_factory=dict[str, Steps])
    against: str = ""
    report: str = ""


def save_record(folder: Path, record: RunRecord) -> None:
    """Writes `run.json`."""
    write_atomic(folder / RECORD, json.dumps(asdict(record), ensure_ascii=False, indent=1).encode())


def load_record(folder: Path) -> RunRecord | None:
    """What was written; None where nothing was, as by versions that kept no record."""
    try:
        row = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        known = {name: row[name] for name in RunRecord.__dataclass_fields__ if name in row}
        return RunRecord(**known)
    except (OSError, ValueError, TypeError):
        return None


def save_examples(folder: Path, data: Data) -> None:
    """Writes `examples.npz`, unless it is there: a run's folder is of one set of examples."""
    if (folder / EXAMPLES).is_file():
        return
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, examples in zip(PARTS, (data.train, data.dev, data.test), strict=True):
        keys = keys_of(examples)
        arrays |= {f"{name}_ids": keys.ids, f"{name}_prompts": keys.prompts}
    content = io.BytesIO()
    np.savez_compressed(content, **cast("Any", arrays))
    write_atomic(folder / EXAMPLES, content.getvalue())


def load_examples(folder: Path) -> dict[str, Part] | None:
    """The parts that were written; None where none were."""
    try:
        with np.load(folder / EXAMPLES, allow_pickle=False) as found:
            return {name: Part(found[f"{name}_ids"], found[f"{name}_prompts"]) for name in PARTS}
    except (OSError, ValueError, KeyError):
        return None
