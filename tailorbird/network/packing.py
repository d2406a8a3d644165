"""Sequences laid end to end as one stream of tokens, what they all begin with standing in it once.

    ids        p0 p1 p2 | a0 a1 | b0 b1 b2 | c0
    positions   0  1  2 |  3  4 |  3  4  5 |  3

Every layer but attention treats each token by itself, so the stream goes through them without padding
and without a token computed twice; attention branches (`pack_attention`).

A branch may fork once more: two completions of one prompt stand in it one after the other, and the second
doesn't see the first.

    ids        p0 p1 p2 | a0 a1 x0 x1 y0 | …       a0 a1 the prompt's rest, x and y its completions
    positions   0  1  2 |  3  4  5  6  5 | …
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor

WIDTHS = 8
"""Rectangles of own tokens are a multiple of this wide: attention then meets fewer shapes, for each of which libraries
make and keep code."""

Pieces = tuple[tuple[int, int], ...]
"""Where a sequence's tokens lie: in ascending order the first position of each piece, and its row."""


@dataclass(frozen=True)
class Pack:
    """A stream of N tokens: first the shared `prefix`, then each branch's own, `lengths` of them.

    `forks` tells of each branch which of its own tokens, from and to, those after them don't see; it is empty
    where no branch forks, and every branch then is one sequence.

    Raises:
        AssertionError: prefix and lengths don't add up to the number of ids, or a fork lies outside its branch.
    """

    ids: tuple[int, ...]
    prefix: int
    lengths: tuple[int, ...]
    forks: tuple[tuple[int, int], ...] = ()
    prepared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What attention made of it for all layers, by device."""

    def __post_init__(self) -> None:
        assert self.prefix + sum(self.lengths) == len(self.ids), (self.prefix, self.lengths, len(self.ids))
        if self.forks:
            pairs = zip(self.forks, self.lengths, strict=True)
            assert all(0 <= start <= end <= length for (start, end), length in pairs), (
                self.forks,
                self.lengths,
            )

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """Each token's place in its sequence."""
        forks = self.forks or [(length, length) for length in self.lengths]
        own = (
            chain(
                range(self.prefix, self.prefix + end),
                range(self.prefix + start, self.prefix + start + length - end),
            )
            for (start, end), length in zip(forks, self.lengths, strict=True)
        )
        return tuple(chain(range(self.prefix), *own))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where in the stream each branch's own tokens begin."""
        return tuple(accumulate(self.lengths[:-1], initial=self.prefix))

    @cached_property
    def pieces(self) -> list[Pieces]:
        """Of every sequence where its tokens lie, a fork's two sequences one after the other."""
        shared: Pieces = ((0, 0),)
        found: list[Pieces] = []
        for number, start in enumerate(self.starts):
            own = (*shared, (self.prefix, start))
            found.append(own)
            if self.forks:
                first, second = self.forks[number]
                found.append((*own, (self.prefix + first, start + second)))
        return found

    @property
    def longest(self) -> int:
        """The most own tokens of a branch."""
        return max(self.lengths, default=0)

    @property
    def width(self) -> int:
        """`longest`, rounded up: see `WIDTHS`."""
        return -(-self.longest // WIDTHS) * WIDTHS

    @cached_property
    def rectangle(self) -> Tensor:
        """Own tokens as a rectangle of places in the stream; rows are filled up with their start."""
        places_T = torch.arange(self.width)
        lengths_B1, starts_B1 = torch.tensor(self.lengths)[:, None], torch.tensor(self.starts)[:, None]
        return torch.where(
            places_T < lengths_B1, starts_B1 + places_T, starts_B1.clamp(max=len(self.ids) - 1)
        )

    @cached_property
    def unseen(self) -> Tensor | None:
        """Which own tokens (last axis) an own token does not see though they come before it; None if none."""
        if not self.forks:
            return None
        start_B11, end_B11 = torch.tensor(self.forks).T[:, :, None, None]
        places_T = torch.arange(self.width)
        passed_BT1 = places_T[None, :, None] >= end_B11
        return passed_BT1 & (places_T >= start_B11) & (places_T < end_B11)

    @cached_property
    def own_rows(self) -> Tensor:
        """Which cells of the flattened rectangle are tokens, in the stream's order."""
        return (torch.arange(self.width) < torch.tensor(self.lengths)[:, None]).flatten().nonzero()[:, 0]


def pack(rows: Sequence[tuple[int, ...]], prefix: int) -> Pack:
    """The rows as one stream, their first `prefix` tokens, which are the same in all, once.

    >>> pack([(7, 8, 1), (7, 8, 2, 3)], 2)
    Pack(ids=(7, 8, 1, 2, 3), prefix=2, lengths=(1, 2), forks=())
    """
    own = [row[prefix:] for row in rows]
    return Pack((*rows[0][:prefix], *chain.from_iterable(own)), prefix, tuple(map(len, own)))


def pack_pairs(rows: Sequence[tuple[int, ...]], prefix: int) -> Pack:
    """The same where every two rows are a pair: what both begin with stands in their branch once.

    >>> pack_pairs([(7, 8, 1), (7, 8, 2, 3)], 1)
    Pack(ids=(7, 8, 1, 2, 3), prefix=1, lengths=(4,), forks=((1, 2),))
    """
    branches: list[tuple[int, ...]] = []
    forks: list[tuple[int, int]] = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        stem = common_prefix([first, second])
        branches.append(first[prefix:] + second[stem:])
        forks.append((stem - prefix, len(first) - prefix))
    ids = (*rows[0][:prefix], *chain.from_iterable(branches))
    return Pack(ids, prefix, tuple(map(len, branches)), tuple(forks))


def common_prefix(rows: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all rows have in common.

    >>> common_prefix([(1, 2, 3), (1, 2, 4), (1, 2)])
    2
    """
    first, last = min(rows), max(rows)
    # Every row sorts between these two, so it begins with whatever they share.
    shortest = min(len(first), len(last))
    return next((n for n in range(shortest) if first[n] != last[n]), shortest)
