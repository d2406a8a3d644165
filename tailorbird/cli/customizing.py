"""`tailor customize`: one recipe applied, and the model saved under a name."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace as with_values
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailorbird.cli.estimating import estimates_json, show_estimates
from tailorbird.cli.interruption import terminating_interrupts
from tailorbird.cli.launching import launch, launched, refuse_shard_alone, told_by_first
from tailorbird.cli.options import (
    AsJson,
    BaseModel,
    CompletionColumn,
    Documents,
    Examples,
    KeyEnv,
    PromptColumn,
    Sources,
    Track,
    tracker_names,
)
from tailorbird.cli.output import kept_for_json, print_json, remark, say, size_text
from tailorbird.cli.project import project_of
from tailorbird.cli.saved import info_json
from tailorbird.errors import InputError

if TYPE_CHECKING:
    from tailorbird.workbench import ModelInfo, Plan, Workbench

INTERRUPTED = 130


def customize(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the model will be called.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A TOML file with steps and their settings.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar='"A,B"', help='Techniques in order, as in "knowledge,fine_tune".')
    ] = None,
    examples: Examples = None,
    documents: Documents = None,
    source: Sources = None,
    base: BaseModel = None,
    prompt_column: PromptColumn = None,
    completion_column: CompletionColumn = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the model of this name.")] = False,
    general_text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A plain text on which to measure what training made it forget."),
    ] = None,
    general_check: Annotated[
        bool, typer.Option(help="Measure, after training, what the model forgot; takes seconds.")
    ] = True,
    track: Track = None,
    key_env: KeyEnv = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Train in N processes on this machine, which share out every step."
        ),
    ] = None,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard", help="Share the model's layers out between the processes: each holds a part of them."
        ),
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print what training would take, probed, and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make one model and keep it. Stopped, it continues when run again."""
    from tailorbird.workbench import Columns

    if shard:
        _check_shard(processes, plan_only=plan_only)
    if launched(processes) and not plan_only:
        raise typer.Exit(launch(processes or 1))
    words = None if steps is None else [word.strip() for word in steps.split(",") if word.strip()]
    workbench = project_of(context).workbench()
    with kept_for_json(as_json), terminating_interrupts():
        plan = workbench.plan_one(
            name=name,
            steps=words,
            recipe=recipe,
            examples=examples,
            documents=documents,
            base=base,
            key_env=key_env,
            columns=Columns(prompt_column, completion_column),
            sources=source,
        )
        if plan_only:
            found = workbench.estimates(plan)
            show_estimates(found)
            shown: object = estimates_json(found)
        else:
            info = _run(
                workbench,
                with_values(plan, shard=shard),
                tracker_names(track),
                general_text,
                checked=general_check,
                overwrite=replace,
            )
            shown = info_json(info)
            if not told_by_first():
                return
            _show(info)
    if as_json:
        print_json(shown)


def _check_shard(processes: int | None, *, plan_only: bool) -> None:
    if plan_only:
        raise InputError(
            "--plan counts for one process that holds the whole model; with --shard a training says what each holds "
            "when it starts. Leave one of the two out."
        )
    refuse_shard_alone(processes)


def _run(
    workbench: Workbench,
    plan: Plan,
    track: list[str],
    general_text: Path | None,
    *,
    checked: bool,
    overwrite: bool,
) -> ModelInfo:
    from tailorbird.cli.progress import progress_on
    from tailorbird.workbench import GeneralCheck

    try:
        with progress_on(sys.stdout, [plan.name]) if told_by_first() else nullcontext() as show:
            return workbench.customize(
                plan,
                on_event=show,
                overwrite=overwrite,
                track=track,
                check=GeneralCheck(wanted=checked, text=general_text if checked else None),
            )
    except KeyboardInterrupt:
        remark("Stopped. The same command continues where this one stopped.")
        raise typer.Exit(INTERRUPTED) from None


def _show(info: ModelInfo) -> None:
    say(f"Made {info.id}: {info.recipe} on {info.base} ({size_text(info.size_bytes)}), kept in {info.folder}")
    if info.report:
        say(f"How it was trained: {info.report}")
    say(f'Ask it: tailor ask {info.id} "…"', dim=True)
