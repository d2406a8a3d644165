"""Vectors in memory, all of them compared with the question's: exact, and fast enough for tens of thousands."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tailorbird.sources.vector_store import Allowed, Batch, Numbers, Vectors

GATHER_SHARE = 0.4
"""Where fewer than this share of the vectors are allowed, copying them out is faster than comparing all."""


class ExactScan:
    """Vectors, float32 [P, D], and their passages' numbers [P]. Equally close ones stand in the order of the rows."""

    def __init__(self, numbers: Numbers, vectors: Vectors) -> None:
        self.numbers = numbers
        self.vectors = vectors

    @classmethod
    def of(cls, batches: Iterable[Batch], count: int, dimensions: int) -> ExactScan:
        """What `count` vectors in batches make; memory for them is taken once."""
        numbers = np.empty(count, dtype=np.int64)
        vectors = np.empty((count, dimensions), dtype=np.float32)
        held = 0
        for batch in batches:
            numbers[held : held + len(batch.numbers)] = batch.numbers
            vectors[held : held + len(batch.numbers)] = batch.vectors
            held += len(batch.numbers)
        return cls(numbers[:held], vectors[:held])

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        """The numbers of the `k` closest of those that are allowed, best first."""
        if k <= 0 or not len(self.numbers):
            return self.numbers[:0]
        if allowed is None:
            return self.numbers[_top(self.vectors @ vector, k)]
        rows = np.flatnonzero(allowed.holds(self.numbers))
        if len(rows) < GATHER_SHARE * len(self.numbers):
            similarity = self.vectors[rows] @ vector
        else:
            similarity = (self.vectors @ vector)[rows]
        return self.numbers[rows[_top(similarity, k)]]


def rounded(similarity: Vectors) -> Vectors:
    """Cosines in [-1, 1], rounded so that equal texts tie whatever their row."""
    return np.clip(np.round(similarity, 5), -1, 1)


def _top(similarity: Vectors, limit: int) -> Numbers:
    """The rows of the highest values, best first; equal ones by row."""
    rows = np.arange(len(similarity))
    if limit < len(similarity):
        # What rounds to the least that is taken is a tie, and the rows decide.
        least = np.partition(similarity, -limit)[-limit] - 1e-5
        rows = np.flatnonzero(similarity >= least)
    return rows[np.argsort(-rounded(similarity[rows]), kind="stable")][:limit]
