"""Differences between scores that share no examples: two runs on two test sets.

Nothing cancels out here, so such an interval is wider than a paired one of as many examples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

from tailorbird.evaluation.statistics import Interval, Scores, score_interval

_NORMAL = NormalDist()
CONFIDENCE = 0.95


def mean_interval(scores: Scores, *, groups: Sequence[Hashable] | None = None) -> Interval:
    """The 95 % interval of one arm's mean, never without width.

    As `score_interval`, but at least ±z² / (n + z²) wide on the sides where scores all equal the mean: n equal
    scores do not rule out that rare others exist. n counts clusters where `groups` are given. In [0, 1].
    """
    found = score_interval(scores, groups=groups, confidence=CONFIDENCE)
    if found.low < found.mean or found.mean < found.high:
        return found
    square = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2) ** 2
    least = square / (len(set(groups) if groups is not None else scores) + square)
    return Interval(found.mean, max(0.0, found.mean - least), min(1.0, found.mean + least))


def unpaired_interval(a: Interval, b: Interval) -> Interval:
    """The interval of the difference a − b of two independent estimates, from the interval of each.

    (a − b) − √((a − lₐ)² + (u_b − b)²) to (a − b) + √((uₐ − a)² + (b − l_b)²) (Zou & Donner 2008, Stat. Med.
    27:1693, eq. 3); of Wilson's intervals it is Newcombe's method 10 (1998, Stat. Med. 17:873).

    >>> from tailorbird.evaluation.statistics import wilson
    >>> found = unpaired_interval(Interval(56 / 70, *wilson(56, 70)), Interval(48 / 80, *wilson(48, 80)))
    >>> round(found.low, 4), round(found.high, 4)
    (0.0524, 0.3339)
    """
    mean = a.mean - b.mean
    below, above = math.hypot(a.mean - a.low, b.high - b.mean), math.hypot(a.high - a.mean, b.mean - b.low)
    return Interval(mean, max(-1.0, mean - below), min(1.0, mean + above))


def unpaired_p_value(difference: Interval) -> float:
    """The two-sided p-value that goes with a 95 % interval: below .05 exactly where the interval leaves 0 out.

    z = 1.96 · |d| / (distance from d to the bound on 0's side), p = 2 (1 − Φ(z)).
    """
    mean = difference.mean
    distance = mean - difference.low if mean > 0 else difference.high - mean
    if mean == 0 or distance <= 0:
        return 1.0 if mean == 0 else 0.0
    z = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2) * abs(mean) / distance
    return 2 * (1 - _NORMAL.cdf(z))
