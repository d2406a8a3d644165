"""A gate: passes or refuses by a few figures, on a scale that was fitted to cases of both kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEWEST = 5
"""Cases of each kind that a gate is fitted to, at least."""
FOLDS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """Passes what is likely enough: p = 1 / (1 + exp(-(bias + Σ weights · figures))), and passes from `cut` on."""

    weights: tuple[float, ...]
    bias: float
    cut: float

    def chance(self, figures: Sequence[float]) -> float:
        """How likely it is to be of the kind that should pass, in (0, 1)."""
        z = self.bias + sum(w * x for w, x in zip(self.weights, figures, strict=True))
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    def passes(self, figures: Sequence[float]) -> bool:
        """Whether that reaches the cut."""
        return self.chance(figures) >= self.cut

    def to_json(self) -> dict[str, Any]:
        """As plain values; `Gate(**values)` makes it again, tuples aside."""
        return {"weights": list(self.weights), "bias": self.bias, "cut": self.cut}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Gate:
        """Reads what `to_json` gave."""
        return cls(tuple(values["weights"]), values["bias"], values["cut"])


def fit_gate(good: Sequence[Sequence[float]], bad: Sequence[Sequence[float]]) -> Gate | None:
    """The gate that tells two kinds of cases apart; None where there are fewer than `FEWEST` of one.

    A logistic regression, both kinds weighing alike, its weights held small. The cut is the one with the highest
    2 × (share of good ones that pass) + (share of bad ones that don't), of equally good ones the lowest: what is
    refused wrongly cannot be made good later. It is found on cases that the scale at hand was not fitted to
    (cross-fitting), so that a few cases don't promise too much.

    Args:
        good: the figures [N, F] of cases that should pass.
        bad: those of cases that should not [M, F].
    """
    if min(len(good), len(bad)) < FEWEST:
        return None
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    cases = np.array([*good, *bad], dtype=np.float64)
    kinds = np.array([1] * len(good) + [0] * len(bad))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    chances: Floats = np.asarray(
        cross_val_predict(_regression(), cases, kinds, cv=folds, method="predict_proba")
    )[:, 1]
    cut = best_cut(chances[: len(good)], chances[len(good) :])
    below = chances[chances < cut]
    cut = (cut + float(below.max())) / 2 if len(below) else cut / 2  # as far from those it refuses
    scale, regression = (step for _, step in _regression().fit(cases, kinds).steps)
    weights = regression.coef_[0] / scale.scale_
    bias = float(regression.intercept_[0] - (weights * scale.mean_).sum())
    return Gate(tuple(map(float, weights)), bias, cut)


def best_cut(good: Floats | Sequence[float], bad: Floats | Sequence[float], lowest: float = 0.0) -> float:
    """The least value from which on passing is best: see `fit_gate`.

    Args:
        good: values of cases that should pass; not empty.
        bad: values of cases that should not; not empty.
        lowest: a cut that is tried too, beside the values themselves.

    >>> best_cut([0.9, 0.6, 0.4], [0.3, 0.5])
    0.4
    """
    passing, failing = np.asarray(good), np.asarray(bad)
    cuts = sorted({lowest, *map(float, passing), *map(float, failing)})

    def merit(cut: float) -> float:
        return 2 * float((passing >= cut).mean()) + float((failing < cut).mean())

    return max(cuts, key=lambda cut: (merit(cut), -cut))


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced"))
