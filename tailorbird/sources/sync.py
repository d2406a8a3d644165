"""Bringing an index up to date with a connector, in three steps.

1. `stage`: read the connector, find what is new, changed, gone; the index is only read.
2. `apply`: all changes in one transaction, checked at its end. From here on every document is found by its words.
3. `embed_missing`: make the vectors that passages lack and store them as they come. What was interrupted goes on with
   the next sync, and no vector is made twice.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from tailorbird.data.documents import Unchanged, Unreadable
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
from tailorbird.sources.scopes import NO_RULES, Rules
from tailorbird.sources.source import Connector, Removed, Versioned

EMBED_BATCH = 64
"""Vectors are stored after this many, so that an interrupted sync loses few."""
SHOWN_EVERY_S = 5.0
"""Seconds after which new vectors are made known to searches: each time they read all vectors anew."""


@dataclass(frozen=True)
class SyncReport:
    """What a sync did. The first four count documents; `passages` is the index's total afterwards.

    `embedded` counts the texts whose vectors had to be computed, `ruled` the documents that were there and got other
    rules of who may read them. `unreadable` holds the id and the reason
    of documents that could not be read; what the index knew of them before is kept. Of a dry run it is what
    would be done. `searchable_s` is after how many seconds all was found by its words, `seconds` the whole.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    passages: int
    embedded: int
    unreadable: tuple[tuple[str, str], ...] = ()
    documents: int = 0
    searchable_s: float = 0.0
    seconds: float = 0.0
    dry_run: bool = False
    ruled: int = 0
    stores: tuple[str, ...] = ()
    """What was done to the vector store and the keyword index beside the file, in sentences."""


@dataclass(frozen=True)
class SyncProgress:
    """How far a sync is: documents read, or texts embedded, `total` of them where that is known."""

    stage: Literal["read", "embed"]
    done: int
    total: int | None = None


Tell = Callable[[SyncProgress], None]


@dataclass
class Staged:
    """What a connector gave, compared with what the index holds of it."""

    connector: str
    fresh: dict[str, tuple[Document, str, list[Passage]]] = field(default_factory=dict)
    """New and changed documents by id, with their content hashes and passages."""
    known: set[str] = field(default_factory=set)
    """Ids of the connector's documents that the index holds."""
    gone: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unchanged: int = 0

    @property
    def changed(self) -> set[str]:
        """Documents that the index holds otherwise."""
        return self.fresh.keys() & self.known


def stage(database: Database, connector: Connector, max_chars: int, tell: Tell | None = None) -> Staged:
    """Read the connector and compare it with the index.

    Raises:
        DocumentError: An id is given twice, or belongs to another connector.
    """
    with database.reading() as connection:
        known = document_hashes(connection, connector.name)
        owners = dict(connection.execute("SELECT id, connector FROM documents").fetchall())
    staged = Staged(connector.name, known=set(known))
    for item in _items(database, connector, max_chars):
        if item.id in staged.seen:
            raise DocumentError(f"The connector {connector.name!r} gave {item.id!r} twice. Ids must differ.")
        staged.seen.add(item.id)
        if isinstance(item, Removed):
            staged.gone.update({item.id} & known.keys())
        elif isinstance(item, Unreadable):
            staged.unreadable.append((item.id, item.reason))
        elif isinstance(item, Unchanged):
            staged.unchanged += 1
        else:
            _refuse_foreign(item.id, connector.name, owners)
            _stage_document(staged, item, known.get(item.id), max_chars)
        if tell:
            tell(SyncProgress("read", len(staged.seen)))
    if connector.complete:
        staged.gone.update(known.keys() - staged.seen)
    return staged


def _items(
    database: Database, connector: Connector, max_chars: int
) -> Iterator[Document | Removed | Unreadable | Unchanged]:
    """What the connector gives; of one that knows versions, what changed since it was last read in the same way."""
    if not isinstance(connector, Versioned):
        return connector.documents()
    with database.reading() as connection:
        row = connection.execute(
            "SELECT value FROM counters WHERE name = ?", (_way_name(connector),)
        ).fetchone()
        if row is None or row[0] != _way(connector, max_chars):
            return connector.changes({})
        query = (
            "SELECT DISTINCT p.document, p.version FROM passages p JOIN documents d ON d.id = p.document "
            "WHERE d.connector = ?"
        )
        return connector.changes(dict(connection.execute(query, (connector.name,)).fetchall()))


def _way_name(connector: Connector) -> str:
    return f"read as:{connector.name}"


def _way(connector: Versioned, max_chars: int) -> int:
    """How documents are read and cut, as a number that SQLite holds."""
    return int(content_hash([connector.reading, max_chars], 15), 16)


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
    if (rules := Rules.of(document)) != NO_RULES:
        parts.append(rules.to_json())
    digest = content_hash(parts, 32)
    if digest == known_hash:
        staged.unchanged += 1
    else:
        staged.fresh[document.id] = document, digest, split_document(document, max_chars=max_chars)


def foretold(connection: sqlite3.Connection, embedder: str, staged: Staged) -> SyncReport:
    """What applying what was staged would do; nothing is changed."""
    passages = [p for _, _, cut in staged.fresh.values() for p in cut]
    lost = staged.gone | staged.changed
    counted = [
        connection.execute("SELECT count(*) FROM passages WHERE document = ?", (document,)).fetchone()[0]
        for document in lost
    ]
    stored = _stored_keys(connection, embedder)
    lacking = (passage_of(row) for row in connection.execute(UNEMBEDDED, (embedder,)))
    texts = {text_key(p) for p in (*passages, *(p for p in lacking if p.document not in lost))}
    return replace(
        _report(staged),
        passages=single_number(connection, "SELECT count(*) FROM passages") - sum(counted) + len(passages),
        embedded=len(texts - stored),
        documents=_count_documents(connection) - len(lost) + len(staged.fresh),
        dry_run=True,
    )


def apply(connection: sqlite3.Connection, staged: Staged, connector: Connector, max_chars: int) -> SyncReport:
    """Change the index to what was staged, within the caller's transaction; vectors may still be lacking.

    Raises:
        IntegrityError: The index's parts disagree afterwards; the caller's transaction undoes it all.
    """
    # Another process may have changed the index meanwhile.
    staged.known = set(document_hashes(connection, staged.connector))
    remove_documents(connection, staged.gone | staged.changed)
    expected = single_number(connection, "SELECT count(*) FROM passages")
    for document, digest, passages in staged.fresh.values():
        insert_document(connection, staged.connector, document, digest, passages)
        expected += len(passages)
    # What could not be read now may still stand there as it was read before.
    kept = staged.known.intersection(name for name, _ in staged.unreadable)
    if isinstance(connector, Versioned) and not kept:
        row = (_way_name(connector), _way(connector, max_chars))
        connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", row)
    finish(connection, expected)
    return replace(_report(staged), passages=expected, documents=_count_documents(connection))


def embed_missing(database: Database, embedder: Embedder, tell: Tell | None = None) -> int:
    """Make and store the vectors, float16 [D], of all texts that have none; how many were made.

    What others add meanwhile is done, too, so that at the end no passage lacks its vector.
    """
    made, shown_at = 0, time.monotonic()
    while texts := _lacking(database, embedder.name):
        total, keys = made + len(texts), list(texts)
        for begin in range(0, len(keys), EMBED_BATCH):
            batch = keys[begin : begin + EMBED_BATCH]
            vectors = embedder.embed([texts[key] for key in batch]).astype(np.float16)
            made += len(batch)
            with database.writing() as connection:
                _store(connection, embedder.name, dict(zip(batch, vectors, strict=True)))
                if made == total or time.monotonic() - shown_at >= SHOWN_EVERY_S:
                    _mark_changed(connection)
                    shown_at = time.monotonic()
            if tell:
                tell(SyncProgress("embed", made, total))
    return made


def _lacking(database: Database, embedder: str) -> dict[str, str]:
    """The texts without a vector, by their keys."""
    with database.reading() as connection:
        rows = connection.execute(UNEMBEDDED, (embedder,)).fetchall()
    return {row[-1]: embedded_text(passage_of(row)) for row in rows}


def _stored_keys(connection: sqlite3.Connection, embedder: str) -> set[str]:
    query = "SELECT text_key FROM embeddings WHERE embedder = ?"
    return {key for (key,) in connection.execute(query, (embedder,))}


def _report(staged: Staged) -> SyncReport:
    return SyncReport(
        added=len(staged.fresh) - len(staged.changed),
        changed=len(staged.changed),
        removed=len(staged.gone),
        unchanged=staged.unchanged,
        passages=0,
        embedded=0,
        unreadable=tuple(staged.unreadable),
    )


def _count_documents(connection: sqlite3.Connection) -> int:
    return single_number(connection, "SELECT count(*) FROM documents")


def remove_documents(connection: sqlite3.Connection, documents: Iterable[str]) -> None:
    """Remove documents and their passages; `finish` removes their vectors."""
    rows = [(document,) for document in documents]
    connection.executemany("DELETE FROM passages WHERE document = ?", rows)
    connection.executemany("DELETE FROM documents WHERE id = ?", rows)


def finish(connection: sqlite3.Connection, expected: int) -> None:
    """Drop vectors that no passage needs, mark the index as changed, check that its parts agree.

    Raises:
        IntegrityError: There are not `expected` passages, each with its words.
    """
    connection.execute(
        "DELETE FROM embeddings WHERE NOT EXISTS "
        "(SELECT 1 FROM passages WHERE passages.text_key = embeddings.text_key)"
    )
    _mark_changed(connection)
    total = single_number(connection, "SELECT count(*) FROM passages")
    worded = single_number(connection, "SELECT count(*) FROM passages_fts_docsize")
    if (total, worded) != (expected, expected):
        raise IntegrityError(
            f"The knowledge index holds {total} passages, {worded} of them with their words; expected {expected} and "
            f"{expected}. The change was undone. Delete the index and sync the documents again."
        )


def _mark_changed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")


def _store(connection: sqlite3.Connection, embedder: str, vectors: dict[str, np.ndarray]) -> None:
    """Keeps the vectors that a passage still needs: another process may have removed it meanwhile."""
    rows = [(embedder, key, vector.tobytes(), key) for key, vector in vectors.items()]
    connection.executemany(
        "INSERT OR IGNORE INTO embeddings SELECT ?, ?, ? WHERE EXISTS "
        "(SELECT 1 FROM passages WHERE text_key = ?)",
        rows,
    )


def _is_utf8(text: str) -> bool:
    return text == _as_utf8(text)


def _as_utf8(text: str) -> str:
    """The text with lone surrogates, which cannot be stored, as question marks: offsets stay."""
    return text.encode("utf-8", "replace").decode("utf-8")
