"""`tailor runs`: the comparisons that a project keeps."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.comparing import leaderboard
from tailorbird.cli.history import say_since, say_warnings
from tailorbird.cli.options import AsJson
from tailorbird.cli.output import is_terminal, print_json, print_table, say
from tailorbird.cli.project import project_of
from tailorbird.errors import InputError

if TYPE_CHECKING:
    from tailorbird.workbench import RunInfo

runs = typer.Typer(help="List, show and remove comparisons.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="RUN", help="As `tailor runs list` gives it, or LAST.")]


@runs.command("list")
def list_runs(context: typer.Context, as_json: AsJson = False) -> None:
    """List every comparison that is kept here, the newest first."""
    found = project_of(context).workbench().comparisons.history.runs()
    if as_json:
        print_json([run_json(info) for info in found])
    elif found:
        print_table(
            ["run", "date", "base", "test", "verdict", "best", "95 % interval"], [_row(i) for i in found]
        )
    else:
        say("No comparison is kept here. `tailor compare` makes one.")


@runs.command()
def show(context: typer.Context, run: Name, as_json: AsJson = False) -> None:
    """Show a comparison's leaderboard and verdict again, and where its report is."""
    history = project_of(context).workbench().comparisons.history
    info, comparison = history.run(run), history.comparison(run)
    if as_json:
        print_json({**run_json(info), "comparison": comparison.to_json()})
        return
    say(f"{info.name}, {_date(info)}, {info.num_test} test examples, base {info.base}", bold=True)
    say()
    print_table(*leaderboard(comparison))
    say()
    say_warnings(comparison)
    say(comparison.verdict.sentence, bold=True)
    say()
    say_since(comparison)
    say(f"Report:  {info.report or 'deleted; run the same `tailor compare` again to draw it'}")
    say(f"Numbers: {info.folder / 'comparison.json'}")


@runs.command()
def remove(
    context: typer.Context,
    run: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even the last one, whose arms `winner` and their names open.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a comparison with its answers and models. Which test sets it opened stays known."""
    history = project_of(context).workbench().comparisons.history
    info = history.run(run)
    if not yes and not (info.is_last and not force):
        _confirm(info)
    history.remove(info.name, force=force)
    if as_json:
        print_json({"removed": info.name})
    else:
        say(f"Removed {info.name}.")


def run_json(info: RunInfo) -> dict[str, Any]:
    """What `tailor runs list --json` says of one run; dates are in seconds since 1970."""
    return {**asdict(info), "folder": str(info.folder), "report": str(info.report) if info.report else None}


def _confirm(info: RunInfo) -> None:
    if not is_terminal(sys.stdin):
        raise InputError(f"runs remove {info.name}: nobody can be asked here. Add --yes to delete it.")
    if not typer.confirm(f"Delete {info.name}, its answers and its models for good?"):
        raise typer.Exit(1)


def _row(info: RunInfo) -> list[str]:
    verdict = f"{info.verdict} {info.arm or ''}".strip() or "not finished"
    score = between = ""
    if info.score is not None and info.low is not None and info.high is not None:
        score = f"{info.best} {info.score * 100:.1f} %"
        between = f"{info.low * 100:.1f} to {info.high * 100:.1f}"
    name = f"{info.name} ←" if info.is_last else info.name
    size = "" if info.num_test is None else str(info.num_test)
    return [name, _date(info), info.base, size, verdict, score, between]


def _date(info: RunInfo) -> str:
    return datetime.fromtimestamp(info.date).astimezone().strftime("%Y-%m-%d %H:%M")
