"""Bringing an index up to date with a connector, in three steps.

1. `stage`: read the connector, find what is new, changed, gone; the index is only read.
2. `embed_missing`: make the vectors that are missing and store them as they come. No passage needs them
   yet, so nothing changes for a search, and an interrupted sync finds them again.
3. `apply`: all changes in one transaction, checked at its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from tailorbird.data.documents import Unreadable
from tailorbird.data.passages import split_document
from tailorbird.errors import DocumentError, IntegrityError
from tailorbird.records import Document, Passage, content_hash
from tailorbird.sources.database import Database
from tailorbird.sources.embedder import Embedder
from tailorbird.sources.passage_rows import (
    UNEMBEDDED,
    document_hashes,
    embedded_text,
    insert_document,
    passage_of,
    single_number,
    text_key,
)
from tailorbird.sources.source import Connector, Removed

EMBED_BATCH = 64
"""Vectors are stored after this many, so that an interrupted sync loses few."""


@dataclass(frozen=True)
class SyncReport:
    """What a sync did. The first four count documents; `passages` is the index's total afterwards.

    `embedded` counts the texts whose vectors had to be computed. `unreadable` holds the id and the reason
    of documents that could not be read; what the index knew of them before is kept.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    passages: int
    embedded: int
    unreadable: tuple[tuple[str, str], ...] = ()


@dataclass
class Staged:
    """What a connector gave, compared with what the index holds of it."""

    connector: str
    fresh: dict[str, tuple[Document, str, list[Passage]]] = field(default_factory=dict)
    """New and changed documents by id, with their content hashes and passages."""
    gone: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unchanged: int = 0


def stage(database: Database, connector: Connector, max_chars: int) -> Staged:
    """Read the connector and compare it with the index.

    Raises:
        DocumentError: An id is given twice, or belongs to another connector.
    """
    with database.reading() as connection:
        known = document_hashes(connection, connector.name)
        owners = dict(connection.execute("SELECT id, connector FROM documents").fetchall())
    staged = Staged(connector.name)
    for item in connector.documents():
        if item.id in staged.seen:
            raise DocumentError(f"The connector {connector.name!r} gave {item.id!r} twice. Ids must differ.")
        staged.seen.add(item.id)
        if isinstance(item, Removed):
            staged.gone.update({item.id} & known.keys())
        elif isinstance(item, Unreadable):
            staged.unreadable.append((item.id, item.reason))
        else:
            _refuse_foreign(item.id, connector.name, owners)
            _stage_document(staged, item, known.get(item.id), max_chars)
    if connector.complete:
        staged.gone.update(known.keys() - staged.seen)
    return staged


def _refuse_foreign(document: str, connector: str, owners: dict[str, str]) -> None:
    owner = owners.get(document, connector)
    if owner != connector:
        raise DocumentError(
            f"{document!r} of {connector!r} is already in the index, from {owner!r}. "
            "Index a folder above both, or forget the other one first."
        )


def _stage_document(staged: Staged, document: Document, known_hash: str | None, max_chars: int) -> None:
    if not _is_utf8(document.id):
        shown = document.id.encode("utf-8", "backslashreplace").decode()
        staged.unreadable.append((shown, "its name is not valid UTF-8"))
        return
    document = replace(document, text=_as_utf8(document.text), title=_as_utf8(document.title))
    parts = [document.title, document.text, document.version, list(document.page_starts), max_chars]
    digest = content_hash(parts, 32)
    if digest == known_hash:
        staged.unchanged += 1
    else:
        staged.fresh[document.id] = document, digest, split_document(document, max_chars=max_chars)


def embed_missing(database: Database, embedder: Embedder, staged: Staged) -> dict[str, bytes]:
    """Make and store the vectors, float16 [D], of all texts that have none; returns them by text key."""
    passages = [p for _, _, cut in staged.fresh.values() for p in cut]
    with database.reading() as connection:
        query = "SELECT text_key FROM embeddings WHERE embedder = ?"
        stored = {key for (key,) in connection.execute(query, (embedder.name,))}
        passages += map(passage_of, connection.execute(UNEMBEDDED, (embedder.name,)))
    texts = {text_key(p): embedded_text(p) for p in passages}
    keys = [key for key in texts if key not in stored]
    vectors: dict[str, bytes] = {}
    for begin in range(0, len(keys), EMBED_BATCH):
        batch = keys[begin : begin + EMBED_BATCH]
        made = embedder.embed([texts[key] for key in batch]).astype(np.float16)
        fresh = {key: vector.tobytes() for key, vector in zip(batch, made, strict=True)}
        with database.writing() as connection:
            _store(connection, embedder.name, fresh)
        vectors.update(fresh)
    return vectors


def apply(
    connection: sqlite3.Connection, embedder: str, staged: Staged, vectors: dict[str, bytes]
) -> SyncReport:
    """Change the index to what was staged, within the caller's transaction.

    Raises:
        IntegrityError: The index's parts disagree afterwards; the caller's transaction undoes it all.
    """
    known = document_hashes(connection, staged.connector)
    changed = staged.fresh.keys() & known.keys()
    remove_documents(connection, staged.gone | changed)
    # Once more: another process may have tidied these vectors away, as no passage needed them yet.
    _store(connection, embedder, vectors)
    expected = single_number(connection, "SELECT count(*) FROM passages")
    for document, digest, passages in staged.fresh.values():
        insert_document(connection, staged.connector, document, digest, passages)
        expected += len(passages)
    finish(connection, embedder, expected)
    return SyncReport(
        added=len(staged.fresh) - len(changed),
        changed=len(changed),
        removed=len(staged.gone),
        unchanged=staged.unchanged,
        passages=expected,
        embedded=len(vectors),
        unreadable=tuple(staged.unreadable),
    )


def remove_documents(connection: sqlite3.Connection, documents: Iterable[str]) -> None:
    """Remove documents and their passages; `finish` removes their vectors."""
    rows = [(document,) for document in documents]
    connection.executemany("DELETE FROM passages WHERE document = ?", rows)
    connection.executemany("DELETE FROM documents WHERE id = ?", rows)


def finish(connection: sqlite3.Connection, embedder: str, expected: int) -> None:
    """Drop vectors that no passage needs, mark the index as changed, check that its parts agree.

    Raises:
        IntegrityError: There are not `expected` passages, each with its words and its vector.
    """
    connection.execute(
        "DELETE FROM embeddings WHERE NOT EXISTS "
        "(SELECT 1 FROM passages WHERE passages.text_key = embeddings.text_key)"
    )
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")
    total = single_number(connection, "SELECT count(*) FROM passages")
    worded = single_number(connection, "SELECT count(*) FROM passages_fts_docsize")
    lacking = len(connection.execute(UNEMBEDDED, (embedder,)).fetchall())
    if (total, worded, lacking) != (expected, expected, 0):
        raise IntegrityError(
            f"The knowledge index holds {total} passages, {worded} of them with their words and {lacking} "
            f"without a vector; expected {expected}, {expected} and 0. The change was undone. "
            "Delete the index and sync the documents again."
        )


def _store(connection: sqlite3.Connection, embedder: str, vectors: dict[str, bytes]) -> None:
    rows = [(embedder, key, vector) for key, vector in vectors.items()]
    connection.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", rows)


def _is_utf8(text: str) -> bool:
    return text == _as_utf8(text)


def _as_utf8(text: str) -> str:
    """The text with lone surrogates, which cannot be stored, as question marks: offsets stay."""
    return text.encode("utf-8", "replace").decode("utf-8")
