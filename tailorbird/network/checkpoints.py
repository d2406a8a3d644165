"""Where a training run can be taken up again after it was killed at any moment.

A run's folder holds its last two checkpoints, each a folder `<identity>-<step>`:

    tensors.safetensors   parameters, best parameters, optimizer state, random state
    facts.json            everything that is no tensor
    manifest.json         the sha256 of both

A checkpoint appears under its name only when all of it is on the disk. One whose bytes do not match its
manifest is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tailorbird.data.storage import atomic_folder

KEPT = 2
TENSORS, FACTS, MANIFEST = "tensors.safetensors", "facts.json", "manifest.json"


def save_checkpoint(
    folder: Path, identity: str, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Write a checkpoint and drop the run's older ones but one; the new checkpoint's folder.

    `identity` is a hexadecimal name of all that a run depends on; `facts` must be JSON-like.
    """
    target = folder / f"{identity}-{step:09d}"
    with atomic_folder(target, replace=True) as draft:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, draft / TENSORS)
        (draft / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        manifest = {name: sha256_of(draft / name) for name in (TENSORS, FACTS)}
        (draft / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for old in checkpoints_of(folder, identity)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    for abandoned in folder.glob(f".{identity}-*.tmp*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path, identity: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the newest whole checkpoint of this identity; None if there is none."""
    for candidate in reversed(checkpoints_of(folder, identity)):
        if is_whole(candidate):
            facts = json.loads((candidate / FACTS).read_text(encoding="utf-8"))
            return load_file(candidate / TENSORS), facts
    return None


def checkpoints_of(folder: Path, identity: str) -> list[Path]:
    """The checkpoints of one identity in `folder`, oldest first; whole or not."""
    return sorted(folder.glob(f"{identity}-*"), key=lambda path: path.name)


def is_whole(checkpoint: Path) -> bool:
    """Whether the bytes are those that were written."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        return all(sha256_of(checkpoint / name) == manifest[name] for name in (TENSORS, FACTS))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sha256_of(file: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
