"""Is a difference real? Intervals, paired tests, and how many examples it takes to tell.

Scores lie in [0, 1] and are paired: index i of every arm is the same test example. Examples that
share a document are not independent; `groups` names the cluster of each, and whole clusters are
resampled and flipped. All of it is seeded: the same scores give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Sequence[float] | Floats

RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000
_FEW_VALUES = 64
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds that hold the true value with the confidence asked for."""

    mean: float
    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n); (0, 1) where nothing was counted.

    >>> low, high = wilson(83, 100)
    >>> round(low, 3), round(high, 3)
    (0.745, 0.891)
    """
    if n == 0:
        return 0.0, 1.0
    z, p = _NORMAL.inv_cdf((1 + confidence) / 2), successes / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if successes == 0 else max(0.0, low), 1.0 if successes == n else min(1.0, high))


def score_interval(
    scores: Scores, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of one arm's mean: Wilson's for right/wrong scores, else the bootstrap's."""
    values = np.asarray(scores, dtype=float)
    if _clusters(groups) is not None or not _is_binary(values):
        return bootstrap_mean_interval(values, groups=groups, confidence=confidence, seed=seed)
    low, high = wilson(int(values.sum()), len(values), confidence)
    return Interval(float(values.mean()), low, high)


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
    sums, counts = _units(array, groups)
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
        _differences(a, b),
        groups=groups,
        confidence=confidence,
        resamples=resamples,
        method=method,
        seed=seed,
    )


def paired_interval(
    a: Scores, b: Scores, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The interval of mean(a − b) that a verdict may rest on: honest where few examples differ.

    Right/wrong scores get Tango's score interval. Others get the bootstrap's, never narrower than
    ±z² / (n + z²), Tango's bounds where nothing differs: a bootstrap of n equal pairs has no width,
    though n examples cannot rule out a rare difference.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    diffs = _differences(first, second)
    if _clusters(groups) is None and _is_binary(first) and _is_binary(second):
        low, high = tango(int(np.sum(diffs > 0)), int(np.sum(diffs < 0)), len(diffs), confidence)
        return Interval(float(diffs.mean()), low, high)
    found = bootstrap_mean_interval(diffs, groups=groups, confidence=confidence, seed=seed)
    square = _NORMAL.inv_cdf((1 + confidence) / 2) ** 2
    least = square / (len(_units(diffs, groups)[0]) + square)
    return Interval(found.mean, min(found.low, found.mean - least), max(found.high, found.mean + least))


def tango(a_only: int, b_only: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a difference of paired proportions (Tango 1998, Stat. Med. 17:891, eq. 21).

    All δ with |b − c − nδ| ≤ z √(n (2q̃ + δ(1 − δ))), b and c the discordant pairs and q̃ the
    maximum-likelihood estimate of P[only the second is right] given δ.

    >>> low, high = tango(0, 0, 100)
    >>> round(low, 3), round(high, 3)
    (-0.037, 0.037)
    """
    z = _NORMAL.inv_cdf((1 + confidence) / 2)

    def statistic(delta: float) -> float:
        linear = (2 * n - a_only + b_only) * delta - a_only - b_only
        root = math.sqrt(max(0.0, linear * linear + 8 * n * b_only * delta * (1 - delta)))
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        distance = a_only - b_only - n * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)

    observed = (a_only - b_only) / n
    low = -1.0 if observed == -1 else _root(lambda delta: statistic(delta) - z, -1.0, observed)
    high = 1.0 if observed == 1 else _root(lambda delta: statistic(delta) + z, observed, 1.0)
    return low, high


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def mcnemar_exact(a_only: int, b_only: int) -> float:
    """The two-sided exact p-value of McNemar's test (McNemar 1947; Dietterich 1998, §3.1).

    Given the discordant pairs, each is a fair coin under the null:
    p = min(1, 2 · P[Binomial(a_only + b_only, ½) ≤ min(a_only, b_only)]).

    >>> mcnemar_exact(6, 0)
    0.03125
    """
    n, least = a_only + b_only, min(a_only, b_only)
    tail = sum(math.comb(n, i) for i in range(least + 1))
    return min(1.0, 2 * tail / 2**n)


def sign_flip_p_value(
    diffs: Scores, *, groups: Sequence[Hashable] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """The two-sided permutation p-value of a mean difference (Fisher 1935; Good 2005, §3.7).

    Under the null each pair's difference is as likely to have the other sign. Up to 13 units that
    differ are enumerated; beyond, p = (1 + #{|flipped| ≥ |observed|}) / (1 + resamples).
    """
    sums, _ = _units(np.asarray(diffs, dtype=float), groups)
    sums = np.abs(sums), np.sign(sums)
    sizes, signs = sums[0][sums[0] > 0], sums[1][sums[0] > 0]
    if sizes.size == 0:
        return 1.0
    observed = abs(float(sizes @ signs)) - 1e-12 * float(sizes.sum())
    if sizes.size <= 13:
        bits = np.arange(2**sizes.size)[:, None] >> np.arange(sizes.size) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ sizes) >= observed))
    extreme = int(np.sum(np.abs(_flipped_sums(sizes, resamples, np.random.default_rng(seed))) >= observed))
    return (1 + extreme) / (1 + resamples)


def paired_p_value(
    a: Scores,
    b: Scores,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p of "both arms are equally good": exact McNemar for right/wrong, else sign flips."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    diffs = _differences(first, second)
    if _clusters(groups) is None and _is_binary(first) and _is_binary(second):
        return mcnemar_exact(int(np.sum(diffs > 0)), int(np.sum(diffs < 0)))
    return sign_flip_p_value(diffs, groups=groups, resamples=resamples, seed=seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false claim below α (Holm 1979).

    Sorted ascending, p̃₍ᵢ₎ = maxⱼ≤ᵢ min(1, (m − j + 1) p₍ⱼ₎); returned in the given order.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def minimum_detectable_difference(
    n: int, discordant: float = 0.2, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest difference in accuracy that n paired examples reveal with this power.

    Solves n d² = (z₁₋α⸝₂ √ψ + z_power √(ψ − d²))² for d (Connor 1987, eq. 3; ψ = `discordant`, the
    share of examples on which the arms differ in being right). As d ≤ ψ, ψ grows with d where n is
    small. In (0, 1]; 1 where not even that could be seen.

    >>> round(minimum_detectable_difference(625), 3)
    0.05
    """

    def enough(d: float) -> bool:
        psi = max(discordant, d)
        return n * d * d >= (z_alpha * math.sqrt(psi) + z_power * math.sqrt(psi - d * d)) ** 2

    z_alpha, z_power = _NORMAL.inv_cdf(1 - alpha / 2), _NORMAL.inv_cdf(power)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def examples_needed(diffs: Scores, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """About how many examples would make this mean paired difference significant.

    n = ((z₁₋α⸝₂ + z_power) · s / |d̄|)² (Cohen 1988, §2.3 for paired differences), and never fewer than
    a sign test needs (2¹⁻ⁿ < α). None where the mean is 0: no number would do.
    """
    values = np.asarray(diffs, dtype=float)
    mean = abs(float(values.mean())) if values.size else 0.0
    return None if mean == 0 else _sample_size(values, mean, alpha, power)


def examples_for_tie(diffs: Scores, margin: float, *, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """About how many examples would put the whole interval of the difference within ±margin.

    The same formula with the distance margin − |d̄| (two one-sided tests, Schuirmann 1987), and never
    fewer than `paired_interval` needs where nothing differs. None where |d̄| is the margin or more.
    """
    values = np.asarray(diffs, dtype=float)
    distance = margin - abs(float(values.mean())) if values.size else 0.0
    if distance <= 0:
        return None
    fewest = math.ceil(_NORMAL.inv_cdf(1 - alpha / 2) ** 2 * (1 / distance - 1))
    return max(fewest, _sample_size(values, distance, alpha, power))


def _sample_size(values: Floats, distance: float, alpha: float, power: float) -> int:
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    z = _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)
    fewest = math.ceil(1 - math.log2(alpha))
    return max(fewest, math.ceil((z * spread / distance) ** 2))


def _differences(a: Scores, b: Scores) -> Floats:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"Paired scores need the same examples; got {first.size} and {second.size}.")
    return first - second


def _is_binary(values: Floats) -> bool:
    return bool(np.all((values == 0) | (values == 1)))


def _clusters(groups: Sequence[Hashable] | None) -> NDArray[np.intp] | None:
    """The cluster number of every example; None where all clusters have one example."""
    if groups is None:
        return None
    numbers: dict[Hashable, int] = {}
    indices = np.array([numbers.setdefault(g, len(numbers)) for g in groups], dtype=np.intp)
    return None if len(numbers) == len(indices) else indices


def _units(values: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """What is resampled: the sum and the count of every cluster (or of every single example)."""
    clusters = _clusters(groups)
    if clusters is None:
        return values, np.ones_like(values)
    sums = np.bincount(clusters, weights=values).astype(np.float64)
    return sums, np.bincount(clusters).astype(np.float64)


def _resampled_means(sums: Floats, counts: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    units, times = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    if len(units) <= _FEW_VALUES:
        # Drawing n units with replacement and counting each distinct one is one multinomial draw.
        drawn = rng.multinomial(len(sums), times / len(sums), size=resamples).astype(float)
        return (drawn @ units[:, 0]) / (drawn @ units[:, 1])
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


def _flipped_sums(sizes: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Sums of differences under random signs; equal sizes are flipped together, as one binomial."""
    distinct, times = np.unique(sizes, return_counts=True)
    flipped = np.empty(resamples)
    step = max(1, _CHUNK_CELLS // len(distinct))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        heads = rng.binomial(times, 0.5, size=(rows, len(distinct)))
        flipped[start : start + rows] = (2.0 * heads - times) @ distinct
    return flipped
