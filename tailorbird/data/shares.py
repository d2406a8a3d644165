"""Sharing out: which of the things that must stay together are taken, each stratum in proportion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailorbird.data.duplicates import Ints


@dataclass(frozen=True)
class Units:
    """Examples that must stay together: one, or a group. Units are numbered in the frozen order.

    `unit_of` gives the unit of each example, the examples standing in the frozen order; `strata`
    are numbers of labels; what is `train_only` may not leave train.
    """

    unit_of: Ints
    sizes: Ints
    strata: Ints
    train_only: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def singles(cls, strata: Ints) -> Units:
        """Each example by itself."""
        count = len(strata)
        return cls(np.arange(count), np.ones(count, dtype=np.int64), strata, np.zeros(count, dtype=bool))

    @classmethod
    def joined(cls, first: Ints, strata: Ints, train_only: npt.NDArray[np.bool_]) -> Units:
        """Units of the examples that share the same `first` place.

        The stratum of a group is the most frequent of its members', the first of equally frequent ones.
        """
        places, unit_of, sizes = np.unique(first, return_inverse=True, return_counts=True)
        bound = np.zeros(len(places), dtype=bool)
        bound[unit_of[train_only]] = True
        stratum = strata[places]
        grouped = np.flatnonzero(sizes[unit_of] > 1)
        order = grouped[np.argsort(unit_of[grouped], kind="stable")]
        for members in np.split(order, np.flatnonzero(np.diff(unit_of[order])) + 1):
            if len(members):
                numbers, counts = np.unique(strata[members], return_counts=True)
                stratum[unit_of[members[0]]] = numbers[counts.argmax()]
        return cls(unit_of, sizes, stratum, bound)

    def members(self, units: Ints) -> Ints:
        """The examples of some units, in the frozen order."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[units] = True
        return np.flatnonzero(chosen[self.unit_of])

    def by_stratum(self, units: Ints) -> Iterator[Ints]:
        """The units of each stratum, in the order in which they are given."""
        order = units[np.argsort(self.strata[units], kind="stable")]
        if len(order):
            yield from np.split(order, np.flatnonzero(np.diff(self.strata[order])) + 1)

    def smallest(self, units: Ints) -> Ints:
        """The first of the smallest of these; nothing of nothing."""
        return units[self.sizes[units].argmin()][None] if len(units) else units


def free_units(units: Units, among: Ints) -> Ints:
    """What may leave train: of each stratum all units but one, which stays for training.

    If that leaves nothing, because no stratum has two, then any but the first and largest.
    """
    free: list[Ints] = [among[:0]]
    for members in units.by_stratum(among):
        movable = members[~units.train_only[members]]
        if len(movable) == len(members):
            # the largest stays: an enormous group of near-duplicates is no measure of anything
            movable = np.delete(movable, _last_largest(units, movable))
        free.append(movable)
    found = np.sort(np.concatenate(free))
    if len(found):
        return found
    movable = among[~units.train_only[among]]
    if len(movable) == len(among) and len(movable):
        movable = np.delete(movable, _last_largest(units, movable))
    return movable


def _last_largest(units: Units, among: Ints) -> int:
    sizes = units.sizes[among]
    return int(np.flatnonzero(sizes == sizes.max())[-1])


def take(units: Units, among: Ints, count: int) -> Ints:
    """Units of `count` examples together, or slightly fewer, each stratum in proportion.

    Largest remainders get the seats that proportions leave over; ties go by the frozen order.
    """
    strata = list(units.by_stratum(among))
    sizes = [int(units.sizes[members].sum()) for members in strata]
    share = min(1.0, count / max(1, sum(sizes)))
    seats = [math.floor(share * size + 1e-9) for size in sizes]
    by_remainder = sorted(range(len(strata)), key=lambda s: (seats[s] - share * sizes[s], strata[s][0]))
    for s in by_remainder[: max(0, min(count, sum(sizes)) - sum(seats))]:
        seats[s] += 1
    taken = [_fill(units, members, left) for members, left in zip(strata, seats, strict=True)]
    return np.sort(np.concatenate([among[:0], *taken]))


def _fill(units: Units, members: Ints, left: int) -> Ints:
    """The first units that fit into so many seats one after another."""
    if (units.sizes[members] == 1).all():
        return members[:left]
    taken: list[int] = []
    for unit in members:
        size = int(units.sizes[unit])
        if size <= left:
            taken.append(unit)
            left -= size
    return np.array(taken, dtype=np.int64)
