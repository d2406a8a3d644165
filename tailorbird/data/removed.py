"""What a split left out, and why: an example each, read when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from tailorbird.data.duplicates import Ints
from tailorbird.records import Example

Reason = Literal["duplicate", "in_test", "near_test", "over_limit"]


@dataclass(frozen=True, slots=True)
class Removed:
    """An example that is in no part, and why.

    `duplicate`: equal to the kept example `of`; `in_test` and `near_test`: equal or nearly equal to
    the given test example `of`; `over_limit`: a given test example beyond `limit_test`.
    """

    example: Example
    reason: Reason
    of: str = ""


@dataclass(frozen=True)
class Removal:
    """Some places of `examples` that were removed for one reason; `of` are ids, one each."""

    examples: Sequence[Example]
    places: Ints
    reason: Reason
    of: npt.NDArray[np.bytes_] | None = None

    def at(self, number: int) -> Removed:
        """The removed example of this number."""
        of = "" if self.of is None else self.of[number].decode()
        return Removed(self.examples[int(self.places[number])], self.reason, of)


@dataclass(frozen=True)
class RemovedExamples(Sequence[Removed]):
    """What was removed; the examples themselves are read when asked for."""

    removals: tuple[Removal, ...]

    @property
    def counts(self) -> Counter[Reason]:
        """How many were removed for each reason."""
        counts: Counter[Reason] = Counter()
        for removal in self.removals:
            counts[removal.reason] += len(removal.places)
        return +counts

    def __len__(self) -> int:
        return sum(len(removal.places) for removal in self.removals)

    @overload
    def __getitem__(self, index: int) -> Removed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Removed]: ...
    def __getitem__(self, index: int | slice) -> Removed | list[Removed]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        number = range(len(self))[index]
        for removal in self.removals:
            if number < len(removal.places):
                return removal.at(number)
            number -= len(removal.places)
        raise IndexError(index)
