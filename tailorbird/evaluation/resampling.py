"""The test examples drawn again and again, the same draws for all models: what chance in the test does to each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK_CELLS = 4_000_000


def resampled_means(
    scores_MN: Floats,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Floats:
    """Means of M models' scores over N paired test examples in every resample, [resamples, M].

    Whole clusters are drawn (Davison & Hinkley 1997, §3.8), and the same ones for every model, so that what all
    models find hard cancels out of differences between them.

    Args:
        scores_MN: scores in [0, 1]; column i of every model is the same example.
        groups: the cluster of every example, where some share a document.
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: no scores, or groups of another number of examples.
    """
    if scores_MN.ndim != 2 or scores_MN.size == 0:
        raise ValueError(
            f"scores have the shape {scores_MN.shape}; expected models × examples, one of each or more."
        )
    sums_MU, counts_U = _units(scores_MN, groups)
    dice = np.random.default_rng(seed)
    means = np.empty((resamples, len(sums_MU)))
    num_units = len(counts_U)
    even = np.full(num_units, 1 / num_units)
    step = max(1, _CHUNK_CELLS // num_units)
    for start in range(0, resamples, step):
        times_BU = dice.multinomial(num_units, even, size=min(step, resamples - start)).astype(np.float64)
        means[start : start + step] = (times_BU @ sums_MU.T) / (times_BU @ counts_U)[:, None]
    return means


def _units(scores_MN: Floats, groups: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """What is drawn: every model's sum over each cluster, and how many examples it has."""
    if groups is None:
        return scores_MN, np.ones(scores_MN.shape[1])
    if len(groups) != scores_MN.shape[1]:
        raise ValueError(
            f"groups name {len(groups)} examples; expected {scores_MN.shape[1]}, one a column of scores."
        )
    numbers: dict[Hashable, int] = {}
    cluster_N = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)
    sums_MU = np.stack([np.bincount(cluster_N, weights=one) for one in scores_MN]).astype(np.float64)
    return sums_MU, np.bincount(cluster_N).astype(np.float64)
