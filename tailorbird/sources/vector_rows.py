"""Vectors and words as rows of the index's tables, read in batches: a million of them never stand in a list."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tailorbird.sources.exact_scan import rounded
from tailorbird.sources.sidecars import VECTOR_CHANGES, WORD_CHANGES, gone_after
from tailorbird.sources.vector_store import FILL_BATCH, Batch, Numbers, Vectors
from tailorbird.sources.word_index import WordBatch

ASKED_AT_ONCE = 500
"""Row numbers in one query."""

_ALL = "? = 0"
_TERMS = "(SELECT group_concat(term, char(10)) FROM document_terms t WHERE t.document = p.document)"


@dataclass(frozen=True)
class Found:
    """A passage's id and how similar it is to the question, in [-1, 1]; None if it has no vector yet."""

    id: str
    cosine: float | None


def vectors_after(
    connection: sqlite3.Connection, embedder: str, sequence: int, *, by_id: bool = False
) -> Iterator[Batch]:
    """The vectors of passages that changed after a change, in the order of their numbers, or of their ids."""
    cursor = connection.execute(
        f"SELECT p.number, {_TERMS}, e.vector FROM passages p JOIN embeddings e "  # noqa: S608
        f"ON e.embedder = ? AND e.text_key = p.text_key WHERE {_changed(VECTOR_CHANGES, sequence)} "
        f"ORDER BY {'p.id' if by_id else 'p.number'}",
        (embedder, sequence),
    )
    while rows := cursor.fetchmany(FILL_BATCH):
        numbers = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        yield Batch(numbers, _vectors([row[2] for row in rows]), [_split(row[1]) for row in rows])


def vector_changes(
    connection: sqlite3.Connection, sequence: int, embedder: str
) -> tuple[Numbers, Iterator[Batch]]:
    """What a vector store that goes up to a change lacks."""
    gone = gone_after(connection, VECTOR_CHANGES, sequence) if sequence else np.empty(0, np.int64)
    return gone, vectors_after(connection, embedder, sequence)


def word_changes(connection: sqlite3.Connection, sequence: int) -> tuple[Numbers, Iterator[WordBatch]]:
    """What a keyword index that goes up to a change lacks."""
    gone = gone_after(connection, WORD_CHANGES, sequence) if sequence else np.empty(0, np.int64)
    return gone, _words_after(connection, sequence)


def _words_after(connection: sqlite3.Connection, sequence: int) -> Iterator[WordBatch]:
    cursor = connection.execute(
        f"SELECT p.number, p.title, p.headings, p.text, {_TERMS} FROM passages p "  # noqa: S608
        f"WHERE {_changed(WORD_CHANGES, sequence)} ORDER BY p.number",
        (sequence,),
    )
    while rows := cursor.fetchmany(FILL_BATCH):
        yield WordBatch(
            np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows)),
            [row[1] for row in rows],
            [tuple(json.loads(row[2])) for row in rows],
            [row[3] for row in rows],
            [_split(row[4]) for row in rows],
        )


def compared(
    connection: sqlite3.Connection, embedder: str, numbers: Iterable[int], vector: Vectors
) -> dict[int, Found]:
    """Passages by number, compared with a question's vector by those in the file; those that are gone are left out."""
    found: dict[int, Found] = {}
    every = iter(numbers)
    while some := list(itertools.islice(every, ASKED_AT_ONCE)):
        rows = connection.execute(
            "SELECT p.number, p.id, e.vector FROM passages p LEFT JOIN embeddings e "  # noqa: S608
            f"ON e.embedder = ? AND e.text_key = p.text_key WHERE p.number IN ({', '.join('?' * len(some))})",
            (embedder, *some),
        ).fetchall()
        held = [row for row in rows if row[2] is not None]
        cosines = similarities(_vectors([row[2] for row in held]), vector) if held else []
        found |= {row[0]: Found(row[1], None) for row in rows if row[2] is None}
        found |= {row[0]: Found(row[1], cosine) for row, cosine in zip(held, cosines, strict=True)}
    return found


def similarities(vectors: Vectors, vector: Vectors) -> list[float]:
    """Rounded cosines of unit vectors [N, D] and one [D], each computed alone: equal ones are equal anywhere."""
    return rounded(np.einsum("nd,d->n", vectors, vector)).tolist()


def allowed_flags(
    connection: sqlite3.Connection, condition: str, values: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Flags by number of the passages that meet a condition on their `document`."""
    most = connection.execute("SELECT coalesce(max(number), 0) FROM passages").fetchone()[0]
    flags = np.zeros(most + 1, dtype=np.bool_)
    cursor = connection.execute(f"SELECT number FROM passages WHERE {condition}", values)  # noqa: S608
    while rows := cursor.fetchmany(FILL_BATCH):
        flags[np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))] = True
    return flags


def _changed(table: str, sequence: int) -> str:
    """What changed after a change; after none everything, without a look at what changed when."""
    return f"p.number IN (SELECT number FROM {table} WHERE sequence > ?)" if sequence else _ALL  # noqa: S608


def _vectors(blobs: list[bytes]) -> Vectors:
    """Stored half-precision vectors as float32 [N, D]."""
    return np.frombuffer(b"".join(blobs), dtype=np.float16).astype(np.float32).reshape(len(blobs), -1)


def _split(terms: str | None) -> tuple[str, ...]:
    return tuple(terms.split("\n")) if terms else ()
