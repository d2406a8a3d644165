"""What a connector wants to remember of its documents from one sync to the next, such as a web page's ETag."""

from __future__ import annotations

import sqlite3
from typing import Protocol, runtime_checkable

from tailorbird.sources.source import Versioned

_TABLE = (
    "CREATE TABLE IF NOT EXISTS notes "
    "(connector TEXT NOT NULL, key TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (connector, key)) WITHOUT ROWID"
)


@runtime_checkable
class Noting(Versioned, Protocol):
    """A connector that tells what is as it was by notes of its own, which the index keeps for it."""

    @property
    def notes(self) -> dict[str, str]:
        """Filled with what was there after the last sync before `changes` is read; kept when that was read whole."""
        ...


def read_notes(connection: sqlite3.Connection, connector: str) -> dict[str, str]:
    """A connector's notes."""
    if not _is_there(connection):
        return {}
    rows = connection.execute("SELECT key, note FROM notes WHERE connector = ?", (connector,))
    return dict(rows.fetchall())


def write_notes(connection: sqlite3.Connection, connector: str, notes: dict[str, str]) -> None:
    """Replaces a connector's notes, within the caller's transaction."""
    connection.execute(_TABLE)
    connection.execute("DELETE FROM notes WHERE connector = ?", (connector,))
    rows = [(connector, key, note) for key, note in notes.items()]
    connection.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)


def _is_there(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'notes'"
    return connection.execute(query).fetchone() is not None
