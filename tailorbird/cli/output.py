"""What commands print: results on stdout, remarks on stderr, and nothing in a pipe that moves a cursor."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Generator, Sequence
from typing import Any, TextIO

import typer

# A model's answer or a document may hold escape sequences, or marks that turn the reading order
# around; a terminal must show them, not obey them.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with every control character replaced, except line breaks and tabs."""
    return _OBEYED.sub("\ufffd", text.replace("\r\n", "\n"))


def say(text: str = "", *, dim: bool = False, bold: bool = False, end: str = "\n") -> None:
    """Prints a result on stdout; styled on a terminal only."""
    _print(text, end, err=False, dim=dim, bold=bold)


def remark(text: str, *, dim: bool = False) -> None:
    """Prints on stderr what is not the result."""
    _print(text, "\n", err=True, dim=dim)


def _print(text: str, end: str, *, err: bool, dim: bool = False, bold: bool = False) -> None:
    shown = printable(text)
    styled = typer.style(shown, dim=dim or None, bold=bold or None) if dim or bold else shown
    typer.echo(styled + end, nl=False, err=err)


def print_json(value: Any) -> None:
    """Prints one JSON value on stdout; ASCII only where the stream is not in a Unicode encoding."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    typer.echo(json.dumps(value, ensure_ascii=not encoding.startswith("utf"), indent=2))


@contextlib.contextmanager
def kept_for_json(wanted: bool) -> Generator[None]:
    """While JSON is wanted, whatever else is printed goes to stderr: stdout carries the JSON alone."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it and it can draw."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal; elsewhere aligned columns, never cut and one row a line."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _draw_table(columns, cells)
    else:
        for line in aligned([columns, *cells]):
            say(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns begin at the same place, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def size_text(size_bytes: int) -> str:
    """A size in the unit that suits it.

    >>> [size_text(n) for n in (812, 2_500_000, 270_000_000_000)]
    ['812 B', '2.5 MB', '270 GB']
    """
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
