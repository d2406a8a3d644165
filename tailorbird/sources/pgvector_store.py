"""Vectors in PostgreSQL with the extension pgvector: where a database server is kept anyway."""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from tailorbird.errors import EndpointError, InputError, IntegrityError
from tailorbird.sources.optional import need_for_store
from tailorbird.sources.vector_store import Allowed, Batch, Numbers, Vectors

INDEXED_FROM = 20_000
"""Fewer vectors are compared one by one, which is exact."""
FEW = 50_000
"""So few allowed passages are compared one by one, whatever the planner thinks."""
EXPLORED = 200
"""Candidates that a search of the graph keeps (hnsw.ef_search)."""


class PgvectorStore:
    """A table of vectors in half precision with an HNSW index, and one of the terms.

    Args:
        place: a connection URL of PostgreSQL's; a password is better kept in `~/.pgpass`.
        table: its name.
        dimensions: of the vectors.

    Raises:
        Unsupported: psycopg is not installed.
    """

    grows = True

    def __init__(self, place: str, table: str, dimensions: int) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", table):
            raise InputError(f"{table!r} can't be a table's name; expected small letters, digits and `_`.")
        self.place = place
        self.table = table
        self.dimensions = dimensions
        need_for_store("psycopg", "pgvector")
        import psycopg

        self._psycopg = psycopg
        self._lock = threading.Lock()
        self._open: list[Any] = []
        # The connection is closed even when the owner forgets to, so that no warning is left behind.
        weakref.finalize(self, _close_all, self._open)

    def count(self) -> int:
        with self._transaction() as cursor:
            if cursor.execute("SELECT to_regclass(%s)", (self.table,)).fetchone()[0] is None:
                raise IntegrityError(
                    f"{self._shown}: PostgreSQL has no table {self.table!r}. "
                    "It is filled again by the next `tailor knowledge sync`."
                )
            return int(cursor.execute(f"SELECT count(*) FROM {self.table}").fetchone()[0])  # noqa: S608

    def fill(self, batches: Iterator[Batch], count: int) -> None:
        table = self.table
        with self._transaction() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
            cursor.execute(
                f"CREATE TABLE {table} (number bigint PRIMARY KEY, vector halfvec({self.dimensions}) NOT NULL, "
                "terms text[] NOT NULL)"
            )
            self._copy(cursor, batches)
            cursor.execute(f"CREATE INDEX {table}_terms ON {table} USING gin (terms)")
            if count >= INDEXED_FROM:
                self._index_vectors(cursor)
            cursor.execute(f"ANALYZE {table}")

    def change(self, gone: Numbers, batches: Iterator[Batch]) -> None:
        table = self.table
        with self._transaction() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE number = ANY(%s)", (gone.tolist(),))  # noqa: S608
            for batch in batches:
                query = f"DELETE FROM {table} WHERE number = ANY(%s)"  # noqa: S608
                cursor.execute(query, (batch.numbers.tolist(),))
                self._copy(cursor, iter([batch]))
            count = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            if count >= INDEXED_FROM:
                self._index_vectors(cursor)

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        if k <= 0:
            return np.empty(0, dtype=np.int64)
        conditions, values = _conditions(allowed)
        query = (
            f"SELECT number FROM {self.table} WHERE {conditions} "  # noqa: S608
            f"ORDER BY vector <#> %s::halfvec({self.dimensions}) LIMIT %s"
        )
        with self._transaction() as cursor:
            cursor.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(EXPLORED, k))}")
            # A graph alone would find fewer than k: it goes on until there are k, in the exact order.
            cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            cursor.execute("SET LOCAL hnsw.max_scan_tuples = 1000000")
            if allowed is not None and allowed.count <= FEW:
                cursor.execute("SET LOCAL enable_indexscan = off")
            rows = cursor.execute(query, (*values, _text(vector), k)).fetchall()
        return np.array([number for (number,) in rows], dtype=np.int64)

    def remove(self) -> None:
        with self._transaction() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {self.table}")

    def close(self) -> None:
        with self._lock:
            _close_all(self._open)

    @property
    def _shown(self) -> str:
        """The place without a password."""
        return re.sub(r"(://[^:/@]*):[^@]*@", r"\1@", self.place)

    def _copy(self, cursor: Any, batches: Iterator[Batch]) -> None:
        with cursor.copy(f"COPY {self.table} (number, vector, terms) FROM STDIN") as copy:
            for batch in batches:
                for number, vector, terms in zip(
                    batch.numbers.tolist(), batch.vectors, batch.terms, strict=True
                ):
                    copy.write_row((number, _text(vector), list(terms)))

    def _index_vectors(self, cursor: Any) -> None:
        cursor.execute(
            f"CREATE INDEX IF NOT EXISTS {self.table}_vectors ON {self.table} USING hnsw (vector halfvec_ip_ops)"
        )

    @contextlib.contextmanager
    def _transaction(self) -> Generator[Any]:
        """One connection, one at a time; an error of the server's says which server it was."""
        with self._lock:
            try:
                if self._open and self._open[0].closed:
                    self._open.clear()
                if not self._open:
                    self._open.append(self._psycopg.connect(self.place, connect_timeout=30))
                with self._open[0].transaction(), self._open[0].cursor() as cursor:
                    yield cursor
            except self._psycopg.Error as error:
                raise EndpointError(
                    f"{self._shown}: PostgreSQL can't be asked: {' '.join(str(error).split())[:200]}. "
                    "Start it, see that pgvector is installed there, "
                    "or choose another vector store: tailor knowledge store NAME auto"
                ) from None


def _close_all(connections: list[Any]) -> None:
    while connections:
        connections.pop().close()


def _conditions(allowed: Allowed | None) -> tuple[str, list[Any]]:
    if allowed is None:
        return "true", []
    if allowed.pattern:
        return "number = ANY(%s)", [allowed.numbers().tolist()]
    return " AND ".join(["true", *("terms && %s::text[]" for _ in allowed.clauses)]), [
        list(terms) for terms in allowed.clauses
    ]


def _text(vector: Vectors) -> str:
    """A vector as pgvector reads it."""
    return f"[{','.join(f'{value:.6g}' for value in vector.tolist())}]"
