"""Score fusion: one ranking out of two, by how well each item fits and not only by its rank."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

Item = TypeVar("Item", bound=Hashable)


def score_fusion(
    words: Mapping[Item, float],
    meaning: Mapping[Item, float],
    *,
    words_weight: float = 1.0,
    meaning_weight: float = 1.0,
) -> list[tuple[Item, float]]:
    """A convex combination of scores, each brought into [0, 1] by the candidates' own.

        score(d) = (w · words(d) / max words + m · (meaning(d) - min meaning) / (max - min)) / (w + m)

    Bruch, Gai & Ingber 2023, "An analysis of fusion functions for hybrid retrieval", arXiv:2210.11934: it
    keeps what ranks throw away, by how much the first beats the second. BM25's least is 0, which an item
    that shares no word has; a cosine's least says nothing, so that of the candidates is taken.

    Args:
        words: BM25, at least 0; items without any word of the question are absent.
        meaning: Cosine similarities, of all items.
        words_weight: w, at least 0.
        meaning_weight: m, at least 0; the two are not both 0.

    Returns:
        Every item of `meaning` with its score in [0, 1], best first; equal ones in its order.

    >>> [item for item, _ in score_fusion({"a": 9.0, "b": 1.0}, {"b": 0.5, "a": 0.4, "c": 0.1})]
    ['a', 'b', 'c']
    """
    if not meaning:
        return []
    total = words_weight + meaning_weight
    most = max(words.values(), default=0.0) or 1.0
    low, high = min(meaning.values()), max(meaning.values())
    width = (high - low) or 1.0
    scores: dict[Any, float] = {
        item: (words_weight * words.get(item, 0.0) / most + meaning_weight * (cosine - low) / width) / total
        for item, cosine in meaning.items()
    }
    # Rounded, so that items alike tie exactly whatever the order of the sums.
    return sorted(((item, round(score, 9)) for item, score in scores.items()), key=lambda pair: -pair[1])
