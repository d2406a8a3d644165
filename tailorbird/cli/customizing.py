"""`tailor customize`: one recipe applied, and the model saved under a name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tailorbird.cli.options import (
    AsJson,
    BaseModel,
    CompletionColumn,
    Documents,
    Examples,
    KeyEnv,
    PromptColumn,
)
from tailorbird.cli.output import kept_for_json, print_json, remark, say, size_text
from tailorbird.cli.project import project_of
from tailorbird.cli.saved import info_json

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
    base: BaseModel = None,
    prompt_column: PromptColumn = None,
    completion_column: CompletionColumn = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the model of this name.")] = False,
    key_env: KeyEnv = None,
    as_json: AsJson = False,
) -> None:
    """Make one model and keep it."""
    from tailorbird.workbench import Columns

    words = None if steps is None else [word.strip() for word in steps.split(",") if word.strip()]
    workbench = project_of(context).workbench()
    with kept_for_json(as_json):
        from tailorbird.cli.progress import progress_on

        try:
            with progress_on(sys.stdout, [name]) as show:
                info = workbench.customize(
                    name=name,
                    steps=words,
                    recipe=recipe,
                    examples=examples,
                    documents=documents,
                    base=base,
                    key_env=key_env,
                    columns=Columns(prompt_column, completion_column),
                    on_event=show,
                    replace=replace,
                )
        except KeyboardInterrupt:
            remark("Stopped. The next run continues where this one stopped.")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(info_json(info))
        return
    say(f"Made {info.id}: {info.recipe} on {info.base} ({size_text(info.size_bytes)}), kept in {info.folder}")
    say(f'Ask it: tailor ask {info.id} "…"', dim=True)
