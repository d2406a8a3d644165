"""Okapi BM25 over texts in memory, exact.

Robertson & Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond",
https://doi.org/10.1561/1500000019:

    score(q, d) = Σ over terms t of q:  idf(t) · f(t, d) (k1 + 1) / (f(t, d) + k1 (1 - b + b |d| / mean |d|))

f(t, d) counts t in d and |d| counts the terms of d. A term that stands twice in the query counts twice.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Inverse = Literal["okapi", "lucene"]
Floats = npt.NDArray[np.float64]


def words(text: str) -> list[str]:
    """The lower-case words and numbers of a text, in order.

    >>> words("Don't re-charge card #4!")
    ['don', 't', 're', 'charge', 'card', '4']
    """
    return re.findall(r"[^\W_]+", text.lower())


class BM25:
    """BM25 over a fixed list of texts.

    Args:
        texts: What is searched.
        k1: How slowly repeats of a term saturate, ≥ 0.
        b: How much long texts are discounted, in [0, 1].
        idf: `okapi` is ln((N - n + 0.5) / (n + 0.5)), where a term in more than half of the texts, which
            would count against a text, gets `epsilon` times the mean idf instead; `lucene` is
            ln(1 + (N - n + 0.5) / (n + 0.5)), never negative.
        epsilon: See `idf`; unused by `lucene`.
        tokenize: Turns a text or a query into its terms.

    >>> BM25(["my card is lost", "the rate is wrong"]).scores("lost card").argmax().item()
    0
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.5,
        b: float = 0.75,
        idf: Inverse = "okapi",
        epsilon: float = 0.25,
        tokenize: Callable[[str], Iterable[str]] = words,
    ) -> None:
        self._tokenize = tokenize
        self._num_texts = len(texts)
        counts = [Counter(tokenize(text)) for text in texts]
        lengths = np.array([sum(c.values()) for c in counts], dtype=np.float64)
        mean = lengths.mean() if lengths.any() else 1.0
        penalty = k1 * (1 - b + b * lengths / mean)
        frequencies = _frequencies(counts)
        inverse = _inverse(frequencies, len(texts), idf, epsilon)
        self._impacts: dict[str, tuple[npt.NDArray[np.intp], Floats]] = {}
        for term, (where, count) in frequencies.items():
            self._impacts[term] = where, inverse[term] * count * (k1 + 1) / (count + penalty[where])

    def __len__(self) -> int:
        return self._num_texts

    def scores(self, query: str) -> Floats:
        """The score of every text, float64 [N]; 0 where no term is shared."""
        total = np.zeros(self._num_texts)
        for term in self._tokenize(query):
            if term in self._impacts:
                where, impact = self._impacts[term]
                total[where] += impact
        return total


def _frequencies(counts: Sequence[Counter[str]]) -> dict[str, tuple[npt.NDArray[np.intp], Floats]]:
    """For each term the texts that hold it, ascending, and how often each does."""
    postings: dict[str, tuple[list[int], list[int]]] = {}
    for text, count in enumerate(counts):
        for term, times in count.items():
            where, often = postings.setdefault(term, ([], []))
            where.append(text)
            often.append(times)
    return {t: (np.array(w, dtype=np.intp), np.array(n, dtype=np.float64)) for t, (w, n) in postings.items()}


def _inverse(frequencies: dict[str, Any], num_texts: int, kind: Inverse, epsilon: float) -> dict[str, float]:
    """The inverse document frequency of every term."""
    held = {term: len(where) for term, (where, _) in frequencies.items()}
    if kind == "lucene":
        return {term: math.log(1 + (num_texts - n + 0.5) / (n + 0.5)) for term, n in held.items()}
    plain = {term: math.log(num_texts - n + 0.5) - math.log(n + 0.5) for term, n in held.items()}
    floor = epsilon * sum(plain.values()) / max(1, len(plain))
    return {term: value if value >= 0 else floor for term, value in plain.items()}
