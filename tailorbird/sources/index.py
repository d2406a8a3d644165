"""The knowledge index: documents copied in, cut into passages, found by words and by meaning.

One SQLite file is the whole truth; vectors are loaded from it into memory and scanned exactly. A question
is answered by two rankings, BM25 over the words (SQLite's FTS5) and the cosine similarity of embeddings,
fused by reciprocal rank. While vectors are still being made, the passages that share most words with a
question get theirs when it is asked.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from tailorbird.errors import InputError
from tailorbird.records import Passage, content_hash
from tailorbird.sources.database import Database
from tailorbird.sources.embedder import Embedder
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.keywords import match_any
from tailorbird.sources.passage_rows import (
    UNEMBEDDED,
    embedded_text,
    fetch_passages,
    single_number,
)
from tailorbird.sources.source import Connector
from tailorbird.sources.sync import SyncProgress, SyncReport, Tell, foretell, forget, synchronize

__all__ = ["KnowledgeIndex", "SyncProgress", "SyncReport"]

Vectors = npt.NDArray[np.float32]

CANDIDATES = 50
"""How many passages each of the two rankings brings to the fusion, at least."""
MADE_WHEN_ASKED = 10
"""Vectors that are made for one question, of passages that lack them."""


@dataclass(frozen=True)
class _Snapshot:
    """All vectors [P, D] of one state of the index, its rows in the order of the passages' ids.

    `made` holds vectors of passages that lack them in the file, by the passage's number.
    """

    generation: int
    numbers: list[int]
    rows: dict[int, int]
    vectors: Vectors
    made: dict[int, Vectors]


class KnowledgeIndex:
    """An index of passages in one SQLite file. It is a `Source`; threads may share it.

    Args:
        path: The file; it and its folders are made if absent.
        embedder: Makes the vectors of passages and questions.
        max_chars: Length of a passage in characters, at most.
        read_only: Open without ever touching the file, as part of a saved model is opened.

    Raises:
        NotFound: It is opened read-only and is not there.
        IntegrityError: The file is not an index of this version.
    """

    def __init__(
        self, path: Path, embedder: Embedder, *, max_chars: int = 800, read_only: bool = False
    ) -> None:
        self.path = path
        self.embedder = embedder
        self.max_chars = max_chars
        self._database = Database(path, read_only=read_only)
        self._snapshot: _Snapshot | None = None
        self._snapshot_lock = threading.Lock()

    def sync(
        self, connector: Connector, *, dry_run: bool = False, on_progress: Tell | None = None
    ) -> SyncReport:
        """Make the index hold what the connector holds: new, changed and gone documents.

        All changes become visible at once, by their words; vectors follow, and until a passage has its own,
        the best of those that share words with a question get theirs when it is asked. Only texts that the
        index has never seen are embedded. After a crash the index holds the old state or the new one, and
        the next sync makes the vectors that are lacking.

        Args:
            connector: gives the documents.
            dry_run: changes nothing and reports what would be done.
            on_progress: told how far it is.

        Raises:
            DocumentError: The connector gives an id twice, or one that came from another connector.
            InputError: Another sync of the same connector goes on for too long.
            IntegrityError: The index's parts disagree afterwards; it is left as it was.
        """
        if dry_run:
            return foretell(self._database, self.embedder.name, connector, self.max_chars)
        return synchronize(self._database, self.embedder, connector, self.max_chars, on_progress)

    def connectors(self) -> dict[str, int]:
        """The names of the connectors whose documents the index holds, and how many of each."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT connector, count(*) FROM documents GROUP BY 1 ORDER BY 1")
            return dict(rows.fetchall())

    def forget(self, connector_name: str) -> int:
        """Remove all documents of a connector, with their passages and vectors; returns how many."""
        return forget(self._database, connector_name)

    def copy(self, path: Path) -> None:
        """Write a compact copy to `path`, whose bytes stay the same however often it is searched."""
        self._database.copy(path)

    def search(self, query: str, k: int = 5) -> list[Passage]:
        """At most `k` passages for any text, best first: both rankings, fused.

        A passage's `score` is its cosine similarity to the query, in [-1, 1]. Equal ranks are ordered by
        the passages' ids. A blank query finds nothing.

        Raises:
            InputError: The index was filled with another embedder.
        """
        return self.search_batch([query], k)[0]

    def search_batch(self, queries: Sequence[str], k: int = 5) -> list[list[Passage]]:
        """`search` for many queries; each finds what it finds alone."""
        asked = [query for query in queries if k > 0 and query.strip()]
        vectors = iter(self.embedder.embed(asked) if asked else ())
        return [self._search(q, next(vectors), k) if k > 0 and q.strip() else [] for q in queries]

    def keyword_search(self, query: str, k: int = 5) -> list[Passage]:
        """At most `k` passages that share words with the query; `score` is BM25, higher is better."""
        with self._database.reading() as connection:
            passages = fetch_passages(connection, _keyword_scores(connection, query, k))
        return sorted(passages, key=lambda p: (-p.score, p.id))[: max(0, k)]

    def vector_search(self, query: str, k: int = 5) -> list[Passage]:
        """At most `k` passages closest to the query in meaning; `score` is the cosine similarity."""
        if k <= 0 or not query.strip():
            return []
        vector = self.embedder.embed([query])[0]
        with self._database.reading() as connection:
            snapshot = self._load(connection)
            similarity = _similarity(snapshot.vectors, vector)
            return _passages_at(connection, snapshot, _top(similarity, k), similarity)

    def fingerprint(self) -> str:
        """A hash of all passages and of the embedder: equal fingerprints find equal passages."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM passages ORDER BY id").fetchall()
        # Without the row numbers, which tell only in what order documents came.
        return content_hash([self.embedder.name, [row[1:] for row in rows]], 32)

    def __len__(self) -> int:
        """The number of passages."""
        with self._database.reading() as connection:
            return single_number(connection, "SELECT count(*) FROM passages")

    def document_names(self) -> set[str]:
        """The ids of all documents."""
        with self._database.reading() as connection:
            return {name for (name,) in connection.execute("SELECT id FROM documents")}

    def num_without_vector(self) -> int:
        """Passages that are found by their words only, until a sync that was interrupted is done again."""
        with self._database.reading() as connection:
            return sum(1 for _ in connection.execute(UNEMBEDDED, (self.embedder.name,)))

    def close(self) -> None:
        """Close the file; searching afterwards is an error."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, query: str, vector: Vectors, k: int) -> list[Passage]:
        candidates = max(CANDIDATES, k)
        with self._database.reading() as connection:
            snapshot = self._load(connection)
            similarity = _similarity(snapshot.vectors, vector)
            scores = _keyword_scores(connection, query, candidates)
            cosines = self._made_when_asked(connection, snapshot, scores, vector)
            top = _top(similarity, candidates)
            cosines |= {snapshot.numbers[row]: float(similarity[row]) for row in top}
            by_words = [number for number in scores if number in snapshot.rows or number in cosines]
            for number in by_words:
                if number in snapshot.rows:
                    cosines[number] = float(similarity[snapshot.rows[number]])
            order = _order(connection, snapshot, cosines)
            by_words.sort(key=lambda number: (-scores[number], order[number]))
            by_meaning = sorted(
                {*(snapshot.numbers[row] for row in top), *(n for n in cosines if n not in snapshot.rows)},
                key=lambda number: (-cosines[number], order[number]),
            )
            fused = reciprocal_rank_fusion([by_words[:candidates], by_meaning[:candidates]])
            return fetch_passages(connection, {number: cosines[number] for number, _ in fused[:k]})

    def _made_when_asked(
        self, connection: sqlite3.Connection, snapshot: _Snapshot, scores: dict[int, float], vector: Vectors
    ) -> dict[int, float]:
        """Similarities of the passages that share most words with the question and lack a vector, by number."""
        lacking = [number for number in scores if number not in snapshot.rows][:MADE_WHEN_ASKED]
        new = [number for number in lacking if number not in snapshot.made]
        if new:
            passages = fetch_passages(connection, dict.fromkeys(new, 0.0))
            made = self.embedder.embed([embedded_text(passage) for passage in passages])
            snapshot.made.update(zip(new, made, strict=True))
        if not lacking:
            return {}
        found = _similarity(np.stack([snapshot.made[number] for number in lacking]), vector)
        return dict(zip(lacking, map(float, found), strict=True))

    def _load(self, connection: sqlite3.Connection) -> _Snapshot:
        """The vectors as `connection` sees them, read from the file only after a change."""
        generation = single_number(connection, "SELECT value FROM counters WHERE name = 'generation'")
        with self._snapshot_lock:
            if self._snapshot is None or self._snapshot.generation != generation:
                self._snapshot = self._read_vectors(connection, generation)
            return self._snapshot

    def _read_vectors(self, connection: sqlite3.Connection, generation: int) -> _Snapshot:
        rows = connection.execute(
            "SELECT p.number, e.vector FROM passages p JOIN embeddings e "
            "ON e.embedder = ? AND e.text_key = p.text_key ORDER BY p.id",
            (self.embedder.name,),
        ).fetchall()
        if not rows and single_number(connection, "SELECT EXISTS (SELECT 1 FROM embeddings)"):
            raise InputError(
                f"The knowledge index {self.path} holds passages without vectors of {self.embedder.name!r}: "
                "it was filled with another embedder. Sync the documents again."
            )
        numbers = [number for number, _ in rows]
        stored = np.frombuffer(b"".join(vector for _, vector in rows), dtype=np.float16)
        vectors = stored.astype(np.float32).reshape(len(rows), self.embedder.dimensions)
        rows_by_number = {number: row for row, number in enumerate(numbers)}
        return _Snapshot(generation, numbers, rows_by_number, vectors, {})


def _keyword_scores(connection: sqlite3.Connection, query: str, limit: int) -> dict[int, float]:
    """Row numbers of passages and their BM25; somewhat more than `limit`, to order ties by id."""
    expression = match_any(query)
    if not expression or limit <= 0:
        return {}
    # A word counts twice in the title and half as much again in a heading.
    rows = connection.execute(
        "SELECT rowid, -bm25(passages_fts, 2.0, 1.5, 1.0) AS score FROM passages_fts "
        "WHERE passages_fts MATCH ? ORDER BY score DESC, rowid LIMIT ?",
        (expression, limit + CANDIDATES),
    )
    return {number: round(score, 12) for number, score in rows}


def _order(
    connection: sqlite3.Connection, snapshot: _Snapshot, numbers: Iterable[int]
) -> dict[int, tuple[int, str]]:
    """What orders equal scores: the passages' ids, which is the order of the rows."""
    found: dict[int, tuple[int, str]] = {}
    for number in numbers:
        if number in snapshot.rows:
            found[number] = snapshot.rows[number], ""
        else:
            query = "SELECT id FROM passages WHERE number = ?"
            found[number] = len(snapshot.rows), connection.execute(query, (number,)).fetchone()[0]
    return found


def _similarity(vectors: Vectors, vector: Vectors) -> Vectors:
    """Cosine of the question and every passage [P]; rounded, so that equal texts tie whatever their row."""
    return np.clip(np.round(vectors @ vector, 5), -1, 1)


def _top(similarity: Vectors, limit: int) -> list[int]:
    """The rows of the highest values, best first; equal ones by row, which is the order of the ids."""
    rows = np.arange(len(similarity))
    if limit < len(similarity):
        least = np.partition(similarity, -limit)[-limit]
        rows = np.flatnonzero(similarity >= least)
    return rows[np.argsort(-similarity[rows], kind="stable")][:limit].tolist()


def _passages_at(
    connection: sqlite3.Connection, snapshot: _Snapshot, rows: Sequence[int], similarity: Vectors
) -> list[Passage]:
    return fetch_passages(connection, {snapshot.numbers[row]: float(similarity[row]) for row in rows})
