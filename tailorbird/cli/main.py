"""The command `tailor`: its options, its exit codes, and how errors are told.

Exit codes: 0 done; 1 the data cannot be trained on (`check`), something needed is missing
(`doctor`), or the user said no; 2 a user's error; 3 a gate of `compare` was not passed;
70 a defect of Tailorbird; 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from tailorbird.cli import (
    asking,
    comparing,
    customizing,
    data,
    doctor,
    exporting,
    knowledge_asking,
    metaprompting,
    runs,
    saved,
    serving,
)
from tailorbird.cli.output import remark, say
from tailorbird.cli.project import Project
from tailorbird.errors import TailorbirdError

USER_ERROR, DEFECT, INTERRUPTED = 2, 70, 130

# Every usage error is one of these; typer brings its own copy of click and doesn't export the class.
_UsageProblem = cast("type[Exception]", typer.BadParameter.__mro__[2])

app = typer.Typer(
    name="tailor",
    help="Make a pre-trained language model yours, and prove which way won.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(data.init)
app.command()(data.check)
app.command()(comparing.compare)
app.command()(customizing.customize)
app.command()(asking.ask)
app.command()(asking.chat)
app.add_typer(runs.runs, name="runs")
app.add_typer(saved.models, name="models")
app.add_typer(knowledge_asking.knowledge, name="knowledge")
app.add_typer(metaprompting.metaprompt, name="metaprompt")
app.command()(exporting.export)
app.command()(serving.serve)
app.command()(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"tailor {installed_version()}")
        raise typer.Exit


@app.callback()
def choose_project(
    context: typer.Context,
    project: Annotated[
        Path, typer.Option("--project", "-C", metavar="DIR", help="The project folder.", show_default="here")
    ] = Path(),
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Make a pre-trained language model yours, and prove which way won."""
    context.obj = Project(project)


def installed_version() -> str:
    """The version of the installed package, or that it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tailorbird")
    except PackageNotFoundError:
        return "(not installed)"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves the process with its exit code."""
    _prepare()
    code = run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not fail on flushing it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code. Errors are printed on stderr in one block."""
    try:
        result: Any = app(args=arguments, prog_name="tailor", standalone_mode=False)
    except TailorbirdError as error:
        return _tell(str(error) or type(error).__name__)
    except _UsageProblem as error:
        return _tell_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        remark("Stopped.")
        return INTERRUPTED
    except OSError as error:
        return _tell_system(error)
    except Exception as error:  # noqa: BLE001 (the last line of defence)
        return _tell_defect(error)
    return result if isinstance(result, int) else 0


def _prepare() -> None:
    """A character that a stream cannot show ends no command; libraries' warnings are not for users."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            cast("Any", stream).reconfigure(errors="backslashreplace")
    if not _debugging():
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when the first native library loads: waiting threads that spin rob the working ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    log = logging.getLogger("tailorbird")
    log.setLevel(logging.INFO)
    log.addHandler(_Remarks())


class _Remarks(logging.Handler):
    """What the library says while it works goes to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        remark(record.getMessage(), dim=True)


def _debugging() -> bool:
    return os.environ.get("TAILOR_DEBUG", "") not in ("", "0")


def _tell(message: str) -> int:
    remark(f"Error: {message}")
    if _debugging():
        traceback.print_exc()
    return USER_ERROR


def _tell_usage(error: Any) -> int:
    where: str = error.ctx.command_path if getattr(error, "ctx", None) else "tailor"
    message: str = error.format_message()
    if not message:  # no arguments at all: typer has shown the help
        return USER_ERROR
    return _tell(f"{message}\nTry: {where} --help")


def _tell_system(error: OSError) -> int:
    """What the system refused is nobody's defect: a full disk, a missing right, a port in use."""
    if error.errno is None or error.errno == errno.EBADF:
        return _tell_defect(error)
    place = f"{error.filename}: " if error.filename else ""
    return _tell(f"{place}{error.strerror or error}.")


def _tell_defect(error: Exception) -> int:
    if _debugging():
        traceback.print_exc()
    remark(
        f"Defect in Tailorbird {installed_version()}: {type(error).__name__}: {error}\n"
        "This is our fault, not yours. Please report it with the command and the output of TAILOR_DEBUG=1."
    )
    return DEFECT
