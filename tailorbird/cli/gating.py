"""The gates of `tailor compare` for continuous integration: what fails a build, and the file that tells why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailorbird.cli.output import remark, say
from tailorbird.data.storage import write_atomic
from tailorbird.errors import InputError

if TYPE_CHECKING:
    from tailorbird.workbench import Gates, Outcome

GATE_FAILED = 3

Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="RUN",
        help="Hold it against an earlier run: LAST, a run's name, a comparison.json.",
    ),
]
FailUnder = Annotated[
    str | None,
    typer.Option(
        "--fail-under", metavar="SHARE", help="Exit with 3 where the recommended arm scores less: 0.8 or 80%."
    ),
]
FailUnderLow = Annotated[
    str | None,
    typer.Option(
        "--fail-under-low",
        metavar="SHARE",
        help="Exit with 3 where the lower bound of its 95 % interval is less.",
    ),
]
FailIfWorse = Annotated[
    bool,
    typer.Option(
        "--fail-if-worse", help="Exit with 3 where it is clearly worse than in the run of --against."
    ),
]
JUnit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, one test case an arm.")
]


def read_gates(under: str | None, under_low: str | None, *, if_worse: bool, against: str | None) -> Gates:
    """The gates that the command line names.

    Raises:
        InputError: a share is none, or there is no run that it could be worse than.
    """
    from tailorbird.workbench import Gates

    if if_worse and against is None:
        raise InputError("--fail-if-worse: worse than what? Name the earlier run with --against LAST.")
    return Gates(
        under=None if under is None else read_share(under, "--fail-under"),
        under_low=None if under_low is None else read_share(under_low, "--fail-under-low"),
        if_worse=if_worse,
    )


def read_share(text: str, option: str) -> float:
    """A share of 1, written as one or in percent.

    >>> read_share("80%", "--fail-under"), read_share("0.8", "--fail-under")
    (0.8, 0.8)

    Raises:
        InputError: it is none.
    """
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"{option} {text!r}: expected a share from 0 to 1, such as 0.8, or from 0% to 100%.")
    return share


def pass_gates(gates: Gates, outcome: Outcome, junit: Path | None) -> None:
    """Writes the JUnit file, says what became of every gate, and leaves with `GATE_FAILED` where one wasn't passed."""
    from tailorbird.workbench import judge_gates, junit_xml

    results = judge_gates(gates, outcome.comparison)
    if junit is not None:
        write_atomic(junit, junit_xml(outcome.comparison, results, outcome.name))
    for result in results:
        if result.passed:
            say(f"Gate passed: {result.sentence}")
        else:
            remark(f"Gate failed: {result.sentence}")
    if not all(result.passed for result in results):
        raise typer.Exit(GATE_FAILED)
