"""`tailor init` and `tailor check`: a project's folder and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tailorbird.cli.masks import show_mask
from tailorbird.cli.options import AsJson, CompletionColumn, Documents, PromptColumn, TestFile
from tailorbird.cli.output import kept_for_json, print_json, say
from tailorbird.cli.project import Project, project_of


def init(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Made if it is not there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project: a folder with a commented tailor.toml."""
    project = project_of(context) if folder is None else Project(folder)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    written = project.workbench().init()
    if as_json:
        print_json({"config": str(written), "folder": str(project.folder)})
        return
    say(f"Wrote {written}")
    inside = "" if project.folder.resolve() == Path.cwd() else f"cd {project.folder} && "
    say(f"Name your files in it, then: {inside}tailor compare", dim=True)


def check(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Examples: JSONL, JSON, CSV, TSV or Parquet, or one in gzip."),
    ],
    *,
    documents: Documents = None,
    test: TestFile = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="Count tokens with this model's tokenizer; else estimated."
        ),
    ] = None,
    prompt_column: PromptColumn = None,
    completion_column: CompletionColumn = None,
    mask: Annotated[
        bool, typer.Option("--mask", help="Show training examples token by token, and what carries loss.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=1, help="So many examples with --mask.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Report what is in a file of examples and what is wrong with it; exit 1 if it can't be trained on."""
    from tailorbird.workbench import Columns

    with kept_for_json(as_json):
        workbench = project_of(context).workbench()
        columns = Columns(prompt_column, completion_column)
        report = workbench.check(file, documents=documents, test=test, base=base, columns=columns)
        preview = (
            workbench.mask(file, base, num_rows=rows, columns=columns) if mask and report.trainable else None
        )
    if as_json:
        print_json(report.to_json() | ({"mask": preview.to_json() if preview else None} if mask else {}))
    else:
        say(report.to_text(), end="")
        if preview:
            show_mask(preview)
    if not report.trainable:
        raise typer.Exit(1)
