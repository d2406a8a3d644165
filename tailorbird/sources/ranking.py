"""How an index orders what it finds: which fusion, with which weights, and whether the first are read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tailorbird.errors import InputError
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.score_fusion import score_fusion

Fusion = Literal["scores", "ranks"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
MOST_RERANKED = 100


@dataclass(frozen=True)
class Ranking:
    """The settings of a ranking; those by default are as good as any fitted ones (decision 35).

    Args:
        fusion: `scores` adds both rankings' scores, `ranks` their reciprocal ranks.
        words_weight: of the ranking by words, at least 0.
        meaning_weight: of the ranking by meaning, at least 0; not both are 0.
        fusion_k: of `ranks`: how little the first ranks stand out, at least 1.
        rerank: How many of the first are ordered anew by the reranker; 0 for none.
        reranker: Which one: empty for the embedder's own, else a cross-encoder's folder or `hf:org/name`.

    Raises:
        InputError: A setting is out of its range.
    """

    fusion: Fusion = "scores"
    words_weight: float = 1.0
    meaning_weight: float = 1.0
    fusion_k: int = 60
    rerank: int = 0
    reranker: str = ""

    def __post_init__(self) -> None:
        if self.fusion not in FUSIONS:
            raise InputError(f"ranking: fusion is {self.fusion!r}; expected one of {', '.join(FUSIONS)}.")
        weights = self.words_weight, self.meaning_weight
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise InputError(
                f"ranking: the weights are {self.words_weight} for words and {self.meaning_weight} for meaning; "
                "expected both at least 0, and one above it."
            )
        if self.fusion_k < 1:
            raise InputError(f"ranking: fusion_k is {self.fusion_k}; expected 1 or more.")
        if not 0 <= self.rerank <= MOST_RERANKED:
            raise InputError(f"ranking: rerank is {self.rerank}; expected 0 to {MOST_RERANKED} passages.")

    def fuse(
        self,
        by_words: Sequence[int],
        by_meaning: Sequence[int],
        words: Mapping[int, float],
        meaning: Mapping[int, float],
    ) -> list[tuple[int, float]]:
        """All candidates with their fused scores, best first.

        Args:
            by_words: The candidates that share words with the question, best first.
            by_meaning: The candidates that are close in meaning, best first.
            words: BM25 of each candidate by words.
            meaning: The cosine similarity of every candidate.
        """
        weights = self.words_weight, self.meaning_weight
        if self.fusion == "ranks":
            return reciprocal_rank_fusion([by_words, by_meaning], self.fusion_k, weights)
        return score_fusion(
            {item: words[item] for item in by_words},
            {item: meaning[item] for item in dict.fromkeys([*by_meaning, *by_words])},
            words_weight=self.words_weight,
            meaning_weight=self.meaning_weight,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values, which make it again."""
        return asdict(self)
