"""What a vector store is: it nominates the passages that are closest in meaning, and never is the truth.

It holds a copy of the vectors in the index's SQLite file, under the numbers of the passages there, and can be made
again from it at any time. What it nominates is scored anew with the file's vectors and checked against the file's
access rules, so that all stores give the same passages the same scores, and none can show what may not be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tailorbird.sources.scopes import Clauses

Numbers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

FILL_BATCH = 10_000
"""Vectors that are read from the file at a time."""


@dataclass(frozen=True)
class Batch:
    """Vectors, float32 [N, D], of the passages with these numbers [N], and each one's terms (see `scopes`)."""

    numbers: Numbers
    vectors: Vectors
    terms: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Allowed:
    """The passages that may be found, as flags [max number + 1] by their numbers, and how many they are.

    A store beside the index uses these; one on another machine may ask for `clauses` instead, where `pattern`, which
    a document's id must match too, is empty. What it nominates is checked against the flags anyway.
    """

    flags: Flags
    count: int
    clauses: Clauses = ()
    pattern: str = ""

    def numbers(self) -> Numbers:
        """Their numbers, in order."""
        return np.flatnonzero(self.flags)

    def holds(self, numbers: Numbers) -> Flags:
        """Which of these numbers may be found."""
        within = numbers < len(self.flags)
        found = np.zeros(len(numbers), dtype=np.bool_)
        found[within] = self.flags[numbers[within]]
        return found


@runtime_checkable
class VectorStore(Protocol):
    """A copy of an index's vectors that is searched faster than they are read. Threads may share it."""

    @property
    def grows(self) -> bool:
        """Whether it takes changes one by one; if not, it is filled anew once much has changed."""
        ...

    def count(self) -> int:
        """How many vectors it holds.

        Raises:
            IntegrityError: It is not there, or damaged.
            EndpointError: Its server can't be reached.
        """
        ...

    def fill(self, batches: Iterator[Batch], count: int) -> None:
        """Hold these vectors, about `count`, and nothing else; searches under way go on with what was there."""
        ...

    def change(self, gone: Numbers, batches: Iterator[Batch]) -> None:
        """Forget some vectors and hold others; a number that it holds already has its vector and terms replaced."""
        ...

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        """The numbers of at most `k` passages that are close to a unit vector [D], best first.

        Of the allowed ones, if that is given: never fewer than `k` because others were closer.
        """
        ...

    def remove(self) -> None:
        """Delete all that it holds."""
        ...

    def close(self) -> None:
        """Give back what it has open."""
        ...


def nearest_of(asked: Vectors, chunks: Iterable[tuple[Numbers, Vectors]], k: int) -> Numbers:
    """The numbers of the k nearest of every question, [Q, k], by comparing all, a chunk at a time.

    Args:
        asked: unit vectors [Q, D].
        chunks: of what they are compared with: numbers [N] and unit vectors [N, D].
        k: how many; all where there are fewer.
    """
    best = np.empty((len(asked), 0), np.float32)
    found = np.empty((len(asked), 0), np.int64)
    for numbers, vectors in chunks:
        similarity = asked @ vectors.T
        best = np.concatenate([best, similarity], 1)
        found = np.concatenate([found, np.broadcast_to(numbers, similarity.shape)], 1)
        if best.shape[1] > k:
            keep = np.argpartition(-best, k, axis=1)[:, :k]
            best, found = np.take_along_axis(best, keep, 1), np.take_along_axis(found, keep, 1)
    return found


def spread(count: int, most: int) -> Numbers:
    """At most so many of the rows 0 to count - 1, spread over all."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def questions_between(vectors: Vectors) -> Vectors:
    """Vectors that lie between passages, as real questions do: sums of two that have nothing to do with one another.

    How much of a store must be read for them is how much must be read for real ones: on 60,000 passages of
    documentation, articles and abstracts they need as many of faiss's cells, to .005 of recall; passages with random
    noise added need a third of that. Of passages that are mixtures themselves they promise too much (.997 where real
    questions find .975), so a store reads more than they ask for.

    Args:
        vectors: of passages spread over all, unit vectors, float32 [2 N, D].

    Returns:
        Unit vectors, float32 [N, D].
    """
    half = max(1, len(vectors) // 2)
    made = vectors[:half] + vectors[-half:]
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-6)
