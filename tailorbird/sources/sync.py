"""Bringing an index up to date with a connector, in three steps.

1. `stage`: read the connector, find what is new, changed, gone; the index is only read.
2. `apply`: all changes in one transaction, checked at its end. From here on every document is found by its words.
3. `embed_missing`: make the vectors that passages lack and store them as they come. What was interrupted goes on with
   the next sync, and no vector is made twice.

Several processes may sync an index at once: they take turns at a connector (1 and 2), at writing, and at making the
vectors of one embedder, for on one machine two would not be faster than one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tailorbird.errors import IntegrityError
from tailorbird.sources.database import Database
from tailorbird.sources.embedder import Embedder
from tailorbird.sources.notes import Noting, read_notes, write_notes
from tailorbird.sources.passage_rows import (
    UNEMBEDDED,
    document_hashes,
    embedded_text,
    insert_document,
    passage_of,
    single_number,
    text_key,
)
from tailorbird.sources.scopes import NO_RULES, Rules, put_in_force, stale_rules
from tailorbird.sources.source import Connector, Versioned
from tailorbird.sources.staging import (
    Staged,
    SyncProgress,
    Tell,
    refuse_foreign,
    stage,
    way,
    way_name,
)
from tailorbird.sources.sync_report import SyncReport
from tailorbird.sources.turns import turn

__all__ = ["SyncProgress", "SyncReport", "Tell", "foretell", "forget", "synchronize"]

EMBED_BATCH = 128
"""Vectors are stored after this many, so that an interrupted sync loses few."""
LACKING_AT_A_TIME = 4096
"""Texts without a vector that are in memory at a time."""
SHOWN_EVERY_S = 5.0
"""Seconds after which new vectors are made known to searches: each time they read all vectors anew."""
TURN_WAIT_S = 600.0
"""How long a sync waits for another one that reads and applies the same connector."""
WRITE_WAIT_S = 3600.0
"""How long a writer waits for one that applies all documents of a large connector."""
STALLED_S = 300.0
"""Seconds without a new vector after which another process that makes them is no longer waited for."""
LOOK_EVERY_S = 1.0
"""Seconds between two looks at how far another process is."""


@dataclass(frozen=True)
class Beside:
    """What is brought up to date beside the index: what is found by words, and what by meaning; each says it."""

    words: Callable[[], list[str]] = list
    vectors: Callable[[], list[str]] = list


NOTHING_BESIDE = Beside()


def synchronize(  # noqa: PLR0917 - what is synced, with what, and how
    database: Database,
    embedder: Embedder,
    connector: Connector,
    max_chars: int,
    rules: Callable[[], Rules] = Rules,
    tell: Tell | None = None,
    beside: Beside = NOTHING_BESIDE,
) -> SyncReport:
    """All three steps, and what stands beside the index. `rules` is asked for when they are put in force.

    Raises:
        DocumentError: The connector gives an id twice, or one that came from another connector.
        InputError: Another sync of the same connector goes on for too long.
        IntegrityError: The index's parts disagree afterwards; it is left as it was.
    """
    database.check_writable()
    began = time.monotonic()
    waiting = _telling(tell, SyncProgress("wait", 0))
    with turn(database.path, f"{connector.name!r}", TURN_WAIT_S, waiting):
        with stage(database, connector, max_chars, tell) as staged:
            report = _applied(database, staged, connector, max_chars, rules)
        done = beside.words()
        searchable_s = time.monotonic() - began
    embedded = embed_missing(database, embedder, tell)
    done += beside.vectors()
    with database.reading() as connection:
        report = _with_totals(connection, embedder.name, report)
    seconds = time.monotonic() - began
    return replace(report, embedded=embedded, searchable_s=searchable_s, seconds=seconds, stores=tuple(done))


def foretell(
    database: Database, embedder: str, connector: Connector, max_chars: int, rules: Rules = NO_RULES
) -> SyncReport:
    """What a sync would do; nothing is changed.

    Raises:
        DocumentError: As `synchronize` does.
    """
    with stage(database, connector, max_chars) as staged, database.reading() as connection:
        others = {name for name, _ in stale_rules(connection, connector.name, rules)}
        report = foretold(connection, embedder, staged)
        return replace(report, ruled=len(others - staged.gone - staged.changed))


def forget(database: Database, connector: str) -> int:
    """Removes all documents of a connector, with their passages and vectors; returns how many.

    Raises:
        InputError: A sync of this connector goes on for too long.
    """
    database.check_writable()
    with turn(database.path, f"{connector!r}", TURN_WAIT_S), _writing(database) as connection:
        gone = document_hashes(connection, connector).keys()
        remove_documents(connection, connector, gone)
        write_notes(connection, connector, {})
        finish(connection, single_number(connection, "SELECT count(*) FROM passages"))
        return len(gone)


def govern(database: Database, connector: str, rules: Rules) -> int:
    """Puts rules in force for a connector's documents as they are; returns for how many.

    Raises:
        InputError: A sync of this connector goes on for too long.
    """
    database.check_writable()
    with turn(database.path, f"{connector!r}", TURN_WAIT_S), _writing(database) as connection:
        if ruled := put_in_force(connection, stale_rules(connection, connector, rules)):
            _mark_changed(connection)
        return ruled


def foretold(connection: sqlite3.Connection, embedder: str, staged: Staged) -> SyncReport:
    """What applying what was staged would do; nothing is changed."""
    # These tables are this connection's own, and go with the transaction.
    connection.execute("CREATE TEMP TABLE lost (document TEXT PRIMARY KEY) WITHOUT ROWID")
    lost = staged.gone | staged.changed
    connection.executemany("INSERT INTO lost VALUES (?)", [(document,) for document in lost])
    connection.execute("CREATE TEMP TABLE needed (text_key TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.execute(
        "INSERT OR IGNORE INTO needed SELECT text_key FROM passages WHERE document NOT IN (SELECT * FROM lost)"
    )
    keys = ((text_key(p),) for _, _, passages in staged.documents() for p in passages)
    connection.executemany("INSERT OR IGNORE INTO needed VALUES (?)", keys)
    lacking = (
        "SELECT count(*) FROM needed n WHERE NOT EXISTS "
        "(SELECT 1 FROM embeddings e WHERE e.embedder = ? AND e.text_key = n.text_key)"
    )
    embedded = connection.execute(lacking, (embedder,)).fetchone()[0]
    left = "SELECT count(*) FROM passages WHERE document NOT IN (SELECT * FROM lost)"
    passages = single_number(connection, left) + staged.num_passages
    return replace(
        _report(staged),
        passages=passages,
        with_words=passages,
        with_vectors=passages,
        embedded=embedded,
        documents=_count_documents(connection) - len(lost) + len(staged.fresh),
        dry_run=True,
    )


def _applied(
    database: Database, staged: Staged, connector: Connector, max_chars: int, rules: Callable[[], Rules]
) -> SyncReport:
    """Applies what was staged; where nothing is new, nothing is written, and no search has to read anew."""
    if not staged.fresh and not staged.gone:
        with database.reading() as connection:
            _check_documents(connection, staged, connector)
            _check_passages(connection, single_number(connection, "SELECT count(*) FROM passages"))
            noted = _is_noted(connection, staged, connector, max_chars)
            noted = noted and not stale_rules(connection, connector.name, rules())
            report = replace(_report(staged), documents=_count_documents(connection))
        if noted:
            return report
    with _writing(database) as connection:
        return apply(connection, staged, connector, max_chars, rules())


def apply(
    connection: sqlite3.Connection,
    staged: Staged,
    connector: Connector,
    max_chars: int,
    rules: Rules = NO_RULES,
) -> SyncReport:
    """Change the index to what was staged, within the caller's transaction; vectors may still be lacking.

    Raises:
        DocumentError: A document came from another connector meanwhile.
        IntegrityError: The index's parts disagree afterwards; the caller's transaction undoes it all.
    """
    remove_documents(connection, staged.connector, staged.gone | staged.changed)
    expected = single_number(connection, "SELECT count(*) FROM passages") + staged.num_passages
    for document, digest, passages in staged.documents():
        owner = connection.execute("SELECT connector FROM documents WHERE id = ?", (document.id,)).fetchone()
        refuse_foreign(document.id, staged.connector, owner[0] if owner else None)
        insert_document(connection, staged.connector, document, digest, passages)
    # What could not be read now may still stand there as it was read before.
    if isinstance(connector, Versioned) and not staged.kept:
        row = (way_name(connector), way(connector, max_chars))
        connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", row)
    if isinstance(connector, Noting):
        write_notes(connection, connector.name, connector.notes)
    ruled = put_in_force(connection, stale_rules(connection, connector.name, rules))
    if staged.fresh or staged.gone:
        finish(connection, expected)
    elif ruled:
        _mark_changed(connection)
    _check_documents(connection, staged, connector)
    return replace(_report(staged), documents=_count_documents(connection), ruled=ruled)


def _is_noted(connection: sqlite3.Connection, staged: Staged, connector: Connector, max_chars: int) -> bool:
    """Whether the index knows already how the connector's documents were read now."""
    if isinstance(connector, Noting) and read_notes(connection, connector.name) != connector.notes:
        return False
    if not isinstance(connector, Versioned) or staged.kept:
        return True
    query = "SELECT value FROM counters WHERE name = ?"
    return connection.execute(query, (way_name(connector),)).fetchone() == (way(connector, max_chars),)


def embed_missing(database: Database, embedder: Embedder, tell: Tell | None = None) -> int:
    """Make and store the vectors, float16 [D], of all texts that have none; how many were made here.

    What others add meanwhile is done, too. While another process makes vectors for the same embedder, it is waited
    for, so that at the end no passage lacks its vector and none was made twice.
    """
    if not _count_lacking(database, embedder.name):
        return 0
    look = _Look(database, embedder.name, tell)
    with turn(database.path, f"embedding by {embedder.name}", float("inf"), look):
        return _make_missing(database, embedder, tell)


@dataclass
class _Look:
    """Looks now and then how far another process is with the vectors; True when it should be waited for no longer."""

    database: Database
    embedder: str
    tell: Tell | None
    _looked: float = 0.0
    _first: int = 0
    _last: int = -1
    _moved: float = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return False
        self._looked, lacking = now, _count_lacking(self.database, self.embedder)
        self._first = max(self._first, lacking)
        if lacking != self._last:
            self._last, self._moved = lacking, now
        if self.tell:
            self.tell(SyncProgress("embed", self._first - lacking, self._first))
        return lacking == 0 or now - self._moved >= STALLED_S


def _make_missing(database: Database, embedder: Embedder, tell: Tell | None) -> int:
    made, shown_at = 0, time.monotonic()
    total = _count_lacking(database, embedder.name)
    for texts in _batches(database, embedder.name):
        vectors = embedder.embed(list(texts.values())).astype(np.float16)
        made += len(texts)
        if made > total:  # others added some meanwhile
            total = made + _count_lacking(database, embedder.name) - len(texts)
        with _writing(database) as connection:
            _store(connection, embedder.name, dict(zip(texts, vectors, strict=True)))
            if made == total or time.monotonic() - shown_at >= SHOWN_EVERY_S:
                _mark_changed(connection)
                shown_at = time.monotonic()
        if tell:
            tell(SyncProgress("embed", made, total))
    return made


def _batches(database: Database, embedder: str) -> Iterator[dict[str, str]]:
    """Texts without a vector by their keys, `EMBED_BATCH` at a time, until there are none, whoever adds some."""
    after, more = 0, True
    while more:
        with database.reading() as connection:
            query = f"{UNEMBEDDED} AND number > ? ORDER BY number LIMIT ?"
            rows = connection.execute(query, (embedder, after, LACKING_AT_A_TIME)).fetchall()
        more = bool(rows) or after > 0
        after = rows[-1][0] if rows else 0
        texts = {row[-1]: embedded_text(passage_of(row)) for row in rows}
        keys = list(texts)
        for begin in range(0, len(keys), EMBED_BATCH):
            yield {key: texts[key] for key in keys[begin : begin + EMBED_BATCH]}


def _count_lacking(database: Database, embedder: str) -> int:
    with database.reading() as connection:
        query = f"SELECT count(DISTINCT text_key) FROM ({UNEMBEDDED})"  # noqa: S608  -- a constant
        return int(connection.execute(query, (embedder,)).fetchone()[0])


def _report(staged: Staged) -> SyncReport:
    return SyncReport(
        added=len(staged.fresh) - len(staged.changed),
        changed=len(staged.changed),
        removed=len(staged.gone),
        unchanged=staged.unchanged,
        passages=0,
        embedded=0,
        unreadable=tuple(staged.unreadable),
        listed=staged.listed,
        kept=len(staged.kept),
    )


def _with_totals(connection: sqlite3.Connection, embedder: str, report: SyncReport) -> SyncReport:
    """The report with what the index holds now."""
    vectors = (
        "SELECT count(*) FROM passages p JOIN embeddings e ON e.embedder = ? AND e.text_key = p.text_key"
    )
    return replace(
        report,
        documents=_count_documents(connection),
        passages=single_number(connection, "SELECT count(*) FROM passages"),
        with_words=single_number(connection, "SELECT count(*) FROM passages_fts_docsize"),
        with_vectors=int(connection.execute(vectors, (embedder,)).fetchone()[0]),
    )


def _count_documents(connection: sqlite3.Connection) -> int:
    return single_number(connection, "SELECT count(*) FROM documents")


def remove_documents(connection: sqlite3.Connection, connector: str, documents: Iterable[str]) -> None:
    """Remove documents of a connector and their passages; `finish` removes their vectors."""
    for document in documents:
        query = "SELECT 1 FROM documents WHERE id = ? AND connector = ?"
        if connection.execute(query, (document, connector)).fetchone():
            connection.execute("DELETE FROM passages WHERE document = ?", (document,))
            connection.execute("DELETE FROM documents WHERE id = ?", (document,))


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
    _check_passages(connection, expected)


def _check_passages(connection: sqlite3.Connection, expected: int) -> None:
    total = single_number(connection, "SELECT count(*) FROM passages")
    worded = single_number(connection, "SELECT count(*) FROM passages_fts_docsize")
    if (total, worded) != (expected, expected):
        raise IntegrityError(
            f"The knowledge index holds {total} passages, {worded} of them with their words; expected {expected} and "
            f"{expected}. The change was undone. Delete the index and sync the documents again."
        )


def _check_documents(connection: sqlite3.Connection, staged: Staged, connector: Connector) -> None:
    """Checks that the index holds what the connector listed: all of it that could be read now, or before."""
    if not connector.complete:
        return
    query = "SELECT count(*) FROM documents WHERE connector = ?"
    held = int(connection.execute(query, (staged.connector,)).fetchone()[0])
    expected = len(staged.fresh) + staged.unchanged + len(staged.kept)
    if held != expected:
        raise IntegrityError(
            f"The knowledge index holds {held} documents of {staged.connector!r}; expected {expected}, of "
            f"{staged.listed} that are listed. The change was undone. Delete the index and sync the documents again."
        )


@contextlib.contextmanager
def _writing(database: Database) -> Generator[sqlite3.Connection]:
    """As `Database.writing`, however long another sync's change takes."""
    with turn(database.path, "writing", WRITE_WAIT_S), database.writing() as connection:
        yield connection


def _telling(tell: Tell | None, progress: SyncProgress) -> Callable[[], None]:
    return lambda: tell(progress) if tell else None


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
