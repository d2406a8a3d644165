"""Reciprocal rank fusion: one ranking out of several, without comparing their scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item", bound=Hashable)


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Item]], k: int = 60, weights: Sequence[float] | None = None
) -> list[tuple[Item, float]]:
    """Fuse rankings: score(d) = Σ over rankings of weight / (k + rank of d), ranks from 1.

    Cormack, Clarke & Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", https://doi.org/10.1145/1571941.1572114.

    Args:
        rankings: Each best first and without repeats; an item may be absent from some.
        k: How little the first ranks stand out; 60 in the paper.
        weights: Of the rankings, each 0 or more; None: all 1, as in the paper. What only rankings of weight 0 hold
            comes last.

    Returns:
        Every item once with its score, best first; equal scores stand in the items' own order.

    >>> [item for item, _ in reciprocal_rank_fusion([["a", "b", "c"], ["c", "a"]])]
    ['a', 'c', 'b']
    """
    parts: dict[Any, list[float]] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, item in enumerate(ranking, start=1):
            parts.setdefault(item, []).append(weight / (k + rank))
    # Summed from the largest on, so that items with the same parts from different rankings tie exactly.
    scores = {item: sum(sorted(found, reverse=True)) for item, found in parts.items()}
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
