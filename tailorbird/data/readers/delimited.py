"""The reader of tables in text files: values separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from tailorbird.data.readers.content import Content, Limits, clean_text, decoded, joined
from tailorbird.data.readers.tables import table_lines
from tailorbird.errors import DocumentError

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 20_000
_LONGEST_FIELD = 131_072
"""As the module csv has it, whose own limit is the whole process's and may have been raised."""


def read_csv(data: bytes, limits: Limits) -> Content:
    """One table whose first row is its header; the delimiter is the one that cuts rows alike.

    Raises:
        DocumentError: It is not UTF-8, or a field is so long that a quotation mark must be missing.
    """
    text, delimiter = _declared(clean_text(decoded(data)))
    return _table(text, delimiter or _sniffed(text[:_SAMPLE_CHARS]), limits)


def read_tsv(data: bytes, limits: Limits) -> Content:
    """One table whose first row is its header, with tabs between values.

    Raises:
        DocumentError: It is not UTF-8, or a field is so long that a quotation mark must be missing.
    """
    return _table(clean_text(decoded(data)), "\t", limits)


def _table(text: str, delimiter: str, limits: Limits) -> Content:
    return Content(joined(table_lines(_rows(text, delimiter)), limits, "\n"))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in rows:
            yield _bounded(row)
    except csv.Error as error:
        raise DocumentError(
            f"line {rows.line_num:,}: {error}; at most {_LONGEST_FIELD:,} characters are read as one value. "
            "Look for a quotation mark that is not closed before it."
        ) from None


def _bounded(row: list[str]) -> list[str]:
    if any(len(value) > _LONGEST_FIELD for value in row):
        raise csv.Error("field larger than the limit")
    return row


def _declared(text: str) -> tuple[str, str]:
    """The text without a first line such as `sep=;`, which Excel writes, and its delimiter or nothing."""
    first, _, rest = text.partition("\n")
    if first.strip().lower() in {f"sep={delimiter}".strip() for delimiter in _DELIMITERS}:
        return rest, first.strip()[4:] or "\t"
    return text, ""


def _sniffed(sample: str) -> str:
    """Of all delimiters the one that gives the most rows as many values as the first, then the most values."""

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            rows = [row for row in _rows(sample, delimiter) if row]
        except DocumentError:
            return 0, 0
        width = len(rows[0]) if rows else 0
        alike = sum(len(row) == width for row in rows) if width > 1 else 0
        return alike, width

    return max(_DELIMITERS, key=fit)
