"""What more labels would buy: a power law through the scores at fewer labels, with an honest band.

    error(n) = a · (n / N)^−b + c        N: the labels there are; a, c ≥ 0; b between 0.1 and 1

(Cortes et al. 1993, "Learning Curves: Asymptotic Values and Rate of Convergence"; Hestness et al. 2017,
arXiv 1712.00409; Viering & Loog 2021, arXiv 2103.10948, for when such laws fail.) Three sizes can't tell the
rate b from the floor c, so b is held near ½ by a normal prior, which leaves a and c to the scores. Nothing is
said of more than twice the labels.

The band is of resamples in which all that is uncertain is drawn: the test examples (whole clusters where they
share documents), the same for all sizes; which labels were drawn at each size; and the rate that the prior
expects, without which a band would be as sure of ½ as of the scores. The largest size is one draw too,
though of it there is often but one model: it is as uncertain as the size below it shows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tailorbird.evaluation.resampling import Floats, resampled_means

CurveKind = Literal["gain", "hardly", "unclear"]

FEWEST_SIZES, FEWEST_DRAWS = 3, 2
RATES: Floats = np.linspace(0.1, 1.0, 19)
USUAL_RATE, RATE_DOUBT = 0.5, 0.25
"""Rates found lie mostly between 0.1 and 0.5 (Hestness et al.), and theory knows ½ and 1."""
LEAST_NOISE = 0.002
"""Standard deviation of a score below which draws are not believed: three of them may agree by chance."""
HARDLY = 0.02
"""A gain that is less than this with the whole of its interval is hardly one."""
SURE = 0.95
RESAMPLES = 2000
BAND_SIZES = 25


@dataclass(frozen=True, slots=True)
class Measured:
    """One model: how many labels it learnt from, which draw of them, and its score on every test example."""

    num_labels: int
    draw: int
    scores: Sequence[float]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The mean score of the models of one size, and the lowest and the highest of them."""

    num_labels: int
    score: float
    lowest: float
    highest: float
    num_models: int


@dataclass(frozen=True, slots=True)
class CurveBand:
    """The law's score at a number of labels, with its 95 % interval."""

    num_labels: int
    score: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """error(n) = a · (n / num_labels)^−b + c: `a` is what may still be learnt away, `c` what never will."""

    a: float
    b: float
    c: float
    num_labels: int

    def score(self, num_labels: float) -> float:
        """One minus the error.

        Raises:
            ValueError: more than twice the labels that were measured, of which the law says nothing.

        >>> law = PowerLaw(a=0.2, b=0.5, c=0.1, num_labels=400)
        >>> round(law.score(100), 3), round(law.score(400), 3), round(law.score(800), 3)
        (0.5, 0.7, 0.759)
        """
        if not 0 < num_labels <= 2 * self.num_labels:
            raise ValueError(
                f"{num_labels} labels: expected above 0 and at most {2 * self.num_labels}, twice what was measured."
            )
        return 1 - self.a * (num_labels / self.num_labels) ** -self.b - self.c


@dataclass(frozen=True)
class LearningCurve:
    """What was measured, what follows for more labels, and how sure that is.

    `gain`, `low` and `high` are of `more_labels` more, in [0, 1]; None, as the law, where nothing can be said.
    """

    arm: str
    kind: CurveKind
    sentence: str
    num_labels: int
    more_labels: int
    points: tuple[CurvePoint, ...]
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    law: PowerLaw | None = None
    band: tuple[CurveBand, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return asdict(self)


def learning_curve(
    arm: str,
    measured: Sequence[Measured],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> LearningCurve:
    """Fits the law and says what more labels would bring.

    Args:
        arm: what was trained, for the sentence.
        measured: models of three sizes or more, each but the largest in two draws or more; scores are paired
            by index. A draw that not every smaller size has is not used.
        groups: the cluster of every test example, where some share documents.
        resamples: for the band.
        seed: of the resampling.

    Raises:
        ValueError: scores of different numbers of examples.
    """
    sizes = sorted({one.num_labels for one in measured})
    points = tuple(_point(size, measured) for size in sizes)
    num_labels = sizes[-1] if sizes else 0
    more = round_step(num_labels)
    shared = [{one.draw for one in measured if one.num_labels == size} for size in sizes[:-1]]
    draws = sorted(set[int].intersection(*shared)) if shared else []
    if len(sizes) < FEWEST_SIZES or len(draws) < FEWEST_DRAWS:
        why = f"that takes {FEWEST_SIZES} numbers of labels and {FEWEST_DRAWS} draws of each; there are {len(sizes)} "
        sentence = f"{arm}: can't tell what more labels would bring: {why}and {len(draws)}."
        return LearningCurve(arm, "unclear", sentence, num_labels, more, points)
    errors = _Errors.of(measured, sizes, draws, groups, resamples, seed)
    fitted = errors.fit()
    growth = 1 - (1 + more / num_labels) ** -fitted.b_B
    gains = fitted.a_B * growth
    gain, (low, high) = float(gains[0]), np.quantile(gains[1:], (0.025, 0.975)).tolist()
    low, high = min(low, gain), max(high, gain)
    rises = float(np.mean(gains[1:] > 1e-6)) >= SURE
    kind: CurveKind = "hardly" if high <= HARDLY else "gain" if rises else "unclear"
    law = PowerLaw(float(fitted.a_B[0]), float(fitted.b_B[0]), float(fitted.c_B[0]), num_labels)
    sentence = _sentence(arm, kind, more, (gain, low, high))
    band = fitted.band(sizes[0], num_labels)
    return LearningCurve(arm, kind, sentence, num_labels, more, points, gain, low, high, law, band)


def round_step(num_labels: int) -> int:
    """The largest of 1, 2, 5, 10, 20, … that is no more than there are.

    >>> [round_step(n) for n in (0, 7, 134, 396, 1000)]
    [0, 5, 100, 200, 1000]
    """
    if num_labels < 1:
        return 0
    power = 10 ** (len(str(num_labels)) - 1)
    return max(step * power for step in (1, 2, 5) if step * power <= num_labels)


def _sentence(arm: str, kind: CurveKind, more: int, gain_low_high: tuple[float, float, float]) -> str:
    """Points without decimals, but for gains that would vanish so."""
    digits = 0 if gain_low_high[2] >= 0.05 else 1
    about, least, most = (f"{100 * value:.{digits}f}" for value in gain_low_high)
    if kind == "hardly":
        return f"{arm}: more labels would hardly help: +{more:,} labels → at most +{most} points."
    if kind == "gain":
        return f"{arm}: +{more:,} labels → about +{about} points ({least} to {most})."
    return (
        f"{arm}: can't tell what more labels would bring: +{more:,} labels → between {least} and {most} points. "
        "More test examples would tell."
    )


def _point(size: int, measured: Sequence[Measured]) -> CurvePoint:
    means = [math.fsum(one.scores) / len(one.scores) for one in measured if one.num_labels == size]
    return CurvePoint(size, math.fsum(means) / len(means), min(means), max(means), len(means))


@dataclass(frozen=True)
class _Errors:
    """Mean errors of every size, [1 + resamples, sizes]; the first row is as measured.

    `weight_S` is by how much the law is held to each size: models over the variance of one of them; `expected_B`
    the rate to which the prior holds each row.
    """

    shares_S: Floats  # noqa: N815
    errors_BS: Floats  # noqa: N815
    weight_S: Floats  # noqa: N815
    expected_B: Floats  # noqa: N815

    @classmethod
    def of(  # noqa: PLR0917 - what was measured, and how it is drawn again
        cls,
        measured: Sequence[Measured],
        sizes: Sequence[int],
        draws: Sequence[int],
        groups: Sequence[Hashable] | None,
        resamples: int,
        seed: int,
    ) -> _Errors:
        chosen = [one for one in measured if one.draw in draws or one.num_labels == sizes[-1]]
        lengths = {len(one.scores) for one in chosen}
        if len(lengths) != 1:
            raise ValueError(
                f"scores are of {sorted(lengths)} examples; expected the same ones of every model."
            )
        scores_MN = np.array([one.scores for one in chosen], dtype=np.float64)
        resampled_BM = resampled_means(scores_MN, groups=groups, resamples=resamples, seed=seed)
        means_BM = 1 - np.concatenate([scores_MN.mean(axis=1)[None], resampled_BM])
        of_size = [
            [
                next(i for i, one in enumerate(chosen) if (one.num_labels, one.draw) == (size, draw))
                for draw in draws
            ]
            for size in sizes[:-1]
        ]
        largest = [i for i, one in enumerate(chosen) if one.num_labels == sizes[-1]]
        dice = np.random.default_rng([seed, 1])
        share_BD = dice.multinomial(len(draws), [1 / len(draws)] * len(draws), size=resamples) / len(draws)
        columns = [_redrawn(means_BM[:, places], share_BD) for places in of_size]
        columns.append(_redrawn_largest(means_BM[:, largest], means_BM[:, of_size[-1]], dice))
        noise = max(LEAST_NOISE**2, float(np.mean([means_BM[0, places].var(ddof=1) for places in of_size])))
        models = np.array([len(places) for places in [*of_size, largest]], dtype=np.float64)
        expected_B = np.concatenate([[USUAL_RATE], dice.normal(USUAL_RATE, RATE_DOUBT, size=resamples)])
        return cls(np.array(sizes) / sizes[-1], np.stack(columns, axis=1), models / noise, expected_B)

    def fit(self) -> _Fitted:
        """The most likely law of every row: for each rate the best a and c, then the best rate."""
        best_B = np.full(len(self.errors_BS), np.inf)
        a_B, b_B, c_B = (np.zeros(len(best_B)) for _ in range(3))
        for rate in RATES:
            falls_S = self.shares_S**-rate
            a, c = _line(falls_S, self.errors_BS, self.weight_S)
            left_BS = self.errors_BS - a[:, None] * falls_S - c[:, None]
            loss_B = left_BS**2 @ self.weight_S + ((rate - self.expected_B) / RATE_DOUBT) ** 2
            better = loss_B < best_B
            best_B[better], a_B[better], b_B[better], c_B[better] = loss_B[better], a[better], rate, c[better]
        return _Fitted(a_B, b_B, c_B)


@dataclass(frozen=True)
class _Fitted:
    """The law of every row of `_Errors`."""

    a_B: Floats  # noqa: N815
    b_B: Floats  # noqa: N815
    c_B: Floats  # noqa: N815

    def band(self, smallest: int, num_labels: int) -> tuple[CurveBand, ...]:
        """The law and its interval from the fewest labels to twice as many as there are."""
        found: list[CurveBand] = []
        for size in sorted({round(n) for n in np.geomspace(smallest, 2 * num_labels, BAND_SIZES).tolist()}):
            scores = np.clip(1 - self.a_B * (size / num_labels) ** -self.b_B - self.c_B, 0, 1)
            score, (low, high) = float(scores[0]), np.quantile(scores[1:], (0.025, 0.975)).tolist()
            found.append(CurveBand(size, score, min(low, score), max(high, score)))
        return tuple(found)


def _redrawn(errors_BD: Floats, share_BD: Floats) -> Floats:
    """Means over draws: as they are in the first row, over draws drawn again in the others.

    A mean of D values drawn again varies by (D − 1) / D of what a fresh one would (Davison & Hinkley 1997, §2.3),
    which matters where D is 2 or 3.
    """
    num_draws = errors_BD.shape[1]
    mean_B = errors_BD.mean(axis=1)
    apart_B = (share_BD * (errors_BD[1:] - mean_B[1:, None])).sum(axis=1) * math.sqrt(
        num_draws / (num_draws - 1)
    )
    return np.concatenate([mean_B[:1], mean_B[1:] + apart_B])


def _redrawn_largest(errors_BL: Floats, below_BD: Floats, dice: np.random.Generator) -> Floats:
    """Means at the largest size, of L models; how far they may lie apart is taken from the size below it."""
    resamples, num_draws, num_models = len(errors_BL) - 1, below_BD.shape[1], errors_BL.shape[1]
    drawn_BL: NDArray[np.int64] = dice.integers(0, num_draws, size=(resamples, num_models))
    centred_BD = (below_BD - below_BD.mean(axis=1, keepdims=True))[1:] * math.sqrt(
        num_draws / (num_draws - 1)
    )
    apart_B = np.take_along_axis(centred_BD, drawn_BL, axis=1).mean(axis=1)
    mean_B = errors_BL.mean(axis=1)
    return np.concatenate([mean_B[:1], mean_B[1:] + apart_B])


def _line(falls_S: Floats, errors_BS: Floats, weight_S: Floats) -> tuple[Floats, Floats]:
    """The a, c ≥ 0 that make a · falls + c fit best, by weighted least squares, for every row."""
    total, fall = weight_S.sum(), weight_S @ falls_S
    mean_fall, mean_B = fall / total, errors_BS @ weight_S / total
    covered = weight_S @ (falls_S - mean_fall) ** 2
    slope_B = ((errors_BS - mean_B[:, None]) * (falls_S - mean_fall)) @ weight_S / covered
    a_B: Floats = np.maximum(slope_B, 0.0)
    c_B: Floats = mean_B - a_B * mean_fall
    through_zero_B = errors_BS @ (weight_S * falls_S) / (weight_S @ falls_S**2)
    below = c_B < 0
    return np.where(below, through_zero_B, a_B), np.where(below, 0.0, c_B)
