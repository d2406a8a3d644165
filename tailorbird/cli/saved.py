"""`tailor models`: what can be asked, and what customizing has saved."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.options import AsJson
from tailorbird.cli.output import is_terminal, print_json, print_table, say, size_text
from tailorbird.cli.project import project_of
from tailorbird.errors import InputError, NotFound

if TYPE_CHECKING:
    from tailorbird.workbench import ModelInfo, Workbench

models = typer.Typer(help="List, show and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `tailor models list` gives it.")]


@models.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List every model that can be asked by name."""
    found = project_of(context).workbench().models()
    if as_json:
        print_json([info_json(info) for info in found])
        return
    columns = ["model", "origin", "base", "recipe", "score", "size", "made"]
    print_table(columns, [_row(info) for info in found])


@models.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show where a model comes from and where it lies."""
    info = _find(project_of(context).workbench(), name)
    if as_json:
        print_json(info_json(info))
        return
    for label, value in zip(
        ("model", "origin", "base", "recipe", "score", "size", "made"), _row(info), strict=True
    ):
        if value:
            say(f"{label:<8}{value}")
    if info.folder:
        say(f"{'folder':<8}{info.folder}")
    if info.report:
        say(f"{'training':<8} {info.report}")


@models.command()
def remove(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a saved model from the disk."""
    workbench = project_of(context).workbench()
    info = _find(workbench, name)
    if not yes:
        _confirm(info)
    workbench.remove_model(name)
    if as_json:
        print_json({"removed": name})
    else:
        say(f"Removed {name}.")


def info_json(info: ModelInfo) -> dict[str, Any]:
    """What `tailor models list --json` says of one model."""
    paths = {"folder": info.folder, "report": info.report}
    return {**asdict(info), **{key: str(path) if path else None for key, path in paths.items()}}


def _find(workbench: Workbench, name: str) -> ModelInfo:
    known = workbench.models()
    for info in known:
        if info.id == name:
            return info
    names = ", ".join(info.id for info in known) or "none"
    raise NotFound(f"model {name!r}: there is no model of this name. There are: {names}.")


def _confirm(info: ModelInfo) -> None:
    if not is_terminal(sys.stdin):
        raise InputError(f"models remove {info.id}: nobody can be asked here. Add --yes to delete it.")
    if not typer.confirm(f"Delete {info.id} ({size_text(info.size_bytes)}) for good?"):
        raise typer.Exit(1)


def _row(info: ModelInfo) -> list[str]:
    made = (
        datetime.fromtimestamp(info.created).astimezone().strftime("%Y-%m-%d %H:%M") if info.created else ""
    )
    score = f"{info.score * 100:.1f} %" if info.score is not None else ""
    size = size_text(info.size_bytes) if info.size_bytes else ""
    return [info.id, info.origin, info.base, info.recipe, score, size, made]
