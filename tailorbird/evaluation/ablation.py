"""What each part of an arm is good for: the arm without it on the same test examples, paired."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tailorbird.evaluation.comparison import points
from tailorbird.evaluation.statistics import paired_interval


@dataclass(frozen=True, slots=True)
class Ablated:
    """An arm without one of its parts, minus the whole arm, on test: mean and 95 % interval.

    `taken_from` names the arm of the comparison that is just that, and was not run again; empty where it was.
    """

    arm: str
    without: str
    score: float
    difference: float
    low: float
    high: float
    sentence: str
    taken_from: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return asdict(self)


def ablated(
    arm: str,
    without: str,
    whole: Sequence[float],
    rest: Sequence[float],
    *,
    taken_from: str = "",
    groups: Sequence[Hashable] | None = None,
) -> Ablated:
    """Compares the arm without a part (`rest`) with the whole arm (`whole`), by test scores paired by index.

    >>> found = ablated("few_shot+fine_tune", "fine_tune", [1.0] * 80 + [0.0] * 20, [1.0] * 50 + [0.0] * 50)
    >>> found.sentence
    'few_shot+fine_tune without fine_tune: −30.0 points (−39.6 to −21.9).'

    Raises:
        ValueError: the scores are of different numbers of examples.
    """
    found = paired_interval(rest, whole, groups=groups)
    between = f"{points(found.low)} to {points(found.high)}"
    sentence = f"{arm} without {without}: {points(found.mean)} points ({between})."
    if found.low <= 0 <= found.high:
        sentence = (
            f"{arm} without {without}: {points(found.mean)} points ({between}), so it can't be told apart."
        )
    score = math.fsum(rest) / len(rest)
    return Ablated(arm, without, score, found.mean, found.low, found.high, sentence, taken_from)
