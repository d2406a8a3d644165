"""Reading the first passages once more, together with the question, and putting them into a better order.

A reranker looks at question and passage side by side, which an index can't afford for every passage:
it is given the first 10 or 20 that the index found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tailorbird.records import Passage


@runtime_checkable
class Reranker(Protocol):
    """Tells how well passages fit a question."""

    @property
    def name(self) -> str:
        """Names weights and method: equal names give equal scores."""
        ...

    @property
    def trust(self) -> float:
        """Its share of a passage's final score, in (0, 1]; the rest is the index's own."""
        ...

    def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """A finite number for each passage, higher where it fits better; on no fixed scale.

        A passage's score depends on nothing but the question and itself.
        """
        ...


def reranked(
    reranker: Reranker, query: str, passages: Sequence[Passage], found: Sequence[float]
) -> list[Passage]:
    """The passages in the order of both scores, each brought into [0, 1] by the passages' own.

    Args:
        reranker: Reads them.
        query: The question.
        passages: Best first, which is the order of equal ones.
        found: The index's score of each.
    """
    read, before = _stretched(reranker.scores(query, passages)), _stretched(found)
    trust = reranker.trust
    total = [round(trust * new + (1 - trust) * old, 9) for new, old in zip(read, before, strict=True)]
    return [passages[i] for i in sorted(range(len(passages)), key=lambda i: -total[i])]


def _stretched(scores: Sequence[float]) -> list[float]:
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / ((high - low) or 1.0) for score in scores]
