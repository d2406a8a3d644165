"""Asks a GGUF file through llama.cpp in a child process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tailorbird.errors import ReplayMismatch, Unsupported
from tailorbird.models.exports.replay import Answered, Asked

PACKAGE = "xllamacpp"
CHILD = Path(__file__).with_name("llama_child.py")
LONGEST_S = 3600.0


def engine_name() -> str:
    """The package that runs llama.cpp here, with its version.

    Raises:
        Unsupported: it is not installed; without it a GGUF file cannot be replayed, and is not written.
    """
    try:
        if find_spec(PACKAGE) is None:
            raise PackageNotFoundError(PACKAGE)  # noqa: TRY301 - one message for both
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        raise Unsupported(
            f"export to gguf: package {PACKAGE!r} is not installed, so the file could not be replayed. Install it with "
            "`pip install 'tailorbird[gguf]'`, or export to safetensors."
        ) from None


def ask_gguf(path: Path, context: int, asked: Sequence[Asked], adapter: Path | None = None) -> list[Answered]:
    """One answer a request, from the files alone.

    Args:
        path: of the GGUF file.
        context: tokens of the longest prompt and answer together.
        asked: the requests.
        adapter: a GGUF file of a LoRA adapter, put on top.

    Raises:
        ReplayMismatch: llama.cpp cannot load the file or ended on a request.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job, answers = Path(scratch) / "job.json", Path(scratch) / "answers.json"
        work = {
            "gguf": str(path.resolve()),
            "adapter": adapter and str(adapter.resolve()),
            "context": context,
            "threads": _threads(),
            "end": asked[0].end,
            "asked": [asdict(one) for one in asked],
        }
        job.write_text(json.dumps(work), encoding="utf-8")
        ran = _run(job, answers)
        if ran.returncode != 0 or not answers.is_file():
            said = ran.stdout.decode("utf-8", "replace").strip().splitlines()
            raise ReplayMismatch(
                f"export to gguf: llama.cpp cannot answer from the file (exit code {ran.returncode}: "
                f"{' '.join(said[-1:])[:300]}). Nothing was written. Export to safetensors, and report this."
            )
        found = json.loads(answers.read_text(encoding="utf-8"))
    return [_answered(one, answer) for one, answer in zip(asked, found, strict=True)]


def _run(job: Path, answers: Path) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, str(CHILD), str(job), str(answers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ReplayMismatch(
            f"export to gguf: llama.cpp did not answer within {LONGEST_S:.0f} s. Nothing was written. Replay fewer "
            "examples, with --examples FILE."
        ) from None


def _answered(asked: Asked, answer: dict[str, Any]) -> Answered:
    prompt = tuple(answer["prompt"])
    if asked.choices is None:
        return Answered(prompt, answer["text"])
    log_p: list[float] = answer["log_p"]
    most = max(log_p)
    shares = [math.exp(value - most) for value in log_p]
    chances = {choice: share / sum(shares) for choice, share in zip(asked.choices, shares, strict=True)}
    return Answered(prompt, asked.choices[log_p.index(most)], chances)


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("OMP_NUM_THREADS") or cores)
