"""Late interaction: a question's tokens each find their best match in a passage.

Khattab & Zaharia 2020, "ColBERT: efficient and effective passage search via contextualized late
interaction over BERT", arXiv:2004.12832, equation 3:

    score(q, d) = mean over tokens i of q of  max over tokens j of d of  cos(q_i, d_j)

with the token vectors of the embedder that the index has anyway, which was not trained for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tailorbird.records import Passage
from tailorbird.sources.passage_rows import embedded_text


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that also gives a unit vector of every token."""

    @property
    def name(self) -> str: ...

    def token_vectors(self, text: str) -> npt.NDArray[np.float32]:
        """Unit vectors, float32 [T, D]."""
        ...


@dataclass(frozen=True)
class LateInteraction:
    """Scores passages by their best match for every token of the question. It is a `Reranker`."""

    embedder: TokenEmbedder
    trust: float = 0.5

    @property
    def name(self) -> str:
        return f"late-interaction-{self.embedder.name}"

    def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """Mean cosines in [-1, 1]; 0 where the question or the passage has no token."""
        query_QD = self.embedder.token_vectors(query)
        return [self._score(query_QD, embedded_text(passage)) for passage in passages]

    def _score(self, query_QD: npt.NDArray[np.float32], text: str) -> float:
        text_TD = self.embedder.token_vectors(text)
        if not len(query_QD) or not len(text_TD):
            return 0.0
        return round(float((query_QD @ text_TD.T).max(axis=1).mean()), 6)
