"""When should a question go unanswered? How well a score tells, and what each threshold costs.

Of questions in the order of a score, the surest first, coverage is the share that is answered and risk the
share of those that would be answered wrongly (El-Yaniv & Wiener 2010, "On the foundations of noise-free
selective classification"). The area beneath risk over coverage (AURC) is 0 where nothing is ever wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHOWN = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Coverages at which a curve is told."""


@dataclass(frozen=True)
class CurvePoint:
    """Answering `coverage` of the questions, those that score `threshold` or more, `risk` of them go wrong."""

    coverage: float
    risk: float
    threshold: float


@dataclass(frozen=True)
class AbstentionCurve:
    """What a score is worth for abstaining.

    `auroc` is the chance that a question that would be answered rightly scores above one that would not;
    None where there are only questions of one kind. `aurc` is the area beneath the curve, in [0, 1].
    """

    score: str
    auroc: float | None
    aurc: float
    points: tuple[CurvePoint, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values, rounded."""
        facts = asdict(self)
        facts["points"] = [{name: round(v, 4) for name, v in point.items()} for point in facts["points"]]
        return {
            **facts,
            "aurc": round(self.aurc, 4),
            "auroc": None if self.auroc is None else round(self.auroc, 4),
        }


def abstention_curve(name: str, scores: Sequence[float], right: Sequence[bool]) -> AbstentionCurve:
    """The curve of a score.

    Args:
        name: What the score is called.
        scores: One a question, at least one question; higher means surer.
        right: Whether it would be answered rightly.
    """
    scores_N, right_N = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    order = np.argsort(-scores_N, kind="stable")
    # Questions with equal scores are answered together or not at all: each gets the mean risk of them all.
    ends = np.append(np.flatnonzero(np.diff(scores_N[order])), len(order) - 1)
    answered = ends + 1
    risk = np.cumsum(~right_N[order])[ends] / answered
    sizes = np.diff(np.append(0, answered))
    points = [_point(scores_N[order], ends, risk, share) for share in SHOWN]
    return AbstentionCurve(
        name, auroc(scores, right), float((risk * sizes).sum() / len(order)), tuple(dict.fromkeys(points))
    )


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The chance that a positive scores above another, equal scores counting half; None without both kinds.

    >>> auroc([0.9, 0.4, 0.4], [True, True, False])
    0.75
    """
    values, marks = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    with_P, without_N = values[marks], np.sort(values[~marks])
    if not with_P.size or not without_N.size:
        return None
    below = np.searchsorted(without_N, with_P, "left") + np.searchsorted(without_N, with_P, "right")
    return float(below.mean() / (2 * without_N.size))


def _point(scores: Any, ends: Any, risk: Any, share: float) -> CurvePoint:
    """The first threshold that answers at least a share of the questions."""
    at = int(np.searchsorted(ends + 1, share * len(scores) - 1e-9))
    return CurvePoint(float((ends[at] + 1) / len(scores)), float(risk[at]), float(scores[ends[at]]))
