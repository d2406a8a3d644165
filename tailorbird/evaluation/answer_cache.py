"""Answers that were given once: the same model is not asked the same request twice, in this run or a later one.

A model is told apart by what it is made of, byte for byte, and a request by all that it holds, so an answer is only
taken over where it would be given again. One file of a project, safe with several processes; it can be deleted at any
time, and what it held is then asked again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tailorbird.evaluation.answer_rows import completion_from_json, completion_to_json, request_to_json
from tailorbird.records import Completion, Request, content_hash

LARGEST_BYTES = 1_000_000_000
"""The oldest answers go when the file has grown beyond this."""
WAIT_S = 60.0
"""For another process that is writing."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, completion BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS timings (model TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
"""


class AnswerCache:
    """Completions by model and request, in a SQLite file.

    Args:
        path: of the file; it and its folder are made where they are missing. One that is no database, or is damaged,
            is set aside and begun anew, for it holds nothing that can't be asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            path.replace(path.with_suffix(".damaged"))
            self._prepare()

    def known(self, model: str, requests: Sequence[Request]) -> list[Completion | None]:
        """The answers that this model gave to these requests before; None where it was not asked."""
        keys = [_key(model, request) for request in requests]
        with self._connected() as connection:
            found = {
                key: row[0]
                for key in dict.fromkeys(keys)
                if (
                    row := connection.execute(
                        "SELECT completion FROM answers WHERE key = ?", (key,)
                    ).fetchone()
                )
            }
        return [_read(found[key]) if key in found else None for key in keys]

    def keep(self, model: str, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
        """Keeps a batch of answers, all or none of it."""
        rows = [(_key(model, r), _written(c)) for r, c in zip(requests, completions, strict=True)]
        with self._connected() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def timing(self, model: str) -> Mapping[str, Any] | None:
        """What was measured of how long this model takes to answer; None where it was not."""
        with self._connected() as connection:
            row = connection.execute("SELECT content FROM timings WHERE model = ?", (model,)).fetchone()
        return json.loads(row[0]) if row else None

    def keep_timing(self, model: str, content: Mapping[str, Any]) -> None:
        """Keeps what was measured of how long a model takes to answer."""
        with self._connected() as connection, connection:
            connection.execute("INSERT OR REPLACE INTO timings VALUES (?, ?)", (model, json.dumps(content)))

    def _prepare(self) -> None:
        with self._connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            if any(row[1] == "day" for row in connection.execute("PRAGMA table_info(answers)")):
                # Kept by an earlier version: answers of endpoints cost money.
                connection.execute("ALTER TABLE answers DROP COLUMN day")
            if self.path.stat().st_size > LARGEST_BYTES:
                # Rows are numbered as they come. By half, so that it is not done again soon.
                with connection:
                    connection.execute(
                        "DELETE FROM answers WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM answers)"
                    )
                with contextlib.suppress(
                    sqlite3.OperationalError
                ):  # others read it: it stays large until next time
                    connection.execute("VACUUM")

    @contextlib.contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection:
            yield connection


def _key(model: str, request: Request) -> str:
    return content_hash([model, request_to_json(request)], 32)


def _written(completion: Completion) -> bytes:
    return zlib.compress(json.dumps(completion_to_json(completion)).encode(), 1)


def _read(content: bytes) -> Completion:
    return completion_from_json(json.loads(zlib.decompress(content)))
