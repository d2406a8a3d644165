"""Is a model as sure as it is right? Answers sorted into bins by the probability it gave them, to be drawn.

A model is calibrated where, of the answers it is 80 % sure of, 80 % are right (Guo et al. 2017, "On
Calibration of Modern Neural Networks", arXiv:1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.statistics import wilson

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about one confidence: how many, how sure on average, and the share that was right.

    `sure`, `right`, `low` and `high` (the 95 % interval of `right`) lie in [0, 1].
    """

    count: int
    sure: float
    right: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The bins that hold answers, from unsure to sure."""

    bins: tuple[Bin, ...]

    @property
    def count(self) -> int:
        """The number of answers."""
        return sum(b.count for b in self.bins)

    @property
    def sure(self) -> float:
        """How sure the model was on average."""
        return sum(b.count * b.sure for b in self.bins) / self.count

    @property
    def right(self) -> float:
        """The share of answers that were right."""
        return sum(b.count * b.right for b in self.bins) / self.count


def calibrate(sure: Sequence[float], right: Sequence[bool], num_bins: int = NUM_BINS) -> Calibration:
    """Sorts answers into bins of equal width.

    Args:
        sure: The probability that the model gave each answer, in [0, 1].
        right: Whether that answer was right.
        num_bins: Bin i of them holds probabilities in (i/n, (i+1)/n]; 0 belongs to the first.

    >>> calibrate([0.91, 0.99, 0.3], [True, True, False]).bins[1].right
    1.0
    """
    held: dict[int, list[tuple[float, bool]]] = {}
    for chance, hit in zip(sure, right, strict=True):
        # A product like 0.3 · 10 may lie a hair above 3; the bin's edge belongs below.
        index = max(0, math.ceil(chance * num_bins - 1e-9) - 1)
        held.setdefault(min(index, num_bins - 1), []).append((chance, hit))
    return Calibration(tuple(_bin(held[index]) for index in sorted(held)))


def calibration_of(evaluation: Evaluation, metric: str) -> Calibration | None:
    """The calibration of a model's answers by the probabilities it gave them; None where it gave none.

    An answer is right where the metric gives it 1. Answers without a probability are left out.
    """
    found = [
        (row.completion.probabilities[row.completion.text], row.scores[metric] == 1)
        for row in evaluation.rows
        if row.completion.probabilities and row.completion.text in row.completion.probabilities
    ]
    return calibrate([sure for sure, _ in found], [hit for _, hit in found]) if found else None


def _bin(answers: Sequence[tuple[float, bool]]) -> Bin:
    count, hits = len(answers), sum(hit for _, hit in answers)
    low, high = wilson(hits, count)
    return Bin(count, sum(sure for sure, _ in answers) / count, hits / count, low, high)
