"""Passages as rows of the index's tables, and the text that stands for a passage when it is embedded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tailorbird.records import Document, Passage, content_hash
from tailorbird.sources.scopes import Rules

UNEMBEDDED = (
    "SELECT * FROM passages WHERE NOT EXISTS "
    "(SELECT 1 FROM embeddings e WHERE e.embedder = ? AND e.text_key = passages.text_key)"
)
"""The passages without a vector of one embedder."""


def embedded_text(passage: Passage) -> str:
    """What is embedded for a passage: its title and headings tell what a piece from the middle is about.

    Those that its own text repeats are left out.
    """
    above = dict.fromkeys((passage.title, *passage.headings))
    return "\n".join([*(line for line in above if line and line not in passage.text), passage.text])


def text_key(passage: Passage) -> str:
    """The key of a passage's vector: equal texts share one, wherever they stand."""
    return content_hash(embedded_text(passage), 32)


def insert_document(
    connection: sqlite3.Connection,
    connector: str,
    document: Document,
    digest: str,
    passages: Sequence[Passage],
) -> None:
    """Add a document and its passages; nobody but the owner finds them before its rules are put in force."""
    row = (document.id, connector, digest, document.title, Rules.of(document).to_json())
    connection.execute("INSERT INTO documents (id, connector, hash, title, own) VALUES (?, ?, ?, ?, ?)", row)
    connection.executemany(
        "INSERT INTO passages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(p.id, document.id, p.text, p.title, json.dumps(p.headings, ensure_ascii=False)),
                *(p.start, p.end, p.page, p.version, text_key(p)),
            )
            for p in passages
        ],
    )


def passage_of(row: Sequence[Any]) -> Passage:
    """The passage in a whole row of the table `passages`."""
    _, name, document, text, title, headings, start, stop, page, version, _ = row
    return Passage(name, document, text, title, tuple(json.loads(headings)), start, stop, page, version)


def fetch_passages(connection: sqlite3.Connection, scores: Mapping[int, float]) -> list[Passage]:
    """The passages with these row numbers, in this order, with these scores; those that are gone are left out."""
    query = "SELECT * FROM passages WHERE number = ?"
    rows = ((connection.execute(query, (number,)).fetchone(), score) for number, score in scores.items())
    return [replace(passage_of(row), score=score) for row, score in rows if row is not None]


def document_hashes(connection: sqlite3.Connection, connector: str) -> dict[str, str]:
    """The ids and content hashes of the documents that came from a connector."""
    rows = connection.execute("SELECT id, hash FROM documents WHERE connector = ?", (connector,))
    return dict(rows.fetchall())


def single_number(connection: sqlite3.Connection, query: str) -> int:
    """The one number that a query gives."""
    return int(connection.execute(query).fetchone()[0])
