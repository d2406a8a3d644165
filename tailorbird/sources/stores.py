"""Which vector store and which keyword index an index has beside it: chosen by its size, or said."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from tailorbird.errors import InputError, NotFound
from tailorbird.sources.sidecars import Choice
from tailorbird.sources.vector_store import VectorStore

AUTO, NUMPY, FTS5, TANTIVY = "auto", "numpy", "fts5", "tantivy"
STORES = (NUMPY, "faiss", "lancedb", "qdrant", "pgvector")
ELSEWHERE = ("qdrant", "pgvector")
"""Those that need a place: a server."""
HERE = (AUTO, NUMPY, "faiss")
"""Those that are beside the file, and nowhere else."""
WORDS = (FTS5, TANTIVY)
GROUP = "tailorbird.vector_stores"
"""Entry points of other packages' stores, called as (folder, dimensions, place)."""

SCANNED_UP_TO = 50_000
"""So many vectors are compared one by one in memory, in 4 ms."""
FAISS_UP_TO = 3_000_000
"""Where LanceDB is installed, it takes more."""
WORDS_FROM = 50_000
"""So many passages FTS5 scores in 10 to 30 ms."""


@dataclass(frozen=True)
class SearchSettings:
    """Where an index is searched.

    Args:
        store: `auto`, one of `STORES`, or a plug-in's name.
        place: of a store on a server, or in object storage: its URL.
        key_env: the environment variable with the server's key, if it needs one.
        words: `auto`, `fts5` or `tantivy`.

    Raises:
        InputError: One of them can't be used.
    """

    store: str = AUTO
    place: str = ""
    key_env: str = ""
    words: str = AUTO

    def __post_init__(self) -> None:
        if self.store in ELSEWHERE and not self.place:
            raise InputError(f"vector store {self.store!r}: say where its server is, with --place URL.")
        if self.words not in (AUTO, *WORDS):
            raise InputError(f"keyword index {self.words!r} is unknown. Known: auto, {', '.join(WORDS)}.")

    def check(self) -> None:
        """That the store is one that is known here; a record may name one whose package was taken away since.

        Raises:
            InputError: It isn't, or a place is given that it doesn't have.
        """
        if self.place and self.store in HERE:
            raise InputError(
                f"vector store {self.store!r}: it has no place of its own. Leave --place out, or choose lancedb, "
                "qdrant or pgvector."
            )
        known = (AUTO, *STORES, *(point.name for point in entry_points(group=GROUP)))
        if self.store not in known:
            raise InputError(
                f"vector store {self.store!r} is unknown. Known: {', '.join(known)}. Check the spelling."
            )

    @property
    def here(self) -> SearchSettings:
        """The same without a server: where one was named, chosen by size."""
        is_elsewhere = self.place or self.store in ELSEWHERE
        return SearchSettings(AUTO if is_elsewhere else self.store, words=self.words)

    def vectors_in(self, count: int) -> Choice | None:
        """The store for so many passages; None: the file and memory alone."""
        store = self.store
        if store == AUTO:
            fits = [name for name in ("faiss", "lancedb") if installed(name)]
            if count > FAISS_UP_TO:
                fits.reverse()
            store = fits[0] if fits and count > SCANNED_UP_TO else NUMPY
        return None if store == NUMPY else Choice(store, self.place, self.key_env)

    def searches(self, name: str, place: str) -> bool:
        """Whether a store that is there may be asked."""
        return self.store == AUTO or (self.store, self.place) == (name, place)

    def words_in(self, count: int) -> Choice | None:
        """The keyword index for so many passages; None: the file's own."""
        wanted = count > WORDS_FROM and installed(TANTIVY) if self.words == AUTO else self.words == TANTIVY
        return Choice(TANTIVY) if wanted else None


def installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


def open_store(choice: Choice, folder: Path, identity: int, dimensions: int) -> VectorStore:
    """The store of a choice.

    Args:
        choice: its name, place and key.
        folder: for its files, if it is a local one.
        identity: of the index, by which a server's collections are told apart.
        dimensions: of the vectors.

    Raises:
        Unsupported: Its package isn't installed.
        NotFound: It is a plug-in's and isn't installed, or the environment variable isn't set.
    """
    if choice.name == "faiss":
        from tailorbird.sources.faiss_store import FaissStore

        return FaissStore(folder, dimensions)
    if choice.name == "lancedb":
        from tailorbird.sources.lancedb_store import TABLE, LanceDBStore

        return LanceDBStore(
            folder, dimensions, choice.place, f"tailorbird_{identity}" if choice.place else TABLE
        )
    if choice.name == "qdrant":
        from tailorbird.sources.qdrant_store import QdrantStore

        return QdrantStore(choice.place, f"tailorbird_{identity}", dimensions, _key(choice.key_env))
    if choice.name == "pgvector":
        from tailorbird.sources.pgvector_store import PgvectorStore

        return PgvectorStore(choice.place, f"tailorbird_{identity}", dimensions)
    for point in entry_points(group=GROUP):
        if point.name == choice.name:
            return point.load()(folder, dimensions, choice.place)
    raise NotFound(
        f"vector store {choice.name!r} is not installed. Install the package that brings it, or choose another: "
        "tailor knowledge store NAME auto"
    )


def _key(variable: str) -> str:
    if variable and variable not in os.environ:
        raise NotFound(
            f"the environment variable {variable} is not set; it holds the vector store's key. Set it."
        )
    return os.environ.get(variable, "") if variable else ""
