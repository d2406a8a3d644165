"""A comparison against an earlier one: what a change of data, base or settings did to every arm.

Arms of one name are paired by example, on the test examples that both runs share: the same id and the same
expected completion. Examples that only one run has are reported apart, for they say nothing about the change. Where
no example is shared, or the earlier answers are not at hand, whole test sets are compared as independent ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tailorbird.data.problems import plural
from tailorbird.errors import InputError
from tailorbird.evaluation.comparison import ArmResult, Comparison, percent, points
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.evaluation.statistics import Interval, holm, paired_interval, paired_p_value
from tailorbird.evaluation.unpaired import mean_interval, unpaired_interval, unpaired_p_value
from tailorbird.evaluation.verdict import ALPHA, Difference

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an arm: its score then and now, and the difference, now minus then.

    With `paired`, `then` and `now` are of the `num` shared examples, and `then_others` and `now_others` of the
    examples that only one run has, None where there are none; else `then` and `now` are of whole test sets. `arm_then`
    is the earlier arm, of the same name but where two recommendations are compared.
    """

    arm: str
    arm_then: str
    paired: bool
    num: int
    then: Interval
    now: Interval
    difference: Difference
    then_others: Interval | None = None
    now_others: Interval | None = None

    @property
    def kind(self) -> str:
        """`better`, `worse`, or `unclear` where the difference may be chance."""
        if self.difference.p_adjusted >= ALPHA:
            return "unclear"
        return "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True)
class Against:
    """A comparison held against an earlier one.

    `num_relabelled` counts test messages that expect something else now; they are among the removed and added
    no more. `changes` are of arms that both runs measured, `recommended` of what each run says to use: the same
    arm, or two. `what_changed` are sentences.
    """

    run: str
    date: str
    paired: bool
    why_unpaired: str
    num_shared: int
    num_added: int
    num_removed: int
    num_relabelled: int
    changes: tuple[Change, ...]
    recommended: Change | None
    missing: tuple[str, ...]
    new: tuple[str, ...]
    what_changed: tuple[str, ...]

    def change(self, arm: str) -> Change | None:
        """What became of the arm of this name; None where one of the runs did not measure it."""
        return next((change for change in self.changes if change.arm == arm), None)

    def to_json(self) -> dict[str, Any]:
        """As `comparison.json` holds it, with the sentences that a shell shows."""
        return {**asdict(self), "sentences": sentences(self)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Against:
        """Reads what `to_json` gave."""
        values: dict[str, Any] = {name: row[name] for name in cls.__dataclass_fields__}
        values |= {name: tuple(row[name]) for name in ("missing", "new", "what_changed")}
        values["changes"] = tuple(_change_from_json(change) for change in row["changes"])
        values["recommended"] = row["recommended"] and _change_from_json(row["recommended"])
        return cls(**values)


def check_comparable(earlier: Comparison, metric: str, run: str) -> None:
    """Raises where scores of the earlier run mean something else.

    Raises:
        InputError: the earlier run was judged by another metric, and did not measure this one.
    """
    if earlier.metric == metric:
        return
    measured = {
        name for found in earlier.evaluations.values() for row in found.rows[:1] for name in row.scores
    }
    if metric not in measured:
        raise InputError(
            f"--against {run}: that run was judged by {earlier.metric}, and this comparison is by {metric}, which it "
            "did not measure. Name a run of the same metric, or set metric in tailor.toml."
        )


def against(
    earlier: Comparison,
    now: Comparison,
    *,
    run: str,
    date: str = "",
    what_changed: Sequence[str] = (),
    seed: int = 0,
) -> Against:
    """Holds a comparison against an earlier one.

    Args:
        earlier: with its answers where they are at hand; without, its scores and intervals are used.
        now: with its answers.
        run: the earlier run's name.
        date: when the earlier run was finished.
        what_changed: sentences from `changes.what_changed`.
        seed: of the resampling.

    Raises:
        InputError: the runs were judged by different metrics.
    """
    check_comparable(earlier, now.metric, run)
    tests = _Tests.of(_any_rows(earlier), _any_rows(now))
    why = _why_unpaired(earlier, tests)
    pairs = [
        (arm, then)
        for arm in now.arms
        if arm.ran
        for then in earlier.arms
        if then.ran and then.name == arm.name
    ]
    holder = _Holder(earlier, now, frozenset(tests.shared) if not why else frozenset(), seed)
    changes = [holder.change(then, arm) for arm, then in pairs]
    adjusted = holm([change.difference.p for change in changes])
    return Against(
        run=run,
        date=date,
        paired=not why,
        why_unpaired=why,
        num_shared=len(tests.shared),
        num_added=tests.num_added,
        num_removed=tests.num_removed,
        num_relabelled=tests.num_relabelled,
        changes=tuple(
            replace(c, difference=replace(c.difference, p_adjusted=p))
            for c, p in zip(changes, adjusted, strict=True)
        ),
        recommended=holder.recommended(),
        missing=_names(earlier, {arm.name for arm in now.arms if arm.ran}),
        new=_names(now, {arm.name for arm in earlier.arms if arm.ran}),
        what_changed=tuple(what_changed),
    )


def sentences(found: Against) -> list[str]:
    """What a shell says of it: on what, every arm, what is missing; what changed is told apart."""
    told = [_on_what(found)]
    told += [_change_sentence(change) for change in found.changes]
    recommended = found.recommended
    if recommended is not None and recommended.arm != recommended.arm_then:
        told.append(
            f"{recommended.arm} is recommended now, {recommended.arm_then} was: {_then_to_now(recommended)}."
        )
    if found.missing:
        told.append(f"Not measured this time: {', '.join(found.missing)}.")
    if found.new:
        told.append(f"Not measured then: {', '.join(found.new)}.")
    if not found.changes:
        told.append("No arm was measured in both runs.")
    return told


def _on_what(found: Against) -> str:
    if not found.paired:
        return f"{found.why_unpaired} Whole test sets are compared, which tells less than the same examples would."
    others = {
        "only in this run": found.num_added,
        "only in the earlier": found.num_removed,
        "relabelled": found.num_relabelled,
    }
    rest = ", ".join(f"{count:,} {word}" for word, count in others.items() if count)
    shared = f"On the {plural(found.num_shared, 'test example')} that both runs have"
    return f"{shared} ({rest} left out):" if rest else f"{shared}:"


def _change_sentence(change: Change) -> str:
    told = f"{change.arm}: {_then_to_now(change)}"
    apart = [
        f"{percent(score.mean)} % on those only in {run}"
        for score, run in ((change.now_others, "this run"), (change.then_others, "the earlier"))
        if score is not None
    ]
    return f"{told}; {', '.join(apart)}." if apart else f"{told}."


def _then_to_now(change: Change) -> str:
    difference = change.difference
    kinds = {"better": "clearly better", "worse": "clearly worse", "unclear": "no clear change"}
    between = f"{points(difference.low)} to {points(difference.high)}"
    return (
        f"{percent(change.then.mean)} → {percent(change.now.mean)} %, {points(difference.mean)} points ({between}), "
        f"{kinds[change.kind]}"
    )


@dataclass(frozen=True)
class _Tests:
    """How two test sets overlap."""

    shared: tuple[Key, ...]
    num_added: int
    num_removed: int
    num_relabelled: int

    @classmethod
    def of(cls, then: Sequence[Row], now: Sequence[Row]) -> _Tests:
        before, after = {_key(row): row for row in then}, {_key(row): row for row in now}
        added = {row.question for key, row in after.items() if key not in before}
        removed = {row.question for key, row in before.items() if key not in after}
        shared = tuple(key for key in after if key in before)
        relabelled = len(added & removed)
        num_added, num_removed = len(after) - len(shared), len(before) - len(shared)
        return cls(shared, num_added - relabelled, num_removed - relabelled, relabelled)


@dataclass(frozen=True)
class _Holder:
    """Holds arms against each other, on the shared examples where there are some."""

    earlier: Comparison
    later: Comparison
    shared: frozenset[Key]
    seed: int

    def change(self, then: ArmResult, now: ArmResult) -> Change:
        if not self.shared:
            return self._unpaired(then, now)
        before = {_key(row): row for row in self.earlier.evaluations[then.name].rows}
        rows = self.later.evaluations[now.name].rows
        same = Evaluation(tuple(row for row in rows if _key(row) in self.shared))
        same_then = Evaluation(tuple(before[_key(row)] for row in same.rows))
        metric, groups = self.later.metric, same.groups
        a, b = same.scores(metric), same_then.scores(metric)
        found = paired_interval(a, b, groups=groups)
        p = paired_p_value(a, b, groups=groups, seed=self.seed)
        return Change(
            arm=now.name,
            arm_then=then.name,
            paired=True,
            num=len(a),
            then=mean_interval(b, groups=groups),
            now=mean_interval(a, groups=groups),
            difference=Difference(found.mean, found.low, found.high, p, p),
            then_others=self._others(tuple(before.values())),
            now_others=self._others(rows),
        )

    def recommended(self) -> Change | None:
        """What is recommended now against what was recommended then; None where a run recommends nothing."""
        arms = [_measured(run, run.verdict.arm) for run in (self.earlier, self.later)]
        return None if arms[0] is None or arms[1] is None else self.change(arms[0], arms[1])

    def _unpaired(self, then: ArmResult, now: ArmResult) -> Change:
        before, after = self._whole(self.earlier, then), self._whole(self.later, now)
        found = unpaired_interval(after, before)
        p = unpaired_p_value(found)
        difference = Difference(found.mean, found.low, found.high, p, p)
        return Change(now.name, then.name, False, self.later.num_test, before, after, difference)

    def _whole(self, run: Comparison, arm: ArmResult) -> Interval:
        if arm.name in run.evaluations:
            answers = run.evaluations[arm.name]
            return mean_interval(answers.scores(self.later.metric), groups=answers.groups)
        assert arm.score is not None
        assert arm.low is not None
        assert arm.high is not None
        return Interval(arm.score, arm.low, arm.high)

    def _others(self, rows: Sequence[Row]) -> Interval | None:
        rest = Evaluation(tuple(row for row in rows if _key(row) not in self.shared))
        if not rest.rows:
            return None
        return mean_interval(rest.scores(self.later.metric), groups=rest.groups)


def _why_unpaired(earlier: Comparison, tests: _Tests) -> str:
    if not earlier.evaluations:
        return "The answers of the earlier run are not at hand."
    return "" if tests.shared else "The runs share no test example."


def _names(run: Comparison, known: set[str]) -> tuple[str, ...]:
    return tuple(arm.name for arm in run.arms if arm.ran and arm.name not in known)


def _measured(run: Comparison, name: str | None) -> ArmResult | None:
    return next((arm for arm in run.arms if arm.name == name and arm.ran), None)


def _any_rows(run: Comparison) -> Sequence[Row]:
    """The rows of one arm: all arms of a run have the same examples."""
    return next(iter(run.evaluations.values())).rows if run.evaluations else ()


def _key(row: Row) -> Key:
    return row.example_id, row.expected


def _change_from_json(row: Mapping[str, Any]) -> Change:
    values: dict[str, Any] = {**row, "difference": Difference(**row["difference"])}
    for name in ("then", "now", "then_others", "now_others"):
        values[name] = row[name] and Interval(**row[name])
    return Change(**values)
