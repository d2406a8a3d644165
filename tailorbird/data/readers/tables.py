"""Tables as Markdown rows, the form in which passages keep them whole with their header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Row = Sequence[str]


def table_lines(rows: Iterable[Row]) -> Iterator[str]:
    """Markdown's lines of a table whose first row is its header; rows without text are left out."""
    num_rows = 0
    for row in rows:
        cells = [cell_text(cell) for cell in row]
        if any(cells):
            yield _line(cells)
            if num_rows == 0:
                yield _line(["---"] * len(cells))
            num_rows += 1


def cell_text(text: str) -> str:
    """The text on one line; a bar in a cell would look like the cell's end."""
    return " ".join(text.replace("|", "/").split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
