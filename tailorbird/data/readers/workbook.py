"""The reader of Excel workbooks."""

from __future__ import annotations

import datetime as dt
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.data.readers.archive import check_archive
from tailorbird.data.readers.content import Content, Limits, clean_text, joined
from tailorbird.data.readers.tables import cell_text, table_lines
from tailorbird.errors import DocumentError

_FORMULA = re.compile(rb"<(?:\w{1,20}:)?f[ >/]")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's cells as text; `is_words` if at least two are filled, and all with text."""

    cells: tuple[str, ...]
    is_words: bool

    @property
    def filled(self) -> list[int]:
        return [column for column, cell in enumerate(self.cells) if cell]


_EMPTY = _Row((), is_words=False)


def read_xlsx(data: bytes, limits: Limits) -> Content:
    """Each visible sheet as a heading and its tables; formulas as Excel last computed them.

    Rows apart by an empty row are tables apart if the lower one begins with a header, a row of text
    alone. Dates are written as in ISO 8601, shares as percentages. A formula that was never computed
    stands as it is. Hidden sheets are left out; hidden rows are not, for filters hide them too.

    Raises:
        DocumentError: Its zip looks hostile, or it has too many cells or characters.
    """
    check_archive(data, "xl/workbook.xml", "Excel workbook (.xlsx)", limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that are not read
        values = _opened(data, computed=True)
        formulas = _opened(data, computed=False) if _has_formulas(data) else None
        text = joined(_parts(values, formulas, limits), limits)
        return Content(clean_text(text), clean_text(values.properties.title or "").strip())


def _opened(data: bytes, *, computed: bool) -> Any:
    from openpyxl import load_workbook

    return load_workbook(io.BytesIO(data), read_only=True, data_only=computed, keep_links=False)


def _has_formulas(data: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(_FORMULA.search(archive.read(name)) for name in sheets)


def _parts(values: Any, formulas: Any, limits: Limits) -> Iterator[str]:
    num_cells = 0
    for sheet in values.worksheets:
        if sheet.sheet_state != "visible":
            continue
        rows: list[_Row] = []
        for row in _rows(sheet, formulas[sheet.title] if formulas else None):
            num_cells += max(1, len(row.cells))
            if num_cells > limits.cells:
                raise DocumentError(
                    f"more than {limits.cells:,} cells, the most that are read, empty ones before filled ones "
                    "included. Delete what stands far out, or divide it."
                )
            if row is not _EMPTY or rows[-1:] != [_EMPTY]:  # a million empty rows are as good as one
                rows.append(row)
        if any(row.filled for row in rows):
            yield f"# {cell_text(sheet.title)}"
        for table in _tables(rows):
            yield from _table(table)


def _rows(sheet: Any, formulas: Any) -> Iterator[_Row]:
    sheet.reset_dimensions()  # what it claims need not be so
    if formulas is None:
        for row in sheet.iter_rows():
            yield _row([(cell.value, cell.number_format) for cell in row]) if row else _EMPTY
        return
    formulas.reset_dimensions()
    for row, same in zip(sheet.iter_rows(), formulas.iter_rows(), strict=True):
        yield _row(
            [
                (formula.value if cell.value is None else cell.value, cell.number_format)
                for cell, formula in zip(row, same, strict=True)
            ]
        )


def _row(cells: Sequence[tuple[Any, str | None]]) -> _Row:
    filled = [value for value, _ in cells if value is not None]
    is_words = len(filled) > 1 and all(isinstance(value, str) for value in filled)
    return _Row(tuple(cell_text(_written(value, form or "")) for value, form in cells), is_words)


def _written(value: Any, number_format: str) -> str:
    """A value as Excel would show it, or plainer."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, dt.datetime):
        is_day = value.time() == dt.time()
        return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
    if isinstance(value, dt.timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if isinstance(value, int | float):
        is_share = number_format.rstrip().endswith("%")
        return (
            f"{value * 100:.15g}%"
            if is_share
            else f"{value:.15g}"
            if isinstance(value, float)
            else str(value)
        )
    text = getattr(value, "text", value)  # an array's formula
    return str(text)


def _tables(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows that make a table together: all until an empty row with a new header after it."""
    table: list[_Row] = []
    after_gap = False
    for row in rows:
        if not row.filled:
            after_gap = True
            continue
        if table and after_gap and (row.is_words or len(row.filled) == 1):
            yield table
            table = []
        table.append(row)
        after_gap = False
    if table:
        yield table


def _table(rows: list[_Row]) -> Iterator[str]:
    """What stands above a table as text, then the table without empty columns."""
    first = next((i for i, row in enumerate(rows) if len(row.filled) > 1), len(rows))
    for row in rows[:first]:
        yield row.cells[row.filled[0]]
    columns = sorted({column for row in rows[first:] for column in row.filled})
    wide = ([row.cells[i] if i < len(row.cells) else "" for i in columns] for row in rows[first:])
    yield "\n".join(table_lines(wide))
