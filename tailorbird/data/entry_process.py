"""Reading files that lie together in one, a ZIM archive or a git repository, in a child process with limits."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tailorbird.data.parser_process import end_child, exactly, lost_child, start_child
from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.entries import Entry
from tailorbird.errors import DocumentError, NotFound

LINE_BYTES = 2**20
"""The most that is told of one entry, its bytes apart."""

WATCHED_EVERY_S = 1.0


@dataclass(frozen=True)
class EntryReader:
    """Reads the entries of one file, or folder, in a child process.

    Args:
        reader: `zim` or `git`.
        place: The path.
        settings: The reader's own.
        limits: What opening it, and each entry, may cost.
    """

    reader: str
    place: str
    settings: Mapping[str, Any]
    limits: Limits

    def entries(self) -> Iterator[Entry]:
        """The entries in order; each can be loaded until the next one is asked for.

        Raises:
            NotFound: There is nothing of this kind at the place.
            DocumentError: It is damaged, or exceeds the limits.
        """
        child = start_child("tailorbird.data.readers.entry_child")
        watch = _Watch(child)
        watch.start()
        try:
            yield from _Conversation(self, child, watch).entries()
        finally:
            watch.ended.set()
            end_child(child)


class _Watch(threading.Thread):
    """Ends a child that takes too long: one thread for many questions, since each is short."""

    def __init__(self, child: Any) -> None:
        super().__init__(name="watch entries", daemon=True)
        self.ended = threading.Event()
        self.end_s = math.inf
        """When the question under way is to be answered, on the monotonic clock."""
        self.is_too_late = False
        self._child = child

    def run(self) -> None:
        while not self.ended.wait(WATCHED_EVERY_S):
            if time.monotonic() > self.end_s:
                self.is_too_late = True
                self._child.kill()
                return


class _Conversation:
    """The asking side; the other one is `readers.entry_child`."""

    def __init__(self, asked: EntryReader, child: Any, watch: _Watch) -> None:
        self._asked, self._child, self._watch = asked, child, watch
        self._is_told = False  # whether the child waits to hear if it is to load what it told of

    def entries(self) -> Iterator[Entry]:
        asked = self._asked
        question = {
            "reader": asked.reader,
            "place": asked.place,
            "settings": asked.settings,
            "limits": asdict(asked.limits),
        }
        facts = self._ask(json.dumps(question).encode() + b"\n")
        while "end" not in facts:
            if "failed" in facts:
                kind = NotFound if facts.get("missing") else DocumentError
                raise kind(f"{asked.place}: {facts['failed']}")
            self._is_told = True
            yield Entry(**facts, load=self._load)
            facts = self._ask(b"0" if self._is_told else b"")

    def _load(self) -> bytes:
        assert self._is_told, "an entry can be loaded once, before the next one is asked for"
        self._is_told = False
        facts = self._ask(b"1")
        if "refused" in facts:
            raise DocumentError(str(facts["refused"]))
        return facts["data"]

    def _ask(self, said: bytes) -> dict[str, Any]:
        """What the child answers within the time that it has; with the bytes that follow, if any, as `data`.

        Raises:
            DocumentError: It ended, or said nothing.
        """
        limits = self._asked.limits
        self._watch.end_s = time.monotonic() + limits.wall_s
        try:
            self._child.stdin.write(said)
            self._child.stdin.flush()
            facts: dict[str, Any] = json.loads(self._child.stdout.readline(LINE_BYTES))
            if "length" in facts:
                size = min(int(facts["length"]), limits.file_bytes + 1)
                facts["data"] = exactly(self._child.stdout.read(size), size)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            end_child(self._child)
            lost = lost_child(limits, self._watch.is_too_late, self._child.returncode)
            raise DocumentError(f"{self._asked.place}: {lost}") from None
        self._watch.end_s = math.inf
        return facts
