"""What `tailor compare` says before it runs: arms, data, about how long it takes, and what can be told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tailorbird.cli.durations import clock_time
from tailorbird.cli.output import say

if TYPE_CHECKING:
    from tailorbird.workbench import Forecast, Plan


def plan_json(plan: Plan, expected: Sequence[Forecast]) -> dict[str, Any]:
    """What `tailor compare --plan --json` prints."""
    from tailorbird.evaluation.comparison import minimum_detectable

    data = plan.data
    return {
        "name": plan.name,
        "base": plan.base,
        "bases": {base.name: base.reference for base in plan.bases},
        "task": {
            "kind": plan.task.kind,
            "instruction": plan.task.instruction,
            "labels": list(plan.task.labels),
        },
        "arms": [
            {
                "name": arm.name,
                "floor": arm.floor,
                "base": plan.base_of(arm).reference if arm.on_base else None,
                "make_s": round(each.make_s, 1),
                "answers_s": round(each.answers_s, 1),
                "cost": each.cost,
                "known": each.known,
                "timed": each.timed,
            }
            for arm, each in zip(plan.arms, expected, strict=True)
        ],
        "expected_s": round(sum(each.seconds for each in expected), 1),
        "expected_cost": sum(each.cost for each in expected),
        "minimum_detectable_difference": minimum_detectable(len(plan.data.test)),
        "num_train": len(data.train),
        "num_dev": len(data.dev),
        "num_test": len(data.test),
        "documents": str(data.documents) if data.documents else None,
        "sources": plan.sources,
        "metric": plan.metric,
        "metrics": list(plan.measured),
        "judge": plan.judge and plan.judge.reference,
        "seed": plan.seed,
        "budget_s": plan.budget_s,
        "budget_usd": plan.budget_usd,
        "extras": dataclasses.asdict(plan.extras),
        "price_per_hour": plan.price_per_hour,
        "folder": str(plan.folder),
        "notes": list(plan.notes),
    }


def show_plan(plan: Plan, expected: Sequence[Forecast]) -> None:
    """Prints what will be done, about how long it takes, and what this test set can tell apart."""
    from tailorbird.evaluation.comparison import minimum_detectable

    data, task = plan.data, plan.task
    kind = f"choosing one of {len(task.labels)} labels" if task.kind == "classify" else "free answers"
    facts = {
        "task": f"{kind}, judged by {plan.metric}",
        "base": _bases(plan),
        "arms": ", ".join(arm.name for arm in plan.arms),
        "examples": f"{len(data.train)} to learn from, {len(data.dev)} to choose, {len(data.test)} to test",
    }
    facts["can tell"] = (
        f"differences of about {100 * minimum_detectable(len(data.test)):.0f} points or more, mostly, with "
        f"{len(data.test)} test examples"
    )
    if data.documents:
        facts["documents"] = str(data.documents)
    if plan.sources:
        facts["asked live"] = ", ".join(plan.sources)
    if plan.judge is not None:
        facts["judge"] = f"{plan.judge.reference}, on {plan.judge.limit} test examples at most"
    if plan.budget_s is not None:
        facts["budget"] = f"ends within {clock_time(plan.budget_s)}"
    if plan.budget_usd is not None:
        facts["cost"] = f"at most ${plan.budget_usd:g}"
    if plan.extras:
        facts["afterwards"] = f"{plan.extras.told}: up to {plan.extras.most} further models"
    say(f"Comparing {len(plan.arms)} arms on {plan.name}", bold=True)
    facts["takes"] = _takes(expected)
    for label, value in facts.items():
        say(f"  {label:<11}{value}")
    for problem in plan.problems:
        if problem.severity == "error":
            say(f"  {'beware':<11}{problem}", bold=True)
    for note in plan.notes:
        say(f"  {'note':<11}{note}", dim=True)
    say()


def _bases(plan: Plan) -> str:
    """The one base, or several with the names that arms have them under."""
    if len(plan.bases) == 1:
        return plan.base
    return ", ".join(b.name if b.name == b.reference else f"{b.name} ({b.reference})" for b in plan.bases)


def _takes(expected: Sequence[Forecast]) -> str:
    """The sum, and the arms that take most of it; arms that are clearly behind are stopped earlier."""
    from tailorbird.evaluation.comparison import money

    total, cost = sum(each.seconds for each in expected), sum(each.cost for each in expected)
    dear = sorted((e for e in expected if e.seconds > total / 10), key=lambda e: -e.seconds)
    most = ", ".join(f"{each.arm} {clock_time(each.seconds)}" for each in dear)
    told = f"about {clock_time(total)} at most, {money(cost)}"
    if len(expected) > 1 and most:
        told += f": {most}"
    if untimed := [each.arm for each in expected if not each.timed]:
        told += f"; without {', '.join(untimed)}, whose answers can't be timed beforehand"
    return told
