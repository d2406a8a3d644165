"""The knowledge index: documents copied in, cut into passages, found by words and by meaning.

One SQLite file is the whole truth. A question is answered by two rankings, BM25 over the words and the cosine
similarity of embeddings, fused as a `Ranking` says. A small index does that with SQLite's FTS5 and vectors in memory; a
large one has a keyword index and a vector store beside the file, which only nominate (see `sidecars`). Who may read a
passage is decided by the file, before anything is ranked. While vectors are still being made, the passages that share
most words with a question get theirs when it is asked.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

import numpy as np

from tailorbird.errors import InputError, IntegrityError, NotFound, Unsupported
from tailorbird.records import Passage, Scope
from tailorbird.sources.database import Database
from tailorbird.sources.embedder import Embedder
from tailorbird.sources.fingerprint import fingerprint_of
from tailorbird.sources.keywords import match_any
from tailorbird.sources.passage_rows import (
    UNEMBEDDED,
    embedded_text,
    fetch_passages,
    passage_of,
    single_number,
)
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.reranking import Reranker, reranked
from tailorbird.sources.scopes import (
    NO_RULES,
    Rules,
    allowed_documents,
    clauses,
)
from tailorbird.sources.sidecars import VECTOR_CHANGES, WORD_CHANGES, Choice, Mark, Sidecar, last, log
from tailorbird.sources.snapshot import Snapshot, in_memory, read_tail
from tailorbird.sources.source import Connector
from tailorbird.sources.stores import FTS5, SearchSettings, open_store
from tailorbird.sources.sync import (
    Beside,
    SyncProgress,
    SyncReport,
    Tell,
    foretell,
    forget,
    govern,
    synchronize,
)
from tailorbird.sources.vector_rows import (
    Found,
    allowed_flags,
    compared,
    similarities,
    vector_changes,
    word_changes,
)
from tailorbird.sources.vector_store import Allowed, Vectors, VectorStore
from tailorbird.sources.word_index import WordIndex
from tailorbird.sources.word_rows import score_words

__all__ = ["KnowledgeIndex", "SyncProgress", "SyncReport"]

CANDIDATES = 50
"""How many passages each of the two rankings brings to the fusion, at least."""
MADE_WHEN_ASKED = 10
"""Vectors that are made for one question, of passages that lack them."""
SCOPES_KEPT = 32
"""So many readers' flags, a byte a passage each, are kept until the index changes."""
WORDS_CUT_AS = "words 1"
"""Changed whenever the keyword index would hold other words."""


class KnowledgeIndex:
    """An index of passages in one SQLite file. It is a `Source`; threads may share it.

    Args:
        path: The file; it and its folders are made if absent.
        embedder: Makes the vectors of passages and questions.
        max_chars: Length of a passage in characters, at most.
        read_only: Open without ever touching the file, as part of a saved model is opened.
        settings: Where it is searched.
        ranking: How both rankings become one.
        reranker: Reads the first `ranking.rerank` passages once more.

    Raises:
        NotFound: It is opened read-only and is not there.
        IntegrityError: The file is not an index of this version.
    """

    scoped: ClassVar[Literal[True]] = True

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        *,
        max_chars: int = 800,
        read_only: bool = False,
        settings: SearchSettings | None = None,
        ranking: Ranking | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.path = path
        self.ranking = ranking or Ranking()
        self.reranker = reranker
        self.embedder = embedder
        self.max_chars = max_chars
        self.settings = settings or SearchSettings()
        self._database = Database(path, read_only=read_only)
        self._snapshot: Snapshot | None = None
        self._words: tuple[Mark, WordIndex | None] | None = None
        self._scopes: dict[Scope, Allowed] = {}
        self._scopes_of = -1
        self._snapshot_lock = threading.Lock()
        open_vectors = partial(open_store, dimensions=embedder.dimensions)
        read_vectors = partial(vector_changes, embedder=embedder.name)
        self._stored: Sidecar[VectorStore] = Sidecar(
            path.with_suffix(".vectors"), embedder.name, VECTOR_CHANGES, open_vectors, read_vectors
        )
        self._worded: Sidecar[WordIndex] = Sidecar(
            path.with_suffix(".words"),
            WORDS_CUT_AS,
            WORD_CHANGES,
            lambda _, folder, __: WordIndex(folder),
            word_changes,
        )

    def sync(
        self,
        connector: Connector,
        *,
        rules: Rules | Callable[[], Rules] = NO_RULES,
        dry_run: bool = False,
        on_progress: Tell | None = None,
    ) -> SyncReport:
        """Make the index hold what the connector holds: new, changed and gone documents.

        All changes become visible at once, by their words; vectors follow, and until a passage has its own,
        the best of those that share words with a question get theirs when it is asked. Only texts that the
        index has never seen are embedded. After a crash the index holds the old state or the new one, and
        the next sync makes the vectors that are lacking.

        Args:
            connector: gives the documents.
            rules: of who may read them and what they are chosen by; those that a document brings are narrowed by them.
                A function is asked for them when they are put in force.
            dry_run: changes nothing and reports what would be done.
            on_progress: told how far it is.

        Raises:
            DocumentError: The connector gives an id twice, or one that came from another connector.
            InputError: Another sync of the same connector goes on for too long.
            IntegrityError: The index's parts disagree afterwards; it is left as it was.
        """
        asked = rules if callable(rules) else lambda: rules
        if dry_run:
            return foretell(self._database, self.embedder.name, connector, self.max_chars, asked())
        beside = Beside(self._catch_up_words, self.catch_up)
        return synchronize(
            self._database, self.embedder, connector, self.max_chars, asked, on_progress, beside
        )

    def catch_up(self) -> list[str]:
        """Bring what stands beside the file up to date with it, as every sync does; says what was done.

        Raises:
            Unsupported: The package of what was chosen isn't installed.
            NotFound: It is a plug-in's and isn't installed, or an environment variable isn't set.
            EndpointError: A store's server can't be reached; the file holds everything all the same.
        """
        vectors = self._stored.catch_up(self._database, self._vectors_wanted)
        return [*self._catch_up_words(), *([vectors] if vectors else [])]

    def _catch_up_words(self) -> list[str]:
        words = self._worded.catch_up(self._database, self._words_wanted)
        return [words] if words else []

    def govern(self, connector_name: str, rules: Rules) -> int:
        """Put rules in force for what the index holds of a connector, without reading it; returns for how many."""
        return govern(self._database, connector_name, rules)

    def connectors(self) -> dict[str, int]:
        """The names of the connectors whose documents the index holds, and how many of each."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT connector, count(*) FROM documents GROUP BY 1 ORDER BY 1")
            return dict(rows.fetchall())

    def forget(self, connector_name: str) -> int:
        """Remove all documents of a connector, with their passages and vectors; returns how many."""
        count = forget(self._database, connector_name)
        self.catch_up()
        return count

    def copy(self, path: Path) -> None:
        """Write a compact copy to `path`, whose bytes stay the same however often it is searched.

        What stands beside a large index is copied, too, or made of the copy where it is on a server, which goes on.
        """
        self._database.copy(path)
        with KnowledgeIndex(path, self.embedder, read_only=True, settings=self.settings.here) as copied:
            self._stored.copy(copied._stored.folder)
            self._worded.copy(copied._worded.folder)
            try:
                copied.catch_up()
            except (NotFound, Unsupported) as error:  # the copy is searched as this index is, from the file
                log.warning("%s", error)

    def search(self, query: str, k: int = 5, *, only: Scope | None = None) -> list[Passage]:
        """At most `k` passages for any text, best first: both rankings, fused.

        A passage's `score` is its cosine similarity to the query, in [-1, 1]. Equal ranks are ordered by
        the passages' ids. A blank query finds nothing.

        Args:
            query: A question, or words.
            k: How many, at most.
            only: Who asks and of what; both rankings see nothing else. None is the owner, who sees everything.

        Raises:
            InputError: The index was filled with another embedder.
            EndpointError: The vector store's server can't be reached.
        """
        return self.search_batch([query], k, only=only)[0]

    def search_batch(
        self, queries: Sequence[str], k: int = 5, *, only: Scope | None = None
    ) -> list[list[Passage]]:
        """`search` for many queries; each finds what it finds alone."""
        asked = [query for query in queries if k > 0 and query.strip()]
        vectors = iter(self.embedder.embed(asked) if asked else ())
        return [self._search(q, next(vectors), k, only) if k > 0 and q.strip() else [] for q in queries]

    def keyword_search(self, query: str, k: int = 5, *, only: Scope | None = None) -> list[Passage]:
        """At most `k` passages that share words with the query; `score` is BM25, higher is better."""
        with self._database.reading() as connection:
            scores = self._keyword_scores(connection, query, k, self._allowed(connection, only))
            # Only what may be among the first: the others' texts need not be read.
            least = sorted(scores.values(), reverse=True)[:k][-1:]
            passages = fetch_passages(connection, {n: s for n, s in scores.items() if [s] >= least})
        return sorted(passages, key=lambda p: (-p.score, p.id))[: max(0, k)]

    def vector_search(self, query: str, k: int = 5, *, only: Scope | None = None) -> list[Passage]:
        """At most `k` passages closest to the query in meaning; `score` is the cosine similarity."""
        if k <= 0 or not query.strip():
            return []
        vector = self.embedder.embed([query])[0]
        with self._database.reading() as connection:
            snapshot, allowed = self._load(connection), self._allowed(connection, only)
            found = snapshot.nominate(connection, self.embedder.name, vector, k, allowed)
            cosines = {number: one.cosine for number, one in found.items() if one.cosine is not None}
            best = sorted(cosines, key=lambda number: (-cosines[number], found[number].id))[:k]
            return fetch_passages(connection, {number: cosines[number] for number in best})

    def fingerprint(self) -> str:
        """A hash of all passages, of who may read them, and of the embedder: equal fingerprints find equal passages."""
        with self._database.reading() as connection:
            return fingerprint_of(connection, self.embedder.name)

    def __len__(self) -> int:
        """The number of passages."""
        with self._database.reading() as connection:
            return single_number(connection, "SELECT count(*) FROM passages")

    def document_names(self) -> set[str]:
        """The ids of all documents."""
        with self._database.reading() as connection:
            return {name for (name,) in connection.execute("SELECT id FROM documents")}

    def passages_of(self, document: str) -> list[Passage]:
        """The passages of one document, in their order; none of a document that is not there."""
        with self._database.reading() as connection:
            query = "SELECT * FROM passages WHERE document = ? ORDER BY start, id"
            return [passage_of(row) for row in connection.execute(query, (document,))]

    def num_without_vector(self) -> int:
        """Passages that are found by their words only, until a sync that was interrupted is done again."""
        with self._database.reading() as connection:
            return sum(1 for _ in connection.execute(UNEMBEDDED, (self.embedder.name,)))

    def close(self) -> None:
        """Close the file, and the store beside it; searching afterwards is an error."""
        self._database.close()
        with self._snapshot_lock:
            if self._snapshot is not None and isinstance(self._snapshot.store, VectorStore):
                self._snapshot.store.close()
            self._snapshot = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, query: str, vector: Vectors, k: int, only: Scope | None) -> list[Passage]:
        candidates = max(CANDIDATES, k)
        with self._database.reading() as connection:
            snapshot, allowed = self._load(connection), self._allowed(connection, only)
            scores = self._keyword_scores(connection, query, candidates, allowed)
            found = snapshot.nominate(connection, self.embedder.name, vector, candidates, allowed)
            others = [number for number in scores if number not in found]
            worded = compared(connection, self.embedder.name, others, vector)
            lacking = [n for n in scores if n in worded and worded[n].cosine is None][:MADE_WHEN_ASKED]
            made = self._made_when_asked(connection, snapshot, lacking, vector)
            found |= {number: Found(worded[number].id, cosine) for number, cosine in made.items()}
            nominated = set(found)
            found |= {number: one for number, one in worded.items() if number not in nominated}
            cosines = {number: one.cosine for number, one in found.items() if one.cosine is not None}
            by_words = sorted(
                (number for number in scores if number in cosines),
                key=lambda number: (-scores[number], found[number].id),
            )
            by_meaning = sorted(
                (number for number in nominated if number in cosines),
                key=lambda number: (-cosines[number], found[number].id),
            )
            fused = self.ranking.fuse(by_words[:candidates], by_meaning[:candidates], scores, cosines)
            first = fused[: max(k, self.ranking.rerank)]
            passages = fetch_passages(connection, {number: cosines[number] for number, _ in first})
        return self._read_again(query, passages, first)[:k]

    def _read_again(
        self, query: str, passages: list[Passage], found: Sequence[tuple[int, float]]
    ) -> list[Passage]:
        """The passages, the first of them in the reranker's order."""
        first = self.ranking.rerank
        if not first or self.reranker is None:
            return passages
        read = reranked(self.reranker, query, passages[:first], [score for _, score in found[:first]])
        return [*read, *passages[first:]]

    def _made_when_asked(
        self, connection: sqlite3.Connection, snapshot: Snapshot, lacking: Sequence[int], vector: Vectors
    ) -> dict[int, float]:
        """Similarities of passages that share words with the question and lack a vector, by number."""
        new = [number for number in lacking if number not in snapshot.made]
        if new:
            passages = fetch_passages(connection, dict.fromkeys(new, 0.0))
            made = self.embedder.embed([embedded_text(passage) for passage in passages])
            snapshot.made.update(zip(new, made, strict=True))
        return {number: similarities(snapshot.made[number][None], vector)[0] for number in lacking}

    def _keyword_scores(
        self, connection: sqlite3.Connection, query: str, limit: int, allowed: Allowed | None
    ) -> dict[int, float]:
        """Row numbers of passages and their BM25; somewhat more than `limit`, to order ties by id."""
        if limit <= 0 or not match_any(query) or (allowed is not None and not allowed.count):
            return {}
        if (words := self._word_index(connection)) is not None:
            found = words.search(query, limit + CANDIDATES, allowed)
            return {n: s for n, s in found.items() if allowed is None or allowed.holds(np.array([n]))[0]}
        return score_words(connection, query, limit + CANDIDATES, allowed)

    def _allowed(self, connection: sqlite3.Connection, only: Scope | None) -> Allowed | None:
        """What a scope allows in the state that `connection` sees; None: everything."""
        if only is None or only == Scope():
            return None
        state = last(connection, WORD_CHANGES)
        with self._snapshot_lock:
            if self._scopes_of != state:
                self._scopes, self._scopes_of = {}, state
            kept = self._scopes.get(only)
        if kept is not None:
            return kept
        flags = allowed_flags(connection, *allowed_documents(only))
        made = Allowed(flags, int(flags.sum()), clauses(only), only.documents)
        with self._snapshot_lock:
            if self._scopes_of == state:
                while len(self._scopes) >= SCOPES_KEPT:
                    self._scopes.pop(next(iter(self._scopes)))
                self._scopes[only] = made
        return made

    def _load(self, connection: sqlite3.Connection) -> Snapshot:
        """The vectors as `connection` sees them; what is in memory is read from the file only after a change."""
        generation = single_number(connection, "SELECT value FROM counters WHERE name = 'generation'")
        with self._snapshot_lock:
            before = self._snapshot
            if before is None or before.generation != generation or before.mark != self._stored.mark():
                before = self._snapshot = self._read_vectors(connection, generation, before)
            return before

    def _read_vectors(
        self, connection: sqlite3.Connection, generation: int, before: Snapshot | None
    ) -> Snapshot:
        name, dimensions = self.embedder.name, self.embedder.dimensions
        query = (
            "SELECT EXISTS (SELECT 1 FROM embeddings), EXISTS (SELECT 1 FROM embeddings WHERE embedder = ?)"
        )
        if connection.execute(query, (name,)).fetchone() == (1, 0):
            raise InputError(
                f"The knowledge index {self.path} holds passages without vectors of {name!r}: "
                "it was filled with another embedder. Sync the documents again."
            )
        mark = self._stored.mark()
        if (
            mark is None
            or not self._stored.fits(connection, mark)
            or not self.settings.searches(mark.name, mark.place)
        ):
            return replace(in_memory(connection, name, dimensions, generation, before), mark=mark)
        if before is not None and before.mark == mark:
            store = before.store
        else:
            try:
                store = self._stored.opened(mark)
                store.count()
            except (IntegrityError, NotFound, Unsupported) as error:
                log.warning("%s Until then vectors are compared in memory.", error)
                return replace(in_memory(connection, name, dimensions, generation, before), mark=mark)
        tail = read_tail(connection, name, dimensions, mark.sequence)
        return Snapshot(generation, mark, store, mark.sequence, tail)

    def _word_index(self, connection: sqlite3.Connection) -> WordIndex | None:
        """The keyword index, if there is one that goes up to the last change."""
        mark = None if self.settings.words == FTS5 else self._worded.mark()
        if (
            mark is None
            or not self._worded.fits(connection, mark)
            or mark.sequence != last(connection, WORD_CHANGES)
        ):
            return None
        with self._snapshot_lock:
            if self._words is None or self._words[0] != mark:
                words: WordIndex | None = None
                try:
                    words = self._worded.opened(mark)
                    words.count()
                except (IntegrityError, Unsupported) as error:
                    log.warning("%s Until then words are looked up in the file.", error)
                    words = None
                self._words = mark, words
            return self._words[1]

    def _vectors_wanted(self, connection: sqlite3.Connection) -> Choice | None:
        return self.settings.vectors_in(single_number(connection, "SELECT count(*) FROM passages"))

    def _words_wanted(self, connection: sqlite3.Connection) -> Choice | None:
        return self.settings.words_in(single_number(connection, "SELECT count(*) FROM passages"))
