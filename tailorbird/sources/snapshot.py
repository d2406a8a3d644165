"""The vectors of one state of an index, ready to be searched: a store, and what changed after it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Protocol

from tailorbird.sources.exact_scan import ExactScan
from tailorbird.sources.passage_rows import single_number
from tailorbird.sources.sidecars import VECTOR_CHANGES, last, num_after
from tailorbird.sources.vector_rows import Found, compared, vectors_after
from tailorbird.sources.vector_store import Allowed, Numbers, Vectors

RELOAD_SHARE, RELOAD_LEAST = 0.1, 2_000
"""Vectors in memory are read anew once more than this share, and this many, have changed."""
NOMINATED, SPARE = 50, 20
"""A store that keeps vectors in few bits is asked for at least so many, and for some more than are wanted."""
DEEPER = 4
"""How many times as many are asked for where what a store nominates is gone or may no longer be seen."""


class Searched(Protocol):
    """What nominates: a vector store, or vectors in memory."""

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers: ...


@dataclass(frozen=True)
class Snapshot:
    """What nominates passages in one state of the index.

    `store` goes up to the change `sequence`; `tail` are the vectors that came later. `mark` tells which store it is,
    and `made` holds vectors that were made for a question, by the passage's number.
    """

    generation: int
    mark: object
    store: Searched
    sequence: int
    tail: ExactScan
    made: dict[int, Vectors] = field(default_factory=dict[int, Vectors])

    def nominate(
        self,
        connection: sqlite3.Connection,
        embedder: str,
        vector: Vectors,
        k: int,
        allowed: Allowed | None,
    ) -> dict[int, Found]:
        """At least the `k` passages closest to a vector, of the allowed ones, in no order: exactly compared."""
        wanted = max(NOMINATED, k + SPARE)
        later = self.tail.search(vector, k, allowed)
        while True:
            nominated = self.store.search(vector, wanted, allowed)
            seen = nominated if allowed is None else nominated[allowed.holds(nominated)]
            there = compared(connection, embedder, seen.tolist(), vector)
            if len(there) >= k or len(nominated) < wanted:
                rest = (number for number in later.tolist() if number not in there)
                return there | compared(connection, embedder, rest, vector)
            wanted *= DEEPER


def in_memory(
    connection: sqlite3.Connection, embedder: str, dimensions: int, generation: int, before: Snapshot | None
) -> Snapshot:
    """A snapshot whose vectors are in memory: those of the one before where few have changed since."""
    if before is not None and isinstance(before.store, ExactScan):
        changed = num_after(connection, VECTOR_CHANGES, before.sequence)
        held = len(before.store.numbers)
        if before.sequence <= last(connection, VECTOR_CHANGES) and changed <= max(
            RELOAD_LEAST, RELOAD_SHARE * held
        ):
            tail = read_tail(connection, embedder, dimensions, before.sequence)
            return Snapshot(generation, None, before.store, before.sequence, tail)
    total = single_number(connection, "SELECT count(*) FROM passages")
    scan = ExactScan.of(vectors_after(connection, embedder, 0, by_id=True), total, dimensions)
    empty = ExactScan.of((), 0, dimensions)
    return Snapshot(generation, None, scan, last(connection, VECTOR_CHANGES), empty)


def read_tail(connection: sqlite3.Connection, embedder: str, dimensions: int, sequence: int) -> ExactScan:
    """The vectors that came after a change."""
    total = num_after(connection, VECTOR_CHANGES, sequence)
    return ExactScan.of(vectors_after(connection, embedder, sequence, by_id=True), total, dimensions)
