"""How much of a score is chance, and which: the test examples, the training seed, or which labels there were.

Three standard deviations of one arm's mean score (Bouthillier et al. 2021, "Accounting for Variance in Machine
Learning Benchmarks", arXiv 2103.03098, which names the sources):

    test       of resamples of the test examples, clusters together
    training   over models of the same labels and other seeds of training
    examples   over models of the same seed and random halves of the labels. A half differs from another as all
               labels differ from as many fresh ones: the delete-half jackknife (Shao & Wu 1989, Ann. Stat. 17:1176),
               whose factor for halves is 1

Models of other labels also begin otherwise, so the third holds a part of the second.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tailorbird.evaluation.resampling import resampled_means


@dataclass(frozen=True, slots=True)
class Spread:
    """A standard deviation of a score in [0, 1], between which values it lies (95 %), and the models' mean scores."""

    deviation: float
    low: float
    high: float
    scores: tuple[float, ...]

    @property
    def num_models(self) -> int:
        """How many models it is of."""
        return len(self.scores)


@dataclass(frozen=True)
class SeedSpread:
    """The spread of one arm's score by where it is from; None where there are fewer than two models."""

    arm: str
    score: float
    test: float
    training: Spread | None
    examples: Spread | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return asdict(self)


def seed_spread(
    arm: str,
    scores: Sequence[float],
    training: Sequence[float] = (),
    examples: Sequence[float] = (),
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> SeedSpread:
    """The spread of an arm's score.

    Args:
        arm: its name.
        scores: the arm's own score on every test example.
        training: mean scores of models of the same labels with other training seeds, the arm's own among them.
        examples: mean scores of models of random halves of the labels.
        groups: the cluster of every test example, where some share documents.
        seed: of the resampling.
    """
    score = math.fsum(scores) / len(scores)
    resampled = resampled_means(np.array([scores], dtype=np.float64), groups=groups, seed=seed)
    test = float(resampled[:, 0].std())
    by_seed, by_draw = spread(training), spread(examples)
    told = [f"test examples ±{_points(test)}"]
    if by_seed:
        told.append(f"training seed ±{_points(by_seed.deviation)} ({by_seed.num_models} seeds)")
    if by_draw:
        told.append(f"labels drawn ±{_points(by_draw.deviation)} ({by_draw.num_models} draws)")
    sentence = (
        f"{arm}: {100 * score:.1f} %, of which chance, as standard deviations in points: {', '.join(told)}."
    )
    return SeedSpread(arm, score, test, by_seed, by_draw, sentence)


def spread(means: Sequence[float]) -> Spread | None:
    """The standard deviation of some models' scores and its 95 % interval; None of fewer than two.

    The interval is that of normal values, s √((n − 1) / χ²): of three models it reaches from half of s to six
    times s, which is how little three models tell.

    >>> found = spread([0.80, 0.82, 0.84])
    >>> [round(value, 3) for value in (found.deviation, found.low, found.high)]
    [0.02, 0.01, 0.126]
    """
    count = len(means)
    if count < 2:
        return None
    deviation = float(np.std(means, ddof=1))
    from scipy.special import chdtri  # not loaded where no seeds are looked at

    # χ² that is exceeded with this chance.
    low, high = (deviation * math.sqrt((count - 1) / chdtri(count - 1, chance)) for chance in (0.025, 0.975))
    return Spread(deviation, float(low), float(high), tuple(means))


def order_sentence(a: SeedSpread, b: SeedSpread) -> str:
    """What to know where seeds move two arms further than they lie apart; empty where they don't.

    The difference of the two varies by √(Σ s²) of its parts: the training seeds of each, and the labels. Where both
    learnt from the same draws, their differences are taken draw by draw: labels that are poor for one mostly are for
    the other.
    """
    gap, moved = abs(a.score - b.score), math.hypot(*_parts(a, b))
    if moved <= gap or not moved:
        return ""
    return (
        f"Seeds and labels move {a.arm} and {b.arm} by ±{_points(moved)} points against one another, and they lie "
        f"{_points(gap)} apart: with others the order of the two may be another."
    )


def _parts(a: SeedSpread, b: SeedSpread) -> list[float]:
    """The standard deviations, each independent of the others, of the difference of two arms."""
    trained = [one.training.deviation for one in (a, b) if one.training]
    if a.examples and b.examples and a.examples.num_models == b.examples.num_models:
        apart = np.subtract(a.examples.scores, b.examples.scores)
        return [*trained, float(np.std(apart, ddof=1))]
    return [*trained, *(one.examples.deviation for one in (a, b) if one.examples)]


def _points(share: float) -> str:
    return f"{share * 100:.1f}"
