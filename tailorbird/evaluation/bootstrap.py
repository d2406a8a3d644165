"""The bootstrap: what a mean might have been on other test sets, by drawing from the one there is.

The comparison's own intervals (`statistics.py`) hold the truth more often where examples or documents are
few or differences rare (docs/decisions/0050); these need no formula, and are measured beside them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np

from tailorbird.evaluation.statistics import Floats, Interval, Scores, differences, units

RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000
_FEW_VALUES = 64
_NORMAL = NormalDist()


def bootstrap_mean_interval(
    values: Scores,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    method: str = "bca",
    seed: int = 0,
) -> Interval:
    """The bootstrap interval of a mean (Efron & Tibshirani 1993, ch. 13 percentile, ch. 14 BCa).

    BCa corrects the percentiles for bias and skewness: α₁ = Φ(ẑ₀ + (ẑ₀ + z_α) / (1 − â(ẑ₀ + z_α))),
    with ẑ₀ from the share of resamples below the mean and â from the jackknife. With `groups`, whole
    clusters are drawn (Davison & Hinkley 1997, §3.8) and the mean is the ratio of sums to counts.

    Raises:
        ValueError: no values, or an unknown method.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f"Unknown bootstrap method {method!r}; expected 'bca' or 'percentile'.")
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("A mean needs at least one value; got none.")
    mean = float(array.mean())
    sums, counts = units(array, groups)
    if len(sums) < 2 or bool(np.ptp(sums / counts) == 0):
        return Interval(mean, mean, mean)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng(seed))
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    levels = _bca_levels(means, sums, counts, mean, tails) if method == "bca" else tails
    low, high = np.quantile(means, levels)
    return Interval(mean, float(low), float(high))


def paired_bootstrap(
    a: Scores,
    b: Scores,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    method: str = "bca",
    seed: int = 0,
) -> Interval:
    """The interval of mean(a − b) over paired examples (Efron & Tibshirani 1993; Koehn 2004).

    Pairs are resampled, not arms, so what both find hard cancels out.
    """
    return bootstrap_mean_interval(
        differences(a, b),
        groups=groups,
        confidence=confidence,
        resamples=resamples,
        method=method,
        seed=seed,
    )


def _resampled_means(sums: Floats, counts: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    distinct, times = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    if len(distinct) <= _FEW_VALUES:
        # Drawing n units with replacement and counting each distinct one is one multinomial draw.
        drawn = rng.multinomial(len(sums), times / len(sums), size=resamples).astype(float)
        return (drawn @ distinct[:, 0]) / (drawn @ distinct[:, 1])
    means = np.empty(resamples)
    step = max(1, _CHUNK_CELLS // len(sums))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(sums), size=(min(step, resamples - start), len(sums)))
        means[start : start + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _bca_levels(
    means: Floats, sums: Floats, counts: Floats, mean: float, tails: tuple[float, float]
) -> list[float]:
    below = (np.mean(means < mean) + np.mean(means <= mean)) / 2
    if not 0 < below < 1:
        return list(tails)
    bias = _NORMAL.inv_cdf(float(below))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    centred = left_out.mean() - left_out
    skew = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5)) if np.any(centred) else 0.0
    shifted = [bias + _NORMAL.inv_cdf(tail) for tail in tails]
    return [_NORMAL.cdf(bias + z / (1 - skew * z)) for z in shifted]
