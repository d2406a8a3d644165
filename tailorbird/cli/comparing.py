"""`tailor compare`: the plan first, then progress, then the table and the verdict."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailorbird.cli.compare_plan import plan_json, show_plan
from tailorbird.cli.durations import parse_duration
from tailorbird.cli.extras import Ablate, Curve, PricePerHour, Seeds, show_extras
from tailorbird.cli.gating import Against, FailIfWorse, FailUnder, FailUnderLow, JUnit, pass_gates, read_gates
from tailorbird.cli.history import say_since, say_warnings
from tailorbird.cli.interruption import terminating_interrupts
from tailorbird.cli.options import (
    AsJson,
    BaseModels,
    CompletionColumn,
    Documents,
    Examples,
    KeyEnv,
    PromptColumn,
    Sources,
    TestFile,
    Track,
    tracker_names,
)
from tailorbird.cli.output import kept_for_json, print_json, print_table, remark, say
from tailorbird.cli.project import project_of
from tailorbird.errors import RecipeError

if TYPE_CHECKING:
    from tailorbird.evaluation.comparison import Comparison
    from tailorbird.workbench import Forecast, Outcome, Plan, Workbench

INTERRUPTED = 130


def compare(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to compare.", show_default="tailor.toml")
    ] = None,
    examples: Examples = None,
    test: TestFile = None,
    documents: Documents = None,
    source: Sources = None,
    base: BaseModels = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help="base, few_shot, knowledge, fine_tune, from_scratch, joined with +; floors."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End within this time: 90s, 15m, 1h30m."),
    ] = None,
    budget_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", help="Spend no more: endpoints' tokens and this machine's time."),
    ] = None,
    race: Annotated[
        bool, typer.Option("--race/--no-race", help="Stop arms that are clearly behind on dev.")
    ] = True,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Take over no answers of earlier comparisons.")
    ] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of splits and training.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the comparison.")] = None,
    limit_test: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Judge on at most N test examples.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What decides, such as rouge_l, chrf, json_fields, or FILE.py:FUNCTION."
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further metric, measured beside it. Repeatable."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Ask a model, too, whose answers are better. It never changes the verdict."
        ),
    ] = None,
    judge_limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="On so many test examples at most.")
    ] = 40,
    judge_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable that holds the judge's key."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where report.html and comparison.json are put.")
    ] = None,
    price_per_hour: PricePerHour = None,
    curve: Curve = None,
    ablate: Ablate = None,
    seeds: Seeds = None,
    prompt_column: PromptColumn = None,
    completion_column: CompletionColumn = None,
    track: Track = None,
    key_env: KeyEnv = None,
    against: Against = None,
    fail_under: FailUnder = None,
    fail_under_low: FailUnderLow = None,
    fail_if_worse: FailIfWorse = False,
    junit: JUnit = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print what would be done and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try several ways on one held-out test set and say which won. Stopped, it continues when run again."""
    from tailorbird.workbench import Flags, JudgeChoice

    budget_s = parse_duration(budget, "--budget") if budget is not None else None
    if budget_cost is not None and not 0 < budget_cost < float("inf"):
        raise RecipeError(
            f"--budget-cost {budget_cost:g}: expected US dollars above 0, such as 2 or 0.50. Give more, or leave it "
            "out."
        )
    names = _arm_names(arms)
    gates = read_gates(fail_under, fail_under_low, if_worse=fail_if_worse, against=against)
    workbench = project_of(context).workbench()
    with kept_for_json(as_json):
        flags = Flags(
            examples=examples,
            test=test,
            documents=documents,
            base=base or None,
            arms=names,
            seed=seed,
            name=name,
            key_env=key_env,
            limit_test=limit_test,
            prompt_column=prompt_column,
            completion_column=completion_column,
            sources=source,
            metric=metric,
            metrics=also or None,
            price_per_hour=price_per_hour,
            curve=curve,
            ablate=ablate,
            seeds=seeds,
        )
        choice = JudgeChoice(judge, judge_limit, judge_key_env) if judge is not None else None
        plan = workbench.comparisons.plan(flags, config=config, judge=choice)
        plan = dataclasses.replace(
            plan, command=_command(), budget_s=budget_s, budget_usd=budget_cost, race=race, fresh=fresh
        )
        expected = workbench.comparisons.forecast(plan)
        show_plan(plan, expected)
        outcome = (
            None
            if plan_only
            else _run(workbench, plan, expected, out, track=tracker_names(track), against=against)
        )
    if outcome is None:
        if as_json:
            print_json(plan_json(plan, expected))
    elif as_json:
        print_json(json.loads(outcome.json.read_text(encoding="utf-8")))
    else:
        _show_outcome(outcome)
    if outcome is not None:
        with kept_for_json(as_json):
            pass_gates(gates, outcome, junit)


def _command() -> str:
    """What was typed, for the report; empty where the command line was not the program's."""
    return shlex.join(["tailor", *sys.argv[1:]])


def _arm_names(arms: str | None) -> list[str] | None:
    if arms is None:
        return None
    names = [word.strip() for word in arms.split(",") if word.strip()]
    if not names:
        raise RecipeError(f"--arms {arms!r} names no arm. Give some, as in --arms base,few_shot,fine_tune.")
    if twice := sorted({word for word in names if names.count(word) > 1}):
        raise RecipeError(f"--arms names {twice[0]!r} twice. Name every arm once.")
    return names


def _run(
    workbench: Workbench,
    plan: Plan,
    expected: Sequence[Forecast],
    out: Path | None,
    *,
    track: list[str],
    against: str | None,
) -> Outcome:
    from tailorbird.cli.progress import progress_on

    try:
        # stdout here is stderr where JSON is wanted.
        names = [arm.name for arm in plan.arms]
        with terminating_interrupts(), progress_on(sys.stdout, names) as show:
            return workbench.comparisons.run(
                plan, expected=expected, out=out, on_event=show, track=track, against=against
            )
    except KeyboardInterrupt:
        remark(f"Stopped. The next run continues where this one stopped; it is kept in {plan.folder}.")
        raise typer.Exit(INTERRUPTED) from None


def _show_outcome(outcome: Outcome) -> None:
    comparison = outcome.comparison
    say()
    print_table(*leaderboard(comparison))
    for arm in comparison.arms:
        if arm.failed:
            say(f"{arm.name} failed: {arm.failed}")
        elif arm.stopped:
            say(f"{arm.name} was stopped: {arm.stopped_why}")
    say()
    say_warnings(comparison)
    say(comparison.verdict.sentence, bold=True)
    show_extras(comparison.extras)
    say()
    if comparison.judge is not None:
        for sentence in comparison.judge.sentences():
            say(sentence)
        say()
    say_since(comparison)
    say(f"Report:  {outcome.report}")
    say(f"Numbers: {outcome.json}")
    if comparison.verdict.arm is not None:
        say('Ask that model: tailor ask winner "…"', dim=True)


def leaderboard(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The terminal's table, best first; why an arm has no score stands below it, not in a cell."""
    from tailorbird.evaluation.comparison import terminal_table

    columns, rows = terminal_table(comparison)
    short = {arm.name: "failed" if arm.failed else "stopped" for arm in comparison.arms if not arm.ran}
    paired = [
        (arm, [row[0], short[arm.name], *row[2:]] if arm.name in short else row)
        for arm, row in zip(comparison.arms, rows, strict=True)
    ]
    # Stable: equal scores keep the order in which the arms were named.
    paired.sort(key=lambda item: -1.0 if item[0].score is None else item[0].score, reverse=True)
    return columns, [row for _, row in paired]
