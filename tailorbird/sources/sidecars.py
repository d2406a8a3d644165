"""What stands beside an index's SQLite file to search it faster, and how that is kept up to date.

    index.db           the truth
    index.vectors/     a vector store of it, or the mark of one that is elsewhere
    index.words/       a keyword index of it

A sidecar can be deleted at any time and is made again. Its mark, `mark.json`, says of which file and embedder it is and
up to which change it goes (by the tables of changes, in which every passage stands where it last changed). What changed
later is read from the file, so a search sees one state of the index, however far its sidecars are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tailorbird.data.storage import write_atomic
from tailorbird.errors import IntegrityError, TailorbirdError
from tailorbird.sources.database import Database
from tailorbird.sources.passage_rows import single_number
from tailorbird.sources.vector_store import Numbers

MARK, LOCK = "mark.json", "lock.db"
WORD_CHANGES, VECTOR_CHANGES = "word_changes", "vector_changes"
"""The tables of changes."""
FORMAT = 1
LAG_SHARE, LAG_LEAST = 0.1, 2_000
"""What doesn't grow is filled anew once more than this share, and this many, of its passages have changed."""
WAIT_S = 3600.0
"""How long one process waits for another that fills the same sidecar."""

log = logging.getLogger("tailorbird.knowledge")


class Kept(Protocol):
    """What a sidecar holds: a vector store or a keyword index, each with batches of its own kind."""

    @property
    def grows(self) -> bool: ...
    def count(self) -> int: ...
    def fill(self, batches: Iterator[Any], count: int) -> None: ...
    def change(self, gone: Numbers, batches: Iterator[Any]) -> None: ...
    def remove(self) -> None: ...
    def close(self) -> None: ...


_KeptT = TypeVar("_KeptT", bound=Kept)

Read = Callable[[sqlite3.Connection, int], tuple[Numbers, Iterator[Any]]]
"""What changed after a change: the passages that are gone, and batches of those that are there."""


@dataclass(frozen=True)
class Choice:
    """Which store, at what place if it is elsewhere, and the environment variable with its key."""

    name: str
    place: str = ""
    key_env: str = ""


@dataclass(frozen=True)
class Mark:
    """Of what a sidecar is, and up to which change it goes.

    `content` names the embedder, or the way words are cut; `filling` is another each time something is done to it.
    `count` is of what it held then.
    """

    name: str
    place: str
    content: str
    identity: int
    sequence: int
    filling: str
    format: int = FORMAT
    key_env: str = ""
    count: int | None = None


class Sidecar(Generic[_KeptT]):
    """One thing kept beside an index.

    Args:
        folder: where its mark is, and itself if it is a local one.
        content: what it is made from, besides the passages.
        changes: the table of the changes that it goes by.
        make: gives the store of a choice, its files, if any, in a folder.
        read: gives what changed.
    """

    def __init__(
        self,
        folder: Path,
        content: str,
        changes: str,
        make: Callable[[Choice, Path, int], _KeptT],
        read: Read,
    ) -> None:
        self.folder = folder
        self.content = content
        self.changes = changes
        self._make = make
        self._read = read

    def mark(self) -> Mark | None:
        """What is there; None if nothing usable is."""
        try:
            mark = Mark(**json.loads((self.folder / MARK).read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning(
                "%s: the mark is damaged (%s). It is made again by the next sync.", self.folder, error
            )
            return None
        return mark if mark.format == FORMAT else None

    def fits(self, connection: sqlite3.Connection, mark: Mark) -> bool:
        """Whether what a mark tells of was made from this file, and from the same besides."""
        known = mark.content == self.content and mark.identity == identity(connection)
        return known and mark.sequence <= last(connection, self.changes)

    def opened(self, mark: Mark) -> _KeptT:
        """What a mark tells of."""
        return self._make(Choice(mark.name, mark.place, mark.key_env), self.folder / mark.name, mark.identity)

    def catch_up(self, database: Database, choose: Callable[[sqlite3.Connection], Choice | None]) -> str:
        """Bring it up to date with the file, or make it, or remove what isn't wanted any more.

        Returns:
            What was done, as a sentence; empty if nothing was.

        Raises:
            Unsupported: The package of what was chosen isn't installed.
            NotFound: It is a plug-in's and isn't installed, or an environment variable isn't set.
            EndpointError: Its server can't be reached; the file is as it was.
        """
        with database.reading() as connection:
            choice = choose(connection)
        if choice is None and not self.folder.is_dir():
            return ""
        with self._alone(), database.reading() as connection:
            mark = self.mark()
            other = mark is not None and (
                choice is None or (mark.name, mark.place) != (choice.name, choice.place)
            )
            done = ""
            if choice is not None:
                known = mark is not None and not other and self.fits(connection, mark)
                done = self._bring(connection, choice, mark if known else None)
            if mark is not None and other:  # only now: what takes its place is there
                self._remove(mark)
                if choice is None:
                    (self.folder / MARK).unlink(missing_ok=True)
            return done

    def copy(self, folder: Path) -> None:
        """Copies what is there in the place of what another index has in a folder; nothing of what is on a server."""
        shutil.rmtree(folder, ignore_errors=True)
        if not self.folder.is_dir():
            return
        with self._alone():
            mark = self.mark()
            if mark is not None and not mark.place:
                shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(f"{LOCK}*"))

    def _bring(self, connection: sqlite3.Connection, choice: Choice, mark: Mark | None) -> str:
        now = last(connection, self.changes)
        kept = self._make(choice, self.folder / choice.name, identity(connection))
        try:
            why = "" if mark is None else self._damage(kept, mark)
            since = 0 if mark is None or why else mark.sequence
            lag = num_after(connection, self.changes, since)
            if since and not lag:
                return ""
            if since and not kept.grows and lag <= max(LAG_LEAST, LAG_SHARE * kept.count()):
                return ""
            if since and kept.grows:
                gone, batches = self._read(connection, since)
                kept.change(gone, batches)
                done = f"{choice.name}: {lag:,} passages brought up to date."
            else:
                total = single_number(connection, "SELECT count(*) FROM passages")
                kept.fill(self._read(connection, 0)[1], total)
                done = f"{choice.name}: {kept.count():,} passages{f', made again: {why}' if why else ''}."
            made = Mark(
                choice.name,
                choice.place,
                self.content,
                identity(connection),
                now,
                token_hex(8),
                key_env=choice.key_env,
                count=kept.count(),
            )
            write_atomic(self.folder / MARK, json.dumps(asdict(made)).encode())
            return done
        finally:
            kept.close()

    def _damage(self, kept: _KeptT, mark: Mark) -> str:
        """Why what the mark tells of can't be used; empty if it can."""
        try:
            held = kept.count()
        except IntegrityError as error:
            log.warning("%s", error)
            return f"{mark.name} was missing or damaged"
        # A change or a filling that was killed is not in the mark.
        return "" if mark.count in (None, held) else f"{mark.name} held {held:,} of {mark.count:,}"

    def _remove(self, mark: Mark) -> None:
        # A server that is gone must not keep one from choosing another store.
        try:
            kept = self.opened(mark)
            kept.remove()
            kept.close()
        except TailorbirdError as error:
            where = re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", mark.place) or self.folder  # without a password
            log.warning("%s: what %s holds of this index could not be removed: %s", where, mark.name, error)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Only one process at a time; the lock of one that died is gone with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(
            sqlite3.connect(self.folder / LOCK, timeout=WAIT_S, isolation_level=None)
        ) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield


def identity(connection: sqlite3.Connection) -> int:
    """A number that tells the file from others at the same place; 0 of an old one that is only read."""
    row = connection.execute("SELECT value FROM counters WHERE name = 'identity'").fetchone()
    return int(row[0]) if row else 0


def last(connection: sqlite3.Connection, changes: str) -> int:
    """The last change in a table of changes."""
    return single_number(connection, f"SELECT coalesce(max(sequence), 0) FROM {changes}")  # noqa: S608


def num_after(connection: sqlite3.Connection, changes: str, sequence: int) -> int:
    """How many passages changed after a change."""
    return single_number(connection, f"SELECT count(*) FROM {changes} WHERE sequence > {sequence}")  # noqa: S608


def gone_after(connection: sqlite3.Connection, changes: str, sequence: int) -> Numbers:
    """The numbers of passages that went after a change."""
    rows = connection.execute(
        f"SELECT c.number FROM {changes} c LEFT JOIN passages p ON p.number = c.number "  # noqa: S608
        "WHERE c.sequence > ? AND p.number IS NULL",
        (sequence,),
    )
    return np.fromiter((number for (number,) in rows), dtype=np.int64)
