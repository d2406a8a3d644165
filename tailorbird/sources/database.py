"""The SQLite file of a knowledge index: its tables, and connections that many threads may use at once."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path

from tailorbird.errors import InputError, IntegrityError, NotFound, Unsupported

SCHEMA_VERSION = 2
"""Raised whenever the tables, or how documents are cut into passages, change."""
WITHOUT_RULES = 1
"""The version whose documents had no rules and whose changes were not counted: brought up to date when opened."""

WRITER_KIB, READER_KIB = 131_072, 16_384
"""Memory for pages of the file: what a large transaction changes would else be written out over and over, and what
leads to the pages that are searched for read in each time."""
WAIT_S = 30.0
"""How long one writer waits for another."""

_SCHEMA = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('generation', 0);
CREATE TABLE documents (
    id TEXT PRIMARY KEY, connector TEXT NOT NULL, hash TEXT NOT NULL, title TEXT NOT NULL,
    own TEXT NOT NULL DEFAULT '["",[],[]]', rules TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX documents_by_connector ON documents (connector);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL, title TEXT NOT NULL, headings TEXT NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, page INTEGER, version TEXT NOT NULL, text_key TEXT NOT NULL
);
CREATE INDEX passages_by_document ON passages (document);
CREATE INDEX passages_by_text ON passages (text_key);
CREATE TABLE embeddings (
    embedder TEXT NOT NULL, text_key TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (embedder, text_key)
);
CREATE INDEX embeddings_by_text ON embeddings (text_key);
CREATE VIRTUAL TABLE passages_fts USING fts5 (
    title, headings, text, content = 'passages', content_rowid = 'number',
    tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN
    INSERT INTO passages_fts (rowid, title, headings, text)
    VALUES (new.number, new.title, new.headings, new.text);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passages BEGIN
    INSERT INTO passages_fts (passages_fts, rowid, title, headings, text)
    VALUES ('delete', old.number, old.title, old.headings, old.text);
END;
"""

# `own` are a document's rules as its connector gives them, `rules` those in force, '' before they are put in force:
# then the document has no terms, and nobody but the owner finds it. The tables of changes have one row for every
# passage that ever was: one that comes, goes or gets other rules, and in the second one that gets its vector, is moved
# to the end, so that what is kept beside the file catches up. Not by INSERT OR REPLACE: in a trigger the OR of the
# statement that fires it would take its place.
_RULES_AND_CHANGES = """
CREATE TABLE document_terms (
    term TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (term, document)
) WITHOUT ROWID;
CREATE INDEX terms_by_document ON document_terms (document);
CREATE TABLE word_changes (sequence INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL UNIQUE);
CREATE TABLE vector_changes (sequence INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL UNIQUE);
CREATE TRIGGER passage_came AFTER INSERT ON passages BEGIN
    DELETE FROM word_changes WHERE number = new.number;
    DELETE FROM vector_changes WHERE number = new.number;
    INSERT INTO word_changes (number) VALUES (new.number);
    INSERT INTO vector_changes (number) VALUES (new.number);
END;
CREATE TRIGGER passage_went AFTER DELETE ON passages BEGIN
    DELETE FROM word_changes WHERE number = old.number;
    DELETE FROM vector_changes WHERE number = old.number;
    INSERT INTO word_changes (number) VALUES (old.number);
    INSERT INTO vector_changes (number) VALUES (old.number);
END;
CREATE TRIGGER vector_came AFTER INSERT ON embeddings BEGIN
    DELETE FROM vector_changes WHERE number IN (SELECT number FROM passages WHERE text_key = new.text_key);
    INSERT INTO vector_changes (number) SELECT number FROM passages WHERE text_key = new.text_key;
END;
CREATE TRIGGER document_went AFTER DELETE ON documents BEGIN
    DELETE FROM document_terms WHERE document = old.id;
END;
INSERT INTO counters VALUES ('identity', abs(random() % 1000000000000000));
"""

_COLUMNS_OF_RULES = """
ALTER TABLE documents ADD COLUMN own TEXT NOT NULL DEFAULT '["",[],[]]';
ALTER TABLE documents ADD COLUMN rules TEXT NOT NULL DEFAULT '';
"""
_EVERYONE_MAY = """
UPDATE documents SET rules = own;
INSERT INTO document_terms SELECT '["read","",""]', id FROM documents;
INSERT INTO word_changes (number) SELECT number FROM passages;
INSERT INTO vector_changes (number) SELECT number FROM passages;
"""
_FROM_1 = _COLUMNS_OF_RULES + _RULES_AND_CHANGES + _EVERYONE_MAY
_SEEN_AS_2 = """
CREATE TEMP VIEW document_terms AS SELECT '["read","",""]' AS term, id AS document FROM main.documents;
CREATE TEMP VIEW word_changes AS SELECT number AS sequence, number FROM main.passages;
CREATE TEMP VIEW vector_changes AS SELECT number AS sequence, number FROM main.passages;
"""
"""An older file that must not be written to: its documents have no rules."""


class Database:
    """Borrowed connections to one index file; a connection serves one thread at a time.

    Raises:
        NotFound: It is opened read-only and is not there.
        IntegrityError: The file is no index, or one of another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        # Connections are closed even when the owner forgets to, so that no warning is left behind.
        self._finalizer = weakref.finalize(self, _close_all, self._idle)
        if read_only and not path.is_file():
            raise NotFound(f"There is no knowledge index at {path}. Sync documents into it first.")
        self._prepare()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection that sees one state of the index throughout."""
        with self._borrowed() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A connection whose changes become visible together, or not at all if the block raises."""
        self.check_writable()
        with self._borrowed() as connection:
            connection.execute(f"PRAGMA cache_size = -{WRITER_KIB}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute(f"PRAGMA cache_size = -{READER_KIB}")
                connection.execute("PRAGMA shrink_memory")

    def check_writable(self) -> None:
        """Refuses to change what was opened read-only.

        Raises:
            Unsupported: It was.
        """
        if self.read_only:
            raise Unsupported(
                f"The knowledge index {self.path} is open read-only. Pass read_only=False to change it."
            )

    def copy(self, path: Path) -> None:
        """Write a compact copy of the index to `path`, replacing what is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        with self._borrowed() as connection:
            connection.execute("VACUUM INTO ?", (str(temporary),))
        # Write-ahead logging is recorded in the file: set now, later openings leave its bytes as they are.
        with contextlib.closing(sqlite3.connect(temporary)) as copied:
            copied.execute("PRAGMA journal_mode = WAL")
        temporary.replace(path)

    def close(self) -> None:
        """Close the connections; one that is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
            _close_all(self._idle)

    @contextlib.contextmanager
    def _borrowed(self) -> Generator[sqlite3.Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise InputError(f"The knowledge index {self.path} is closed. Open it again to search it.")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        uri = self.path.resolve().as_uri() + ("?mode=ro&immutable=1" if self.read_only else "")
        connection = sqlite3.connect(
            uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{READER_KIB}")
            if self.read_only and self._version(connection) == WITHOUT_RULES:
                connection.executescript(_SEEN_AS_2)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise IntegrityError(
                f"{self.path} cannot be opened as a knowledge index: {error}. "
                "Delete it and sync the documents again."
            ) from error
        return connection

    def _prepare(self) -> None:
        """Make the tables in a new file; refuse a file that is something else."""
        if not self.read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._borrowed() as connection:
            if not self.read_only:
                self._bring_up_to_date(connection)
            found = self._version(connection)
        if found != SCHEMA_VERSION and not (self.read_only and found == WITHOUT_RULES):
            self.close()
            raise IntegrityError(
                f"{self.path} is a knowledge index of version {found}; this program reads version "
                f"{SCHEMA_VERSION}. Delete it and sync the documents again."
            )

    def _version(self, connection: sqlite3.Connection) -> int:
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise IntegrityError(
                f"{self.path} is not a knowledge index: {error}. Choose another path, or delete it."
            ) from error

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        """Make the tables that are lacking, once, even if two processes open a file at the same time."""
        if self._version(connection) not in _SCRIPTS:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(_SCRIPTS.get(self._version(connection), "")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


_SCRIPTS = {0: _SCHEMA + _RULES_AND_CHANGES, WITHOUT_RULES: _FROM_1}
"""What makes a file of each version, 0 being a new one, one of this version."""


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script; `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()
