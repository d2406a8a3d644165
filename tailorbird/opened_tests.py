"""Which test sets a project has opened, kept for good: looking twice is not hidden by deleting a run.

folder/.tailorbird/openings/measured.jsonl    one line an arm that was measured on a test set
folder/.tailorbird/openings/HASH.json         the ids of that test set's examples

A line is one write to a file opened for appending, so several processes may write, and a killed one leaves a
line or none. What a power cut tore is passed over when the file is read.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tailorbird.data.keys import keys_of
from tailorbird.data.storage import write_atomic
from tailorbird.data.task import Data
from tailorbird.evaluation.arms import Arm, ArmFinished
from tailorbird.evaluation.openings import Openings, Seen, hash_of_test, openings_of
from tailorbird.evaluation.run_folder import data_fingerprint
from tailorbird.records import Example, content_hash


@dataclass(frozen=True)
class OpenedTests:
    """The test sets that were opened in a project.

    Args:
        folder: where that is kept; made when there is something to keep.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """One line an arm that was measured."""
        return self.folder / "measured.jsonl"

    def add(self, seen: Seen, ids: Sequence[str]) -> None:
        """Keeps that an arm was measured on the test set of these ids; once, however often it is told."""
        if any((one.test, one.key) == (seen.test, seen.key) for one in self.read()):
            return
        listed = self.folder / f"{seen.test}.json"
        if not listed.is_file():
            write_atomic(listed, json.dumps(sorted(ids)).encode())
        line = json.dumps(seen.to_json()).encode() + b"\n"
        handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line if self._ends_whole() else b"\n" + line)
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> list[Seen]:
        """All that was kept, oldest first; lines that were torn are passed over."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return []
        return [seen for line in content.splitlines() if (seen := _parsed(line)) is not None]

    def past(self, data: Data) -> Openings:
        """What is known of a comparison's test set, and of its examples in others."""
        seen = self.read()
        test = _ids(data.test)
        name = hash_of_test(test)
        before = {one.test for one in seen}
        others = {one for other in before - {name} for one in self._ids_of(other)}
        return Openings(
            each=openings_of(name, seen),
            num_test=len(test),
            elsewhere=len(others & set(test)),
            now_learnt=len(others & {*_ids(data.train), *_ids(data.dev)}),
        )

    def _ids_of(self, test: str) -> list[str]:
        try:
            return list(json.loads((self.folder / f"{test}.json").read_bytes()))
        except (OSError, ValueError):
            return []

    def _ends_whole(self) -> bool:
        with self.file.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


@dataclass(frozen=True)
class OpeningWatch:
    """Hears a comparison's events, keeps every arm that was measured on test, and passes them on."""

    opened: OpenedTests
    seen: dict[str, Seen]
    ids: Sequence[str]
    tell: Callable[[Any], None] | None

    def __call__(self, event: Any) -> None:
        """Keeps what is new before anybody is told of it."""
        if isinstance(event, ArmFinished) and event.status == "done":
            date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            self.opened.add(replace(self.seen[event.arm], date=date), self.ids)
        if self.tell is not None:
            self.tell(event)


def watched(  # noqa: PLR0917 - where, what, and who is told
    opened: OpenedTests,
    arms: Sequence[Arm],
    data: Data,
    run: str,
    base: str,
    tell: Callable[[Any], None] | None,
) -> OpeningWatch:
    """What must be told of a comparison's events so that it is known which test set it opened, and for what.

    Args:
        opened: where it is kept.
        arms: all arms of the comparison.
        data: what they learn from and are measured on.
        run: the name of the run's folder.
        base: what the arms start from.
        tell: is told of every event in turn.
    """
    ids = _ids(data.test)
    made_of = {name: value for name, value in data_fingerprint(data).items() if name != "test"}
    keys = {arm.name: content_hash([arm.key or arm.name, made_of]) for arm in arms}
    test, opening = hash_of_test(ids), content_hash([run, sorted(keys.values())])
    seen = {name: Seen(test, key, opening, name, run, base, "") for name, key in keys.items()}
    return OpeningWatch(opened, seen, ids, tell)


def _ids(examples: Sequence[Example]) -> list[str]:
    return [name.decode() for name in keys_of(examples).ids]


def _parsed(line: bytes) -> Seen | None:
    try:
        return Seen.from_json(json.loads(line))
    except (ValueError, AttributeError):
        return None
