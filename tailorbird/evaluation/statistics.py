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
_EQUAL_SIZES = 8
"""A binomial number takes about as long as so many random signs."""
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
    low, high = _wilson_bounds(successes / n, n, _NORMAL.inv_cdf((1 + confidence) / 2))
    return (0.0 if successes == 0 else low, 1.0 if successes == n else high)


def _wilson_bounds(p: float, n: float, z: float) -> tuple[float, float]:
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def score_interval(
    scores: Scores, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """The interval of one arm's mean of scores in [0, 1]: Wilson's, with the effective number of examples.

    Right/wrong scores of independent examples count as they are. Else n is replaced by p̂(1 − p̂) / V, V
    the variance of the mean over whole documents, and z by Student's t: of the intervals for proportions of
    clustered samples, Franco, Little, Louis & Slud (2019, J. Surv. Stat. Methodol. 7:334) recommend this
    one. Where few units carry V, it is drawn towards that of right/wrong scores (`_Spread.doubt`): a mistake
    that was not seen may still be there.
    """
    values = np.asarray(scores, dtype=float)
    if values.size == 0:
        raise ValueError("A mean needs at least one score; got none.")
    if _clusters(groups) is None and _is_binary(values):
        return Interval(float(values.mean()), *wilson(int(values.sum()), len(values), confidence))
    spread = _spread(values, groups, confidence)
    if math.isinf(spread.t):
        return Interval(spread.mean, 0.0, 1.0)
    most = max(spread.mean * (1 - spread.mean), 0.0)
    share = spread.variance / most if most > 0 else 0.0
    share = max(share, (1 - spread.doubt) * share + spread.doubt / len(values))
    low, high = _wilson_bounds(spread.mean, 1 / share, spread.t)
    return Interval(spread.mean, min(low, spread.mean), max(high, spread.mean))


def paired_interval(
    a: Scores, b: Scores, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Interval:
    """The interval of mean(a − b) that a verdict may rest on: honest where few examples differ.

    Right/wrong scores of independent examples get Tango's score interval. Others get all δ with
    h² ≤ t² V + z² w h(1 − h) / n, where h = |d̄ − δ|, V is the variance of the mean over whole documents
    and w the doubt in it (`_Spread.doubt`). Where nothing differs w is 1, which leaves Tango's bounds
    ±z² / (n + z²): n equal pairs cannot rule out a rare difference. Where many examples differ w is 0,
    which leaves Student's paired interval.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    diffs = differences(first, second)
    if _clusters(groups) is None and _is_binary(first) and _is_binary(second):
        low, high = tango(int(np.sum(diffs > 0)), int(np.sum(diffs < 0)), len(diffs), confidence)
        return Interval(float(diffs.mean()), low, high)
    spread = _spread(diffs, groups, confidence)
    if math.isinf(spread.t):
        return Interval(spread.mean, -1.0, 1.0)
    n, unseen = len(diffs), _NORMAL.inv_cdf((1 + confidence) / 2) ** 2 * spread.doubt
    root = math.sqrt(unseen**2 + 4 * (n + unseen) * n * spread.variance * spread.t**2)
    half = (unseen + root) / (2 * (n + unseen))
    return Interval(spread.mean, max(-1.0, spread.mean - half), min(1.0, spread.mean + half))


@dataclass(frozen=True, slots=True)
class _Spread:
    """A mean, the variance of that mean, the quantile of Student's t that goes with it, and its doubt.

    `doubt` is the weight, in [0, 1], of what the variance may have missed: 1 / (1 + (m/2)²), with
    m = (Σe²)² / Σe⁴ the number of units (documents, or single examples) that carry the variance. It is 1
    where all are equal, ½ where two differ from the rest, and next to 0 where many differ alike.
    """

    mean: float
    variance: float
    t: float
    doubt: float


def _spread(values: Floats, groups: Sequence[Hashable] | None, confidence: float) -> _Spread:
    """The spread of a mean over units that are independent: whole documents, or single examples.

    The variance is Σ e²/(1 − c/n) / n² with e the sum of a unit's deviations and c its number of examples:
    unbiased for independent units of any size (CR2; Bell & McCaffrey 2002, Survey Methodology 28:169). Its
    degrees of freedom are the effective number of units, n²/Σc², less one (Potthoff, Woodbury & Manton
    1992, JASA 87:383); below one half nothing can be said, and t is infinite.
    """
    from scipy.special import stdtrit  # not loaded where only right/wrong scores are judged

    sums, counts = units(values, groups)
    n, mean = float(counts.sum()), float(values.mean())
    freedom = n * n / float((counts**2).sum()) - 1
    if freedom < 0.5:
        return _Spread(mean, 0.0, math.inf, 1.0)
    squares = (sums - mean * counts) ** 2
    # Rounding leaves equal scores with deviations of about 1e-17.
    squares[squares < 1e-24] = 0.0
    fourth = float((squares**2).sum())
    carriers = float(squares.sum()) ** 2 / fourth if fourth > 0 else 0.0
    variance = float((squares / (1 - counts / n)).sum()) / (n * n)
    t = float(stdtrit(freedom, (1 + confidence) / 2))
    return _Spread(mean, variance, t, 1 / (1 + (carriers / 2) ** 2))


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
    sums, _ = units(np.asarray(diffs, dtype=float), groups)
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
    diffs = differences(first, second)
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


def differences(a: Scores, b: Scores) -> Floats:
    """The paired differences a − b, example by example.

    Raises:
        ValueError: one has more examples than the other.
    """
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


def units(values: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """What is resampled: the sum and the count of every cluster (or of every single example)."""
    clusters = _clusters(groups)
    if clusters is None:
        return values, np.ones_like(values)
    sums = np.bincount(clusters, weights=values).astype(np.float64)
    return sums, np.bincount(clusters).astype(np.float64)


def _flipped_sums(sizes: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Sums of differences under random signs; where many sizes are equal they are flipped as one binomial."""
    distinct, times = np.unique(sizes, return_counts=True)
    together = len(sizes) > _EQUAL_SIZES * len(distinct)
    drawn = distinct if together else sizes
    flipped = np.empty(resamples)
    step = max(1, _CHUNK_CELLS // len(drawn))
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), len(drawn))
        if together:
            signs = 2.0 * rng.binomial(times, 0.5, size=shape) - times
        else:
            signs = 2.0 * rng.integers(0, 2, size=shape, dtype=np.int8) - 1
        flipped[start : start + shape[0]] = signs @ drawn
    return flipped
