"""The ranking by words inside the index's file: SQLite's FTS5, which scores every passage that has one of the words."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from tailorbird.sources.keywords import match_any
from tailorbird.sources.vector_store import Allowed


def score_words(
    connection: sqlite3.Connection, query: str, limit: int, allowed: Allowed | None
) -> dict[int, float]:
    """BM25 of the best passages that share words with a text, by number; of the allowed ones, if that is given."""
    with _flagged(connection, allowed) as condition:
        # A word counts twice in the title and half as much again in a heading.
        rows = connection.execute(
            "SELECT rowid, -bm25(passages_fts, 2.0, 1.5, 1.0) AS score FROM passages_fts "  # noqa: S608
            f"WHERE passages_fts MATCH ? {condition} ORDER BY score DESC, rowid LIMIT ?",
            (match_any(query), limit),
        )
        return {number: round(score, 12) for number, score in rows}


@contextmanager
def _flagged(connection: sqlite3.Connection, allowed: Allowed | None) -> Generator[str]:
    """A condition that a row is allowed, for as long as the block; looked up before a row is scored."""
    if allowed is None:
        yield ""
        return
    connection.create_function("allowed", 1, allowed.flags.tobytes().__getitem__)
    try:
        yield "AND allowed(rowid)"
    finally:
        connection.create_function("allowed", 1, None)
