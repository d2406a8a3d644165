"""One after the other: turns that threads and processes take at what only one of them should do at a time.

A turn is a lock on a file of its own beside the index, held by SQLite: it ends with its process, however that
ends, and works wherever SQLite does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path

from tailorbird.errors import InputError
from tailorbird.records import content_hash

POLL_S = 0.05
"""Seconds between two tries to get a turn."""


@contextlib.contextmanager
def turn(
    index: Path, what: str, wait_s: float, on_wait: Callable[[], object] | None = None
) -> Generator[None]:
    """Holds the turn at something while the block runs.

    Args:
        index: the index's file.
        what: names the thing that is done one after the other, for the message.
        wait_s: seconds that the turn is waited for.
        on_wait: called now and then while it waits; if it returns True, the block runs without the turn.

    Raises:
        InputError: others still have the turn after so long.
    """
    connection = sqlite3.connect(_file(index, what), timeout=0, isolation_level=None, check_same_thread=False)
    with contextlib.closing(connection):
        until = time.monotonic() + wait_s
        while not _got(connection):
            if time.monotonic() >= until:
                raise InputError(
                    f"{index}: another sync is at {what}, and still is after {wait_s:g} s. Nothing was changed. "
                    "Let it end, or end it, and sync again."
                )
            if on_wait is not None and on_wait():
                break
            time.sleep(POLL_S)
        yield


def _file(index: Path, what: str) -> Path:
    folder = index.with_name(f"{index.name}-turns")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / content_hash(what)


def _got(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
