"""Gates for continuous integration: what a comparison must reach to pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tailorbird.evaluation.against import Against, Change
from tailorbird.evaluation.comparison import ArmResult, Comparison, percent, points
from tailorbird.evaluation.statistics import holm
from tailorbird.evaluation.verdict import ALPHA


@dataclass(frozen=True, slots=True)
class Gates:
    """What the arm that the verdict says to use must reach.

    `under` is the least score, `under_low` the least lower bound of its 95 % interval, both in [0, 1]. With
    `if_worse` it must not be worse than in the run that the comparison is held against.
    """

    under: float | None = None
    under_low: float | None = None
    if_worse: bool = False

    @property
    def any(self) -> bool:
        """Whether there is anything to reach."""
        return self.under is not None or self.under_low is not None or self.if_worse


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether one gate was passed, by which arm, and why; `arm` is empty where there was none to judge."""

    gate: str
    arm: str
    passed: bool
    sentence: str


def judge(gates: Gates, comparison: Comparison) -> list[GateResult]:
    """What became of every gate.

    Not worse means: neither the recommended arm against itself in the earlier run, nor what is recommended now
    against what was recommended then, is significantly worse (p < .05, by Holm where these are two) by more than
    the comparison's margin. A gate that can't be judged is not passed.

    Args:
        gates: what must be reached.
        comparison: what was found, with `against` where a gate needs it.
    """
    return list(_judged(gates, comparison))


def _judged(gates: Gates, comparison: Comparison) -> Iterator[GateResult]:
    arm = next((arm for arm in comparison.arms if arm.name == comparison.verdict.arm and arm.ran), None)
    if gates.under is not None:
        yield _reached("fail-under", arm, "score", arm and arm.score, gates.under)
    if gates.under_low is not None:
        yield _reached("fail-under-low", arm, "lower bound", arm and arm.low, gates.under_low)
    if gates.if_worse:
        yield _not_worse(arm, comparison)


def _reached(gate: str, arm: ArmResult | None, what: str, found: float | None, wanted: float) -> GateResult:
    if arm is None or found is None:
        sentence = f"--{gate} {percent(wanted)}%: no arm was measured that could be held against it."
        return GateResult(gate, "", passed=False, sentence=sentence)
    passed = found >= wanted - 1e-12
    relation = "reaches" if passed else "is below"
    sentence = f"--{gate} {percent(wanted)}%: the {what} of {arm.name}, {percent(found)} %, {relation} it."
    return GateResult(gate, arm.name, passed, sentence)


def _not_worse(arm: ArmResult | None, comparison: Comparison) -> GateResult:
    gate = "fail-if-worse"
    held = Against.from_json(comparison.against) if comparison.against else None
    changes = _held(arm, held) if arm is not None and held is not None else []
    if arm is None or held is None or not changes:
        sentence = f"--{gate}: there is no earlier score that the recommended arm could be held against."
        return GateResult(gate, arm.name if arm else "", passed=False, sentence=sentence)
    adjusted = holm([change.difference.p for change in changes])
    margin = f"{comparison.margin * 100:g} points"
    for change, p in zip(changes, adjusted, strict=True):
        if p < ALPHA and change.difference.mean < -comparison.margin:
            sentence = (
                f"--{gate}: {_told(change)} is clearly worse than in {held.run}, by more than {margin}."
            )
            return GateResult(gate, arm.name, passed=False, sentence=sentence)
    told = "; ".join(_told(change) for change in changes)
    sentence = f"--{gate}: {told} is not clearly worse than in {held.run} by more than {margin}."
    return GateResult(gate, arm.name, passed=True, sentence=sentence)


def _held(arm: ArmResult, held: Against) -> list[Change]:
    found = [held.change(arm.name)]
    if held.recommended is not None and held.recommended.arm_then != arm.name:
        found.append(held.recommended)
    return [change for change in found if change is not None]


def _told(change: Change) -> str:
    difference = change.difference
    then = "" if change.arm_then == change.arm else f" (then {change.arm_then})"
    between = f"{points(difference.low)} to {points(difference.high)}"
    return f"{change.arm}{then}, {points(difference.mean)} points ({between}),"
