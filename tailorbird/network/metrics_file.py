"""`metrics.jsonl`: how a training run went, one JSON object a line, for people and their programs.

    {"settings": {…}, "total_steps": 96, …}       the first line: what the run is
    {"step": 1, "epoch": 0.01, "loss": 2.31, …}   then one line a step; `score` where dev was asked

`tokens`, `shared_tokens` and `seconds` count from the run's beginning, over all resumptions. A run that
was killed and goes on leaves neither a step out nor tells one twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tailorbird.data.storage import write_atomic
from tailorbird.network.settings import StepReport

METRICS_FILE = "metrics.jsonl"


class MetricsFile:
    """Writes the lines of one run.

    Args:
        path: of the file; a run that is in it already is taken up by `take_up`.
        run: the first line; a file that begins with another belongs to another run.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        self._first = _line(run)
        self._stream = None

    def take_up(self, step: int) -> None:
        """Keep the lines up to `step`, from where the run goes on, and drop what was told after it."""
        kept = [self._first, *(_line(record) for record in self._told(step))]
        write_atomic(self._path, "".join(kept).encode())
        self._stream = self._path.open("a", encoding="utf-8")

    def add(self, report: StepReport) -> None:
        """Tell of one step."""
        assert self._stream is not None
        record = {name: value for name, value in asdict(report).items() if value is not None}
        self._stream.write(_line(record))
        self._stream.flush()

    def sync(self) -> None:
        """Put what was told on the disk: a checkpoint must not know of more steps than this file."""
        assert self._stream is not None
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Nothing more will be told."""
        if self._stream is not None:
            self._stream.close()

    def _told(self, step: int) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        if not lines or lines[0] != self._first:
            return
        for record in map(_record, lines[1:]):
            if record is None or record["step"] > step:  # torn off in the middle of a line, or to be repeated
                return
            yield record


def read_metrics(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run is, and its steps, as `MetricsFile` wrote them; a torn last line is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    steps = [record for record in map(_record, lines[1:]) if record is not None]
    return json.loads(lines[0]), steps


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=False) + "\n"


def _record(line: str) -> dict[str, Any] | None:
    return json.loads(line) if line.endswith("\n") else None
