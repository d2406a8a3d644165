"""`tailor metaprompt`: what a model is told and shown before every request, read, edited and compared."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.options import AsJson, read_setting
from tailorbird.cli.output import kept_for_json, print_json, say
from tailorbird.cli.project import project_of
from tailorbird.errors import InputError, NotFound

if TYPE_CHECKING:
    from tailorbird.workbench import KeptMetaprompt

metaprompt = typer.Typer(
    help="Show, edit and compare what is put before every request.", no_args_is_help=True
)

EXAMPLE = "k=3 or instruction='Sort the mail.'"

Name = Annotated[str, typer.Argument(metavar="MODEL", help="As `tailor models list` gives it.")]


@metaprompt.command()
def show(
    context: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Option(metavar="N", help="An earlier version.")] = None,
    message: Annotated[
        str | None, typer.Option("--for", metavar="TEXT", help="Show what the weights see of this message.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a model's metaprompt, as the file that `edit` takes."""
    metaprompts = project_of(context).workbench().metaprompts
    if message is not None:
        if version is not None:
            raise InputError("--for shows the present version. Leave --version out.")
        with kept_for_json(as_json):
            turns = metaprompts.shown(name, message)
        if as_json:
            print_json([{"role": turn.role, "content": turn.content} for turn in turns])
            return
        for turn in turns:
            say(f"{turn.role}:", dim=True)
            say(turn.content)
        return
    kept = metaprompts.read(name)
    if as_json:
        print_json(_json(kept, version))
    else:
        say(kept.text(version).rstrip())


@metaprompt.command()
def edit(
    context: typer.Context,
    name: Name,
    *,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The edited file; without it your editor opens.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one value, such as k=3; may be given several times."
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="Start from an earlier version.")] = None,
    as_name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Save the edited one as a new model.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new version, measured again; the one before is kept."""
    metaprompts = project_of(context).workbench().metaprompts
    kept = metaprompts.read(name)
    text = kept.text(version)
    if file is not None and settings:
        raise InputError("--file and --set: give one of the two.")
    if settings:
        text = kept.with_settings(dict(read_setting(text, EXAMPLE) for text in settings), version)
    elif file is not None:
        text = _read(file)
    elif version is None:
        text = _in_editor(text)
    with kept_for_json(as_json):
        kept = metaprompts.edit(name, text, as_name=as_name)
    if as_json:
        print_json(_json(kept, None))
        return
    say(f"{kept.model}: version {kept.version}. {_score(kept.facts())}")
    before = _score(kept.facts(kept.version - 1))
    say(f"Version {kept.version - 1}: {before}", dim=True)
    say(f"What changed: tailor metaprompt diff {kept.model}", dim=True)


@metaprompt.command()
def diff(
    context: typer.Context,
    name: Name,
    old: Annotated[int | None, typer.Option("--from", metavar="N", help="The earlier version.")] = None,
    new: Annotated[int | None, typer.Option("--to", metavar="N", help="The later version.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions, by default the last two."""
    found = project_of(context).workbench().metaprompts.read(name).difference(old, new)
    if as_json:
        print_json({"model": name, "diff": found})
    else:
        say(found.rstrip() or "No difference.")


def _json(kept: KeptMetaprompt, version: int | None) -> dict[str, Any]:
    return {"model": kept.model, "versions": kept.version, "metaprompt": kept.facts(version)}


def _score(facts: dict[str, Any]) -> str:
    measured = facts.get("measured", {})
    if "score" not in measured:
        return "not measured"
    return (
        f"{measured['metric']} {measured['score'] * 100:.1f} % ({measured['low'] * 100:.1f} to "
        f"{measured['high'] * 100:.1f} %) on {measured['examples']} dev examples"
    )


def _read(file: Path) -> str:
    if not file.is_file():
        raise NotFound(f"{file}: no such file. `tailor metaprompt show MODEL > FILE` writes one to edit.")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error}). Save it as UTF-8 text.") from error


def _in_editor(text: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise InputError(
            "metaprompt edit: no editor is set in $VISUAL or $EDITOR. Give --set KEY=VALUE, or --file FILE with a file "
            "that `tailor metaprompt show MODEL > FILE` wrote."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metaprompt.toml"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)  # noqa: S603 - the user's own editor
        if done.returncode:
            raise InputError(
                f"metaprompt edit: {editor!r} ended with {done.returncode}. Nothing was changed."
            )
        return _read(path)
