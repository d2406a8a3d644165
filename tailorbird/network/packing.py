"""Sequences laid end to end as one stream of tokens, what they all begin with standing in it once.

    ids        p0 p1 p2 | a0 a1 | b0 b1 b2 | c0
    positions   0  1  2 |  3  4 |  3  4  5 |  3

Every layer but attention treats each token by itself, so the stream goes through them without padding
and without a token computed twice; attention branches (`branched_attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pack:
    """A stream of N tokens: first the shared `prefix`, then each sequence's own, `lengths` of them.

    Raises:
        AssertionError: prefix and lengths don't add up to the number of ids.
    """

    ids: tuple[int, ...]
    prefix: int
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.prefix + sum(self.lengths) == len(self.ids), (self.prefix, self.lengths, len(self.ids))

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """Each token's place in its sequence."""
        own = (range(self.prefix, self.prefix + length) for length in self.lengths)
        return tuple(chain(range(self.prefix), *own))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where in the stream each sequence's own tokens begin."""
        return tuple(accumulate(self.lengths[:-1], initial=self.prefix))

    @property
    def longest(self) -> int:
        """The most own tokens of a sequence."""
        return max(self.lengths, default=0)

    @cached_property
    def rectangle(self) -> Tensor:
        """Own tokens as a rectangle of places in the stream; short rows repeat their start as padding."""
        places_T = torch.arange(self.longest)
        lengths_B1, starts_B1 = torch.tensor(self.lengths)[:, None], torch.tensor(self.starts)[:, None]
        return torch.where(
            places_T < lengths_B1, starts_B1 + places_T, starts_B1.clamp(max=len(self.ids) - 1)
        )

    @cached_property
    def own_rows(self) -> Tensor:
        """Which cells of the flattened rectangle are tokens, in the stream's order."""
        return (torch.arange(self.longest) < torch.tensor(self.lengths)[:, None]).flatten().nonzero()[:, 0]


def pack(rows: Sequence[tuple[int, ...]], prefix: int) -> Pack:
    """The rows as one stream, their first `prefix` tokens, which are the same in all, once.

    >>> pack([(7, 8, 1), (7, 8, 2, 3)], 2)
    Pack(ids=(7, 8, 1, 2, 3), prefix=2, lengths=(1, 2))
    """
    own = [row[prefix:] for row in rows]
    return Pack((*rows[0][:prefix], *chain.from_iterable(own)), prefix, tuple(map(len, own)))
