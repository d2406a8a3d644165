"""Saved models: a folder whose `model.json` names the parts.

    model.json             name, weights, rewrites (innermost first), task, lineage, sha256 of every file
    adapter/ or weights/   the adapter in PEFT's format; whole weights as a transformers folder
    rewrites/0, 1, …       what each wrapper keeps
    examples.jsonl         what a fitted floor was fitted on
    prefix.safetensors     keys and values of what all requests begin with, where that is long
    replay.jsonl           held-out examples, asked again of every export
    training.json, training.html, training/   how weights were trained: measured, as a page, every step

A folder is written whole or not at all, and nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tailorbird.data.storage import atomic_folder
from tailorbird.data.task import Task
from tailorbird.errors import IntegrityError, NotFound, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.embedding_linear import EmbeddingLinear
from tailorbird.models.floors import Majority, NearestExample, NearestSentence, TfidfLinear
from tailorbird.models.kept_prefix import keep_prefix, use_prefix
from tailorbird.models.local import LocalWeights, open_local
from tailorbird.models.model import Model, Rewrite, Wrapped, rewrites_of, weights_of
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Example, Message
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex

FORMAT = 1
MANIFEST = "model.json"
REPLAY = "replay.jsonl"

LoadRewrite = Callable[[Path, dict[str, Any]], Rewrite]
"""Makes a wrapper's rewrite from its folder and its settings in `model.json`."""


@dataclass(frozen=True)
class SavedModel:
    """A model read back, with the task it was made for, where it came from, and examples to replay."""

    model: Model
    task: Task | None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    replay: tuple[Example, ...] = ()


def save_model(
    model: Model,
    folder: Path,
    *,
    task: Task | None,
    lineage: Mapping[str, Any] | None = None,
    replay: Sequence[Example] = (),
    replace_old: bool = False,
    add_files: Callable[[Path], None] | None = None,
) -> Path:
    """Writes a model so that `load_model` gives one that answers alike.

    `replay` are examples that it did not learn from, for proving an export. `add_files` may write into the
    folder what else is to be kept with the model.

    Raises:
        Unsupported: the weights are of a kind that cannot be saved.
        InputError: the folder exists and `replace_old` is False.
    """
    with atomic_folder(folder, replace=replace_old) as building:
        record: dict[str, Any] = {
            "format": FORMAT,
            "name": model.name,
            "weights": _save_weights(weights_of(model), building),
            "rewrites": [],
            "task": asdict(task) if task else None,
            "lineage": dict(lineage or {}),
        }
        for number, rewrite in enumerate(reversed(rewrites_of(model))):
            part = building / "rewrites" / str(number)
            part.mkdir(parents=True)
            record["rewrites"].append({"kind": rewrite.kind, "settings": rewrite.save(part)})
        keep_prefix(model, task, building)
        if replay:
            write_examples(building / REPLAY, tuple(replay))
        if add_files:
            add_files(building)
        record["sha256"] = {
            path.relative_to(building).as_posix(): _sha256(path)
            for path in sorted(building.rglob("*"))
            if path.is_file()
        }
        (building / MANIFEST).write_text(json.dumps(record, indent=1, ensure_ascii=False))
    return folder


def load_model(folder: Path, rewrites: Mapping[str, LoadRewrite]) -> SavedModel:
    """Reads a saved model back.

    Args:
        folder: of the model.
        rewrites: how to load each kind of wrapper.

    Raises:
        NotFound: the folder holds no model.
        IntegrityError: a file differs from what was written.
        Unsupported: it has a part that this version doesn't know.
    """
    record = read_record(folder)
    _verify(folder, record["sha256"])
    model = _load_weights(record["weights"], folder)
    for number, part in enumerate(record["rewrites"]):
        if part["kind"] not in rewrites:
            raise Unsupported(
                f"{folder}: it was wrapped by {part['kind']!r}, which is not installed. Known: "
                f"{sorted(rewrites)}. Install the plug-in that it was made with."
            )
        model = Wrapped(model, rewrites[part["kind"]](folder / "rewrites" / str(number), part["settings"]))
    use_prefix(model, folder)
    replay = read_back(folder / REPLAY) if REPLAY in record["sha256"] else ()
    return SavedModel(model, _task(record["task"]), record["lineage"], replay)


def _task(fields: dict[str, Any] | None) -> Task | None:
    if fields is None:
        return None
    values: dict[str, Any] = {**fields, "labels": tuple(fields["labels"])}
    return Task(**values)


def read_record(folder: Path) -> dict[str, Any]:
    """The contents of `model.json`.

    Raises:
        NotFound: there is none.
        IntegrityError: it is not JSON of a format that this version knows.
    """
    try:
        record = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise NotFound(
            f"{folder}: no {MANIFEST} there, so it is no saved model. `tailor models list` shows what is "
            "saved."
        ) from None
    except ValueError as error:
        raise IntegrityError(
            f"{folder / MANIFEST}: not valid JSON ({error}). Restore the folder or make the model again."
        ) from error
    if not isinstance(record, dict):
        raise IntegrityError(
            f"{folder / MANIFEST}: not a JSON object. Restore the folder or make the model again."
        )
    if record.get("format") != FORMAT:
        raise Unsupported(
            f"{folder / MANIFEST}: format {record.get('format')!r}; this version reads {FORMAT}. Update "
            "Tailorbird."
        )
    return record


def verify(folder: Path) -> None:
    """Whether every file of a saved model is as it was written.

    Raises:
        NotFound: the folder holds no model.
        IntegrityError: a file differs.
    """
    _verify(folder, read_record(folder)["sha256"])


def _verify(folder: Path, hashes: Mapping[str, str]) -> None:
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: the file is gone. Restore the folder or make the model again.")
        if _sha256(path) != expected:
            raise IntegrityError(
                f"{path}: its sha256 differs from the one in {MANIFEST}. Restore the file or make the "
                "model again."
            )


def _save_weights(weights: Model, folder: Path) -> dict[str, Any]:
    match weights:
        case LocalWeights():
            return _save_local(weights, folder)
        case RemoteWeights():
            return {"kind": "remote", **asdict(weights)}
        case Blank():
            return {"kind": "blank"}
        case Majority() | TfidfLinear() | EmbeddingLinear() | NearestExample():
            write_examples(folder / "examples.jsonl", weights.examples)
            return {"kind": weights.name}
        case NearestSentence():
            weights.index.copy(folder / "index.db")
            return {"kind": "nearest_sentence", "threshold": weights.threshold}
        case _:
            raise Unsupported(
                f"model {weights.name!r} of type {type(weights).__name__} cannot be saved. "
                "Local and remote weights, the floors and Blank can."
            )


def _save_local(weights: LocalWeights, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "kind": "local",
        "name": weights.name,
        "reference": weights.reference,
        "adapter": None,
    }
    if weights.adapter is not None:
        (folder / "adapter").mkdir()
        weights.engine.save_adapter(weights.adapter, folder / "adapter")
        record["adapter"] = "adapter"
    # Weights that live only here, or inside another saved model, travel with this one.
    if weights.reference is None or (Path(weights.reference).parent / MANIFEST).is_file():
        (folder / "weights").mkdir()
        weights.engine.save(folder / "weights")
        record["reference"] = None
    return record


def _load_weights(record: Mapping[str, Any], folder: Path) -> Model:  # noqa: PLR0911 - one a kind
    match record["kind"]:
        case "local":
            base = open_local(record["reference"] or str(folder / "weights"))
            model = base.with_adapter(folder / record["adapter"]) if record["adapter"] else base
            return replace(model, name=record["name"])
        case "remote":
            return RemoteWeights(**{key: value for key, value in record.items() if key != "kind"})
        case "blank":
            return Blank()
        case "majority":
            return Majority(read_back(folder / "examples.jsonl"))
        case "tfidf_linear":
            return TfidfLinear(read_back(folder / "examples.jsonl"))
        case "embedding_linear":
            return EmbeddingLinear(read_back(folder / "examples.jsonl"), default_embedder())
        case "nearest":
            return NearestExample(read_back(folder / "examples.jsonl"), default_embedder())
        case "nearest_sentence":
            embedder = default_embedder()
            return NearestSentence(
                KnowledgeIndex(folder / "index.db", embedder, read_only=True), embedder, record["threshold"]
            )
        case kind:
            raise Unsupported(
                f"{folder}: weights of kind {kind!r} are unknown to this version. Update Tailorbird."
            )


def write_examples(path: Path, examples: tuple[Example, ...]) -> None:
    """Examples as JSON lines that `read_back` reads: messages, completion, document and id."""
    rows = [
        {"id": e.id, "messages": e.turns, "completion": e.completion, "document": e.document}
        for e in examples
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_back(path: Path) -> tuple[Example, ...]:
    """The examples that `write_examples` wrote."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return tuple(
        Example(
            tuple(Message(role, content) for role, content in row["messages"]),
            row["completion"],
            document=row["document"],
            id=row["id"],
        )
        for row in rows
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_model(folder: Path) -> None:
    """Deletes a saved model; renamed first, so that a crash never leaves half of one in its place."""
    read_record(folder)
    grave = folder.with_name(f".{folder.name}.removed-{os.getpid()}")
    folder.rename(grave)
    shutil.rmtree(grave)
