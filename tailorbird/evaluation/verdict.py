"""The verdict and its rule.

1. The *candidate* is the arm with the best mean on dev (tie: the cheaper, then by name). Test was
   not looked at to choose it.
2. On test, the candidate is compared with every other arm: paired differences, a two-sided paired
   p-value each, adjusted by Holm for the number of arms.
3. *winner*: significantly better than every other arm.
4. Else the *front* is the candidate and all arms not significantly worse. *tie*: every paired
   difference within the front lies in ±margin with its whole 95 % interval; use the cheapest.
5. Else *undecided*: about how many more examples would tell, and the cheapest of the front until
   then (or the cheapest arm that did significantly better than the candidate, if there is one).

Cheapest means least compute per answer: (input − cached + output tokens) × the number of parameters
of the weights; 0 for floors; a model that does not tell its size counts as dearer than all that do, and of
two such the one whose tokens cost less is the cheaper.
No clock enters, so repeating or resuming a run cannot change the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tailorbird.evaluation.statistics import (
    RESAMPLES,
    Interval,
    examples_for_tie,
    examples_needed,
    holm,
    paired_interval,
    paired_p_value,
    score_interval,
)

VerdictKind = Literal["winner", "tie", "undecided"]
NotJudged = Literal["stopped", "failed", "behind"]
"""Why an arm was not measured on test: the budget, an error, or that it was clearly behind on dev."""
MARGIN = 0.03
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Contender:
    """What the verdict knows of an arm that ran: paired scores and the compute of one answer."""

    name: str
    dev: Sequence[float]
    test: Sequence[float]
    compute: float | None
    floor: bool = False
    paid: float = 0.0
    """US dollars for the tokens of one answer, where an endpoint takes them."""

    @property
    def score(self) -> float:
        """The mean on test."""
        return _mean(self.test)

    @property
    def price(self) -> tuple[bool, float, float, str]:
        """Sorts by cheapness; between equals the better score on dev decides, then the name."""
        return (
            self.compute is None,
            self.paid if self.compute is None else self.compute,
            -round(_mean(self.dev), 12),
            self.name,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm minus the candidate on test, paired: mean, 95 % interval, p and Holm-adjusted p."""

    mean: float
    low: float
    high: float
    p: float
    p_adjusted: float


@dataclass(frozen=True)
class Verdict:
    """Which arm to use, and how sure that is."""

    kind: VerdictKind
    arm: str | None
    sentence: str
    more_examples_needed: int | None = None
    candidate: str | None = None
    headline: str = ""
    """The beginning of the sentence that holds the decision; the rest are notes."""
    differences: Mapping[str, Difference] = field(default_factory=dict[str, Difference])


def decide(
    contenders: Sequence[Contender],
    *,
    things: str = "messages",
    groups: Sequence[Hashable] | None = None,
    not_judged: Mapping[str, NotJudged] | None = None,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Applies the rule above.

    Args:
        contenders: The arms that ran; their test scores are paired by index.
        things: What an example is called in the sentence: "messages" or "questions".
        groups: The cluster of every test example, where examples share documents.
        not_judged: Arms that were not measured on test and why, for the sentence.
        margin: Differences within ±margin count as none.
        alpha: The chance accepted of a false "better".
        seed: Of the permutations.
        resamples: How many permutations, where not all are tried.
    """
    if len(contenders) < 2:
        return _alone(contenders, things, not_judged or {})
    candidate = min(contenders, key=lambda c: (-round(_mean(c.dev), 12), *c.price))
    others = [c for c in contenders if c is not candidate]
    differences = _differences(candidate, others, groups, seed, resamples)
    worse = {n for n, d in differences.items() if d.p_adjusted < alpha and d.mean < 0}
    better = [c for c in others if differences[c.name].p_adjusted < alpha and differences[c.name].mean > 0]
    rivals = [c for c in others if c.name not in worse]
    case = _Case(contenders, candidate, rivals, differences, things, groups, margin)
    if not rivals:
        kind, arm, headline, more = "winner", candidate, case.winner_sentence(), None
    elif all(case.is_tied(c) for c in rivals):
        kind, arm, more = "tie", min([candidate, *rivals], key=lambda c: c.price), None
        headline = case.tie_sentence(arm)
    elif better:
        kind, arm, more = "undecided", min(better, key=lambda c: c.price), round_up(len(candidate.test))
        headline = case.surprise_sentence(arm, more)
    else:
        kind, arm, more = "undecided", min([candidate, *rivals], key=lambda c: c.price), case.more(alpha)
        headline = case.undecided_sentence(arm, more)
    notes = [case.floor_note(arm), _not_judged_note(not_judged or {})]
    sentence = " ".join([headline, *filter(None, notes)])
    return Verdict(kind, arm.name, sentence, more, candidate.name, headline, differences)


def round_up(count: int) -> int:
    """Rounded up to two significant digits.

    >>> round_up(641), round_up(97), round_up(1001)
    (650, 97, 1100)
    """
    step = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step


@dataclass(frozen=True)
class _Case:
    """One application of the rule: what its steps share."""

    contenders: Sequence[Contender]
    candidate: Contender
    rivals: Sequence[Contender]
    differences: Mapping[str, Difference]
    things: str
    groups: Sequence[Hashable] | None
    margin: float

    def is_tied(self, rival: Contender) -> bool:
        difference = self.differences[rival.name]
        return -self.margin <= difference.low and difference.high <= self.margin

    @property
    def closest(self) -> Contender:
        """The strongest rival that is neither beaten nor shown to be as good."""
        return max((r for r in self.rivals if not self.is_tied(r)), key=lambda r: (r.score, r.name))

    def more(self, alpha: float) -> int:
        """How many more examples would show the closest rival to be worse, or as good."""
        rival = self.closest
        difference = self.differences[rival.name]
        diffs = [a - b for a, b in zip(self.candidate.test, rival.test, strict=True)]
        # What Holm multiplied p by is what the test must additionally overcome.
        strict = alpha * difference.p / difference.p_adjusted
        enough = [examples_needed(diffs, alpha=strict), examples_for_tie(diffs, self.margin)]
        return round_up(max(1, min(n for n in enough if n is not None) - len(diffs)))

    def winner_sentence(self) -> str:
        second = max((c for c in self.contenders if c is not self.candidate), key=lambda c: (c.score, c.name))
        return (
            f"Use {self.candidate.name}: {self._result(self.candidate)}, clearly better than the second best "
            f"({second.name}, {self._short(second)})."
        )

    def tie_sentence(self, arm: Contender) -> str:
        equal = [c.name for c in [self.candidate, *self.rivals] if c is not arm]
        verb = "is" if len(equal) == 1 else "are"
        return (
            f"Use {arm.name}: {self._result(arm)}. {_listed(equal)} {verb} as good, within "
            f"{self.margin * 100:g} points, and {arm.name} "
            f"{'costs next to nothing' if self._among_floors(arm) else 'is the cheapest'} to run."
        )

    def undecided_sentence(self, arm: Contender, more: int) -> str:
        rival = self.closest
        return (
            f"Undecided: {self.candidate.name} was {self._result(self.candidate)}; {rival.name} "
            f"({self._short(rival)}) is too close to tell apart. About {more} more test examples would tell. "
            f"Until then use {arm.name}, {self._cheapest_of(arm)}."
        )

    def surprise_sentence(self, arm: Contender, more: int) -> str:
        return (
            f"Undecided: {self.candidate.name} looked best when choosing, but on the held-out {self.things} "
            f"{arm.name} was clearly better: {self._result(arm)}, against {self._short(self.candidate)}. "
            f"About {more} fresh test examples would settle it. Until then use {arm.name}."
        )

    def floor_note(self, arm: Contender) -> str:
        """Says which customizations are no better than a simple baseline."""
        floors = [c for c in self.contenders if c.floor]
        models = [c for c in self.contenders if not c.floor]
        if not floors or not models:
            return ""
        best = max(floors, key=lambda c: (c.score, c.name))
        if arm.floor:
            return self._floor_is_used(arm, models)
        notes: list[str] = []
        if any(r.floor for r in self.rivals) or self.candidate.floor:
            notes.append(f"Note that {arm.name} is not clearly better than the simple baseline {best.name}.")
        behind = [c.name for c in models if c is not arm and c.score <= best.score]
        if behind:
            notes.append(f"No better than the simple baseline {best.name}: {', '.join(behind)}.")
        return " ".join(notes)

    def _floor_is_used(self, arm: Contender, models: Sequence[Contender]) -> str:
        if all(c.score <= arm.score for c in models):
            return f"No language model did better than {arm.name}, a simple baseline."
        return f"No language model was clearly better than {arm.name}, a simple baseline."

    def _cheapest_of(self, arm: Contender) -> str:
        if self._among_floors(arm):
            return "a simple baseline that costs next to nothing to run"
        return "the cheapest of those still in question" if arm.compute is not None else "the leanest so far"

    def _among_floors(self, arm: Contender) -> bool:
        """Whether it is one of several floors in question, whose small costs are not told apart."""
        return arm.floor and any(c.floor and c is not arm for c in (self.candidate, *self.rivals))

    def _result(self, arm: Contender) -> str:
        interval = score_interval(arm.test, groups=self.groups)
        n = len(arm.test)
        between = f"between {_percent(interval.low)} and {_percent(interval.high)} %"
        if all(score in (0, 1) for score in arm.test):
            right = f"right on {sum(arm.test):.0f} of {n} held-out {self.things}"
            return f"{right} ({_percent(arm.score)} %, {between})"
        return f"{_percent(arm.score)} % right on average over {n} held-out {self.things} ({between})"

    def _short(self, arm: Contender) -> str:
        return f"{_percent(arm.score)} %"


def _differences(
    candidate: Contender,
    others: Sequence[Contender],
    groups: Sequence[Hashable] | None,
    seed: int,
    resamples: int,
) -> dict[str, Difference]:
    intervals: list[Interval] = []
    p_values: list[float] = []
    for other in others:
        intervals.append(paired_interval(other.test, candidate.test, groups=groups))
        p_values.append(
            paired_p_value(other.test, candidate.test, groups=groups, resamples=resamples, seed=seed)
        )
    return {
        other.name: Difference(interval.mean, interval.low, interval.high, p, p_adjusted)
        for other, interval, p, p_adjusted in zip(others, intervals, p_values, holm(p_values), strict=True)
    }


def _alone(contenders: Sequence[Contender], things: str, not_judged: Mapping[str, NotJudged]) -> Verdict:
    note = _not_judged_note(not_judged)
    if not contenders:
        headline = "No arm has been measured."
        return Verdict("undecided", None, " ".join(filter(None, [headline, note])), headline=headline)
    only = contenders[0]
    headline = (
        f"Undecided: only {only.name} was measured ({_percent(only.score)} % over {len(only.test)} held-out "
        f"{things}); there is nothing to compare it with."
    )
    sentence = " ".join(filter(None, [headline, note]))
    return Verdict("undecided", only.name, sentence, None, only.name, headline)


def _not_judged_note(not_judged: Mapping[str, NotJudged]) -> str:
    behind = [name for name, why in not_judged.items() if why == "behind"]
    names = ", ".join(f"{name} ({why})" for name, why in not_judged.items() if why != "behind")
    notes = [f"Stopped early, clearly behind when choosing: {_listed(behind)}."] if behind else []
    notes += [f"This speaks only of the arms that ran, not of {names}."] if names else []
    return " ".join(notes)


def _mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores) if scores else 0.0


def _percent(share: float) -> str:
    return f"{share * 100:.0f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
