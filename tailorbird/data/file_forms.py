"""Files of rows: JSON lines, one JSON array, CSV, TSV, Parquet, and any of them in gzip; told by content.

Each gives its rows one at a time, and none is read into memory whole.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import importlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from tailorbird.data.json_rows import BOM, Row, json_array, json_lines, refuse_other_bytes
from tailorbird.data.problems import Problem, RowFault, plural, quote
from tailorbird.data.storage import cache_folder
from tailorbird.errors import Unsupported

FormName = Literal["JSON lines", "JSON array", "table", "Parquet"]

MAX_CELL_CHARS = 16 * 2**20

_HEAD_BYTES = 65536
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_NOT_ROWS = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it, or export the sheet as CSV."),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
    b"%PDF": ("a PDF", "Pass it as a document instead of as examples."),
}
_EXPECTED = "JSON lines, a JSON array, CSV, TSV or Parquet"


@dataclass(frozen=True, slots=True)
class Form:
    """How a file holds its rows. `delimiter` is a table's; `gzipped` says that the whole is compressed."""

    name: FormName
    gzipped: bool = False
    delimiter: str = ","

    @property
    def counts(self) -> Literal["line", "row"]:
        """What a row's number counts."""
        return "line" if self.name in ("JSON lines", "table") else "row"

    @property
    def in_place(self) -> bool:
        """Whether a row can be read again from where it lies."""
        return self.name == "JSON lines" and not self.gzipped


def form_of(path: Path) -> Form | Problem:
    """What kind of file it is, or why it is of no kind that holds rows."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    gzipped = head.startswith(_GZIP)
    if gzipped:
        try:
            with gzip.open(path) as file:
                head = file.read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            return _damaged(path, error)
    for magic, (kind, fix) in _NOT_ROWS.items():
        if head.startswith(magic):
            return Problem("error", path.name, f"the file is {kind}; expected {_EXPECTED}.", fix)
    if head.startswith(_PARQUET):
        return Form("Parquet", gzipped)
    text = head.removeprefix(BOM).lstrip()
    return _text_form(path, text, gzipped) if text else empty(path)


def _text_form(path: Path, text: bytes, gzipped: bool) -> Form | Problem:
    first = text.split(b"\n", 1)[0].strip().decode("utf-8", "replace")
    if first.startswith("["):
        return Form("JSON array", gzipped)
    if first == "{":
        name = path.name
        what = (
            "the file is one object spread over several lines; expected JSONL: a whole object on each line."
        )
        return Problem("error", name, what, f"Convert it: jq -c . {name} > rows-{name}")
    named = {".csv", ".tsv"} & {suffix.lower() for suffix in path.suffixes}
    delimiter = max("\t;,|" if ".tsv" in named else ",\t;|", key=lambda sign: len(_cells(first, sign)))
    if not first.startswith("{") and (named or len(_cells(first, delimiter)) > 1):
        return Form("table", gzipped, delimiter)
    return Form("JSON lines", gzipped)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def empty(path: Path) -> Problem:
    """A file without a single row."""
    what = "the file is empty; expected one JSON object a line, or a table with a header."
    return Problem("error", path.name, what, 'Write lines such as {"prompt": "…", "completion": "…"}.')


def _damaged(path: Path, error: Exception) -> Problem:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    what = f"the file is damaged or cut off and cannot be read to its end ({detail})."
    return Problem("error", path.name, what, "Copy or download it again.")


def rows_of(path: Path, form: Form) -> Generator[Row | Problem]:
    """The rows one after another; a Problem ends a file that cannot be read to its end.

    Raises:
        Unsupported: The file is Parquet and pyarrow is not installed.
    """
    try:
        with _opened(path, form) as file:
            if form.name == "JSON lines":
                yield from json_lines(file)
            elif form.name == "Parquet":
                yield from _parquet(file)
            else:
                with _as_text(file) as text:
                    yield from _table(text, form.delimiter) if form.name == "table" else json_array(text)
    except (OSError, EOFError, zlib.error) as error:
        yield _damaged(path, error)


@contextlib.contextmanager
def _opened(path: Path, form: Form) -> Generator[IO[bytes]]:
    with path.open("rb") if not form.gzipped else gzip.open(path) as file:
        if not (form.gzipped and form.name == "Parquet"):
            yield cast("IO[bytes]", file)
            return
        with tempfile.TemporaryFile(dir=cache_folder()) as unpacked:  # Parquet is read from its end
            shutil.copyfileobj(file, unpacked)
            yield unpacked


@contextlib.contextmanager
def _as_text(file: IO[bytes]) -> Generator[IO[str]]:
    """The file as text; bytes that are not UTF-8 become half surrogates, so that their row can be named."""
    text = io.TextIOWrapper(cast("Any", file), encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield text
    finally:
        text.detach()  # whoever opened the file closes it


# --- tables


def _table(text: IO[str], delimiter: str) -> Iterator[Row]:
    """Records below the header, each with the number of the line on which it begins."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
    records = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = records.line_num + 1
        try:
            cells = next(records)
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells)
            else:
                yield Row(line, _record(header, cells))
        except StopIteration:
            return
        except csv.Error as error:
            what = f"not a valid record: {error}. Got {records.line_num - line + 1} lines up to here."
            yield Row(
                line, RowFault(what, 'Put cells with quotes or line breaks in "…", with each " doubled.')
            )
            if header is None:
                return
        except RowFault as fault:
            yield Row(line, fault)
            if header is None:
                return


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for cell in names:
        refuse_other_bytes(cell)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RowFault(f"column {quote(twice)} appears twice in the header.", "Rename one of them.")
    return names


def _record(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        what = f"{plural(len(cells), 'cell')}; expected {len(header)}, as in the header. Got {quote(cells)}."
        raise RowFault(what, 'Put a cell that holds the delimiter or a line break in "…".')
    for cell in cells:
        refuse_other_bytes(cell)
    return dict(zip(header, cells, strict=True))


# --- Parquet


def _parquet(file: IO[bytes]) -> Iterator[Row]:
    """The rows, numbered from 1, a thousand of them in memory at once; numbers become their text."""
    parquet = _pyarrow()
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for fields in batch.to_pylist():
                number += 1
                yield Row(number, {key: _plain(value) for key, value in fields.items()})
    except ValueError as error:  # pyarrow's own errors are ValueErrors or OSErrors
        raise OSError(str(error)) from error


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Unsupported(
            "Reading Parquet needs pyarrow, which is not installed. Install it with "
            '`pip install "tailorbird[parquet]"`, or save the data as JSONL or CSV.'
        ) from None


def _plain(value: Any) -> Any:
    """Whole numbers as text, as in any other table; the rest as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a row of a table really has: Parquet gives every row every column."""
    return {key: value for key, value in fields.items() if value is not None}
