"""The folder of a run: one folder an arm, written whole or not at all, and the result.

    run/
      arms/<name>/dev.jsonl test.jsonl   every answer
                  arm.json               key, timings, sha256 of the others
      comparison.json                    written last

A run killed at any moment leaves finished arms and hidden temporary folders, nothing in between.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tailorbird.data.storage import atomic_folder, write_atomic
from tailorbird.data.task import Data
from tailorbird.errors import IntegrityError, NotFound
from tailorbird.evaluation.arms import ArmRun
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.evaluate import Evaluation, Latency, Mismatch
from tailorbird.models.model import Likelihood
from tailorbird.records import Example, content_hash
from tailorbird.sources.knowledge_base import is_knowledge_base
from tailorbird.sources.relevance import documents_hash

FORMAT = 1


def data_fingerprint(data: Data) -> dict[str, str]:
    """Hashes of everything an arm's result depends on: task, splits, documents' bytes."""
    task = data.task
    return {
        "task": content_hash([task.kind, task.instruction, list(task.labels), task.max_tokens]),
        "train": _examples_hash(data.train),
        "dev": _examples_hash(data.dev),
        "test": _examples_hash(data.test),
        "documents": _documents_hash(data.documents),
    }


def arm_key(name: str, key: str, fingerprint: Mapping[str, str], metrics: Sequence[str]) -> str:
    """What must be unchanged for a finished arm to be taken as it is; metrics are told by their `identities`."""
    return content_hash([FORMAT, name, key, dict(fingerprint), list(metrics)])


def save_arm(folder: Path, run: ArmRun, key: str) -> None:
    """Writes an arm's answers and timings; replaces what an earlier run left for its name."""
    with atomic_folder(_arm_folder(folder, run.name), replace=True) as temp:
        manifest: dict[str, str] = {}
        for split, evaluation in (("dev", run.dev), ("test", run.test)):
            content = _jsonl(evaluation.to_rows())
            write_atomic(temp / f"{split}.jsonl", content)
            manifest[f"{split}.jsonl"] = hashlib.sha256(content).hexdigest()
        record = {
            "name": run.name,
            "key": key,
            "train_s": run.train_s,
            "latency_s": list(run.latency.seconds),
            "mismatches": [asdict(m) for m in run.latency.mismatches],
            "num_parameters": run.num_parameters,
            "failed": run.failed,
            "surprise": run.surprise and asdict(run.surprise),
            "manifest": manifest,
        }
        write_atomic(temp / "arm.json", json.dumps(record, ensure_ascii=False, indent=1).encode())


def finished_arm(folder: Path, name: str, key: str) -> ArmRun | None:
    """An arm that an earlier run finished with the same key; None where it must run (again)."""
    try:
        run, found = _read_arm(folder, name)
    except (NotFound, IntegrityError):
        # Damaged answers are not worth keeping: running the arm again replaces them.
        return None
    return run if found == key and not run.failed else None


def read_arm(folder: Path, name: str) -> ArmRun:
    """An arm's answers and timings as they were saved.

    Raises:
        NotFound: the folder holds no such arm.
        IntegrityError: the answers are not those that were written.
    """
    return _read_arm(folder, name)[0]


def kept_keys(folder: Path) -> dict[str, str]:
    """The keys of the arms that are kept in a run's folder, by name."""
    found: dict[str, str] = {}
    for path in sorted((folder / "arms").glob("[!.]*/arm.json")):
        with suppress(ValueError, KeyError, OSError):
            record = json.loads(path.read_text(encoding="utf-8"))
            found[record["name"]] = record["key"]
    return found


def save_comparison(folder: Path, comparison: Comparison) -> None:
    """Writes `comparison.json`."""
    content = json.dumps(comparison.to_json(), ensure_ascii=False, indent=2)
    write_atomic(folder / "comparison.json", (content + "\n").encode())


def load_run(folder: Path) -> Comparison:
    """A finished run with all its test answers, from its folder alone.

    Raises:
        NotFound: there is no finished run.
        IntegrityError: answers are damaged.
    """
    path = folder / "comparison.json"
    if not path.is_file():
        raise NotFound(
            f"{folder} holds no finished run: {path.name} is missing. "
            "Compare again with this folder to finish it."
        )
    result = Comparison.from_json(json.loads(path.read_text(encoding="utf-8")))
    evaluations = {arm.name: read_arm(folder, arm.name).test for arm in result.arms if arm.ran}
    return replace(result, evaluations=evaluations)


def clear_unfinished(folder: Path) -> None:
    """Removes what killed runs left half written."""
    for path in (folder / "arms").glob(".*.tmp*"):
        shutil.rmtree(path, ignore_errors=True)


def _read_arm(folder: Path, name: str) -> tuple[ArmRun, str]:
    place = _arm_folder(folder, name)
    try:
        record = json.loads((place / "arm.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"{folder} holds no finished arm {name!r}. Compare again with this folder to run it."
        ) from None
    except ValueError as error:
        raise IntegrityError(
            f"{place / 'arm.json'} is not JSON: {error}. Compare again to replace it."
        ) from error
    dev, test = (_read_rows(place / file, record["manifest"][file]) for file in ("dev.jsonl", "test.jsonl"))
    latency = Latency(tuple(record["latency_s"]), tuple(Mismatch(**m) for m in record["mismatches"]))
    run = ArmRun(
        record["name"],
        record["train_s"],
        dev,
        test,
        latency,
        record["num_parameters"],
        record["failed"],
        Likelihood(**found) if (found := record.get("surprise")) else None,
    )
    return run, record["key"]


def _read_rows(path: Path, sha256: str) -> Evaluation:
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise IntegrityError(
            f"{path} is damaged: its sha256 is {found[:12]}…, expected {sha256[:12]}…. Compare again with "
            "this folder to measure the arm anew."
        )
    return Evaluation.from_rows(json.loads(line) for line in content.splitlines() if line)


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    # ASCII keeps line separators inside texts from breaking lines.
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _arm_folder(folder: Path, name: str) -> Path:
    safe = quote(name, safe="+")
    return folder / "arms" / (f"%2E{safe[1:]}" if safe.startswith(".") else safe)


def _examples_hash(examples: Sequence[Example]) -> str:
    return content_hash([[e.id, e.turns, e.completion, e.document] for e in examples])


def _documents_hash(documents: Path | None) -> str:
    if documents is None:
        return ""
    if is_knowledge_base(documents):
        return documents_hash(documents)
    return _files_hash(documents)


def _files_hash(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.relative_to(path.parent if path.is_file() else path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()
