"""When an arm pays back: what making it costs once, against what each of its answers saves.

Only arms on the front take part: no other is at least as good, as cheap to make and as cheap to ask, and
in one of these better. Of two on the front, the one that is dearer to make and cheaper to ask pays back after

    (once_a − once_b) / (answer_b − answer_a)

questions, if it is not worse: its mean score is no lower, or the paired difference lies above −margin with
its whole interval. That one never pays back is said only of two that are as good as one another: where the
dearer one is better, its price buys that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from tailorbird.evaluation.comparison import Comparison, money
from tailorbird.evaluation.statistics import paired_interval
from tailorbird.evaluation.verdict import ALPHA

MOST_QUESTIONS = 1_000_000_000
"""What pays back later than this never does."""


@dataclass(frozen=True, slots=True)
class Costed:
    """An arm's paired test scores in [0, 1] and its costs in US dollars."""

    name: str
    scores: Sequence[float]
    once: float
    answer: float

    @property
    def score(self) -> float:
        """The mean on test."""
        return math.fsum(self.scores) / len(self.scores)


@dataclass(frozen=True, slots=True)
class BreakEven:
    """After how many questions `arm` has cost less than `against`; None where that never happens.

    `once` and `answer` are what the arm costs more than the other to make, and less for an answer, in US dollars.
    """

    arm: str
    against: str
    questions: int | None
    once: float
    answer: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return asdict(self)


def break_evens(
    arms: Sequence[Costed], *, margin: float, groups: Sequence[Hashable] | None = None
) -> tuple[BreakEven, ...]:
    """The pairs of the front of which something can be said, what pays back soonest first.

    Args:
        arms: with scores paired by index.
        margin: differences within ±margin count as none.
        groups: the cluster of every test example, where some share documents.
    """

    def not_worse(arm: Costed, other: Costed) -> bool:
        if arm.score >= other.score:
            return True
        return paired_interval(arm.scores, other.scores, groups=groups).low >= -margin

    kept, found = front(arms), list[BreakEven]()
    for arm, other in permutations(kept, 2):
        if arm.once > other.once and not_worse(arm, other):
            pair = _break_even(arm, other)
            if pair.questions is not None or not_worse(other, arm):
                found.append(pair)
    # What never pays back comes last.
    found.sort(key=lambda one: (one.questions is None, one.questions or 0, one.arm, one.against))
    return tuple(found)


def summary(pairs: Sequence[BreakEven], use: str | None) -> str:
    """What to know first: of the arm in use if there is anything of it, else of the rest."""
    if not pairs:
        return (
            "Nothing pays back later: no arm that is as good as another costs more to make and less to ask."
        )
    first = [pair for pair in pairs if pair.arm == use] or [pair for pair in pairs if pair.against == use]
    return (first or list(pairs))[0].sentence


def costed(comparison: Comparison) -> list[Costed]:
    """The arms of a comparison that one might use, with what they cost on this machine or at their endpoint's prices.

    One that is clearly worse than the candidate pays back against nothing that matters.
    """
    found: list[Costed] = []
    for arm in comparison.arms:
        evaluation = comparison.evaluations.get(arm.name)
        # Scores are paired: an arm that did not answer the whole test can't be held against the others.
        whole = evaluation is not None and len(evaluation.rows) == comparison.num_test
        worse = arm.p_adjusted is not None and arm.p_adjusted < ALPHA and (arm.difference or 0.0) < 0
        if evaluation and whole and not worse and arm.cost_per_1k is not None and arm.train_s is not None:
            scores = evaluation.scores(comparison.metric)
            once = arm.train_s * comparison.price_per_hour / 3600
            found.append(Costed(arm.name, scores, once, arm.cost_per_1k / 1000))
    return found


def front(arms: Sequence[Costed]) -> list[Costed]:
    """The arms that no other beats: at least as good and as cheap both ways, and in one of these better.

    >>> a, b = Costed("a", [1.0], 2.0, 0.1), Costed("b", [1.0], 1.0, 0.1)
    >>> [arm.name for arm in front([a, b])]
    ['b']
    """
    return [arm for arm in arms if not any(_beats(other, arm) for other in arms)]


def _beats(other: Costed, arm: Costed) -> bool:
    mine, theirs = (-arm.score, arm.once, arm.answer), (-other.score, other.once, other.answer)
    return theirs != mine and all(t <= m for t, m in zip(theirs, mine, strict=True))


def _break_even(arm: Costed, other: Costed) -> BreakEven:
    once, answer = arm.once - other.once, other.answer - arm.answer
    questions = math.ceil(once / answer) if answer > 0 and once / answer <= MOST_QUESTIONS else None
    return BreakEven(arm.name, other.name, questions, once, answer, _sentence(arm, other, questions, once))


def _sentence(arm: Costed, other: Costed, questions: int | None, once: float) -> str:
    better = arm.score - other.score
    gained = f" (it scores {100 * better:+.1f} points)".replace("-", "−") if round(better, 3) else ""
    if questions is None:
        dearer = (
            "its answers cost no less" if arm.answer >= other.answer else "its answers save next to nothing"
        )
        more = f"it costs {money(once)} more to make"
        return f"{arm.name} never pays back against {other.name}: {more}, and {dearer}{gained}."
    return f"{arm.name} pays back against {other.name} after about {_round(questions):,} questions{gained}."


def _round(questions: int) -> int:
    """Two digits that tell: seconds measured once are no more exact."""
    step = 10 ** max(0, len(str(questions)) - 2)
    return max(1, round(questions / step) * step)
