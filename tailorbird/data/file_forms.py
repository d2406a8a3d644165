"""Files of rows: JSON lines, one JSON array, CSV, TSV, Parquet, and any of them in gzip; told by content.

Each gives its rows one at a time, and none is read into memory whole.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from tailorbird.data.problems import Problem, RowFault, json_type, plural, quote
from tailorbird.data.storage import cache_folder
from tailorbird.errors import Unsupported

FormName = Literal["JSON lines", "JSON array", "table", "Parquet"]

BOM = b"\xef\xbb\xbf"
MAX_CELL_CHARS = 16 * 2**20
MAX_ELEMENT_CHARS = 64 * 2**20
"""An element of a JSON array that is longer than this is taken for damage."""

_HEAD_BYTES = 65536
_CHUNK_CHARS = 2**20
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_NOT_ROWS = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it, or export the sheet as CSV."),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
    b"%PDF": ("a PDF", "Pass it as a document instead of as examples."),
}
_EXPECTED = "JSON lines, a JSON array, CSV, TSV or Parquet"
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_SAVE_AS_UTF8 = "Save the file as UTF-8, for instance: iconv -f WINDOWS-1252 -t UTF-8."


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


class Row(NamedTuple):
    """One row: its number, its fields or what is wrong with it, and, in JSON lines, where it lies."""

    number: int
    fields: dict[str, Any] | RowFault
    start: int = 0
    size: int = 0


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
    readers = {"JSON lines": _json_lines, "JSON array": _json_array, "Parquet": _parquet}
    try:
        with _opened(path, form) as file:
            if form.name == "table":
                yield from _table(file, form.delimiter)
            else:
                yield from readers[form.name](file)
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


# --- JSON


def _json_lines(file: IO[bytes]) -> Iterator[Row]:
    """Each line that is not blank, with its number from 1."""
    offset = 0
    for number, raw in enumerate(file, start=1):
        line = raw.removeprefix(BOM) if number == 1 else raw
        if line.strip():
            start = offset + len(raw) - len(line)
            try:
                yield Row(number, _decode(line, start), start, len(line))
            except RowFault as fault:
                yield Row(number, fault)
        offset += len(raw)


def _decode(line: bytes, offset: int) -> dict[str, Any]:
    """The JSON object of one line; `offset` is where the line starts in the file, in bytes."""
    try:
        text = line.decode().rstrip()
    except UnicodeDecodeError as error:
        what = f"byte 0x{line[error.start]:02x} (byte {offset + error.start + 1:,} of the file) is not UTF-8."
        raise RowFault(what, _SAVE_AS_UTF8) from None
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        what = f"not valid JSON at column {error.colno}: {error.msg}. Got {quote(text.strip())}."
        raise RowFault(what, _json_fix(text, error)) from None
    except RecursionError:
        raise RowFault("the JSON is nested too deeply.", "Give one flat object a line.") from None
    except ValueError as error:  # a number of thousands of digits
        raise RowFault(f"not valid JSON: {error}.", "Put the number in quotes.") from None
    return _object(row)


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        what = f"got a JSON {json_type(row)}; expected an object with 'prompt' and 'completion'."
        raise RowFault(what, 'Write {"prompt": "…", "completion": "…"}.')
    return cast("dict[str, Any]", row)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise _repeated_key([key for key, _ in pairs])
    return row


def _repeated_key(keys: list[str]) -> RowFault:
    twice = next(key for key in keys if keys.count(key) > 1)
    return RowFault(f"key {quote(twice)} appears twice in one object.", "Keep one of them.")


def _json_fix(text: str, error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return "Put each object on a line of its own."
    if text.lstrip().startswith("{'"):
        return "JSON wants double quotes: write the file with json.dumps instead of str."
    if not text.rstrip().endswith("}"):
        return "The line is cut off: an object must begin and end on one line; write line breaks as \\n."
    return "Write the file with json.dumps, one object a line."


class _Window:
    """The part of a long text that is being looked at; `at` is the place in it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
        self.seen, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        """Looks further on, twice as far each time; False at the end."""
        self.seen, self.at = self.seen[self.at :], 0
        new = "" if self.ended else self._text.read(max(_CHUNK_CHARS, len(self.seen)))
        self.seen += new
        self.ended = not new
        return bool(new)

    def sign(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self.seen):
                if not self.seen[self.at].isspace():
                    return self.seen[self.at]
                self.at += 1
            if not self.more():
                return ""


def _json_array(file: IO[bytes]) -> Iterator[Row]:
    """The elements of one array, numbered from 1; what comes after a broken one cannot be told apart."""
    window = _Window(file)
    repeated: list[RowFault] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            repeated.append(_repeated_key([key for key, _ in pairs]))
        return row

    decoder = json.JSONDecoder(object_pairs_hook=note_repeated)
    assert window.sign() == "["
    window.at += 1
    number = 0
    while window.sign() != "]":
        number += 1
        repeated.clear()
        try:
            value, text = _element(window, decoder, repeated)
            _refuse_other_bytes(text)
            if repeated:
                raise repeated[0]
            fields: dict[str, Any] | RowFault = _object(value)
        except RowFault as fault:
            fields = fault
            if isinstance(fault, _Broken):
                yield Row(number, fault)
                return
        yield Row(number, fields)
        if window.sign() == ",":
            window.at += 1
        elif window.sign() != "]":
            yield Row(number, _after(window))
            return
    window.at += 1
    if window.sign():
        what = f"the array is followed by {quote(window.seen[window.at :])}; expected the end of the file."
        yield Row(number, _Broken(what, "Put all objects in one array, or one on each line without an array."))


class _Broken(RowFault):
    """Damage after which an array cannot be read on."""


def _after(window: _Window) -> _Broken:
    got = quote(window.seen[window.at :]) if window.sign() else "the end of the file"
    fix = "Write the file with json.dumps; objects are parted by ',' and the array ends with ']'."
    return _Broken(f"after this row comes {got}; expected ',' or ']'. The rest was not read.", fix)


def _element(window: _Window, decoder: json.JSONDecoder, repeated: list[RowFault]) -> tuple[Any, str]:
    """The value that begins at the window's place, and its text; moves the window behind it."""
    while True:
        repeated.clear()
        try:
            value, end = decoder.raw_decode(window.seen, window.at)
        except json.JSONDecodeError as error:
            cut_off = error.msg.startswith("Unterminated string") or error.pos > len(window.seen) - 16
            too_long = len(window.seen) - window.at > MAX_ELEMENT_CHARS
            if too_long or not cut_off or not window.more():
                what = f"not valid JSON: {error.msg}. Got {quote(window.seen[window.at : window.at + 200])}."
                fix = "Write the file with json.dumps; the rest of the array was not read."
                raise _Broken(what, fix) from None
            continue
        except RecursionError:
            raise _Broken("the JSON is nested too deeply.", "Give one flat object a row.") from None
        except ValueError as error:  # a number of thousands of digits
            raise _Broken(f"not valid JSON: {error}.", "Put the number in quotes.") from None
        if end == len(window.seen) and window.more():
            continue  # a number may go on
        text = window.seen[window.at : end]
        window.at = end
        return value, text


def _refuse_other_bytes(text: str) -> None:
    found = _NOT_UTF8.search(text)
    if found:
        raise RowFault(f"byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8.", _SAVE_AS_UTF8)


# --- tables


def _table(file: IO[bytes], delimiter: str) -> Iterator[Row]:
    """Records below the header, each with the number of the line on which it begins."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARS))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
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
            yield Row(line, RowFault(what, 'Put cells with quotes or line breaks in "…", with each " doubled.'))
            if header is None:
                return
        except RowFault as fault:
            yield Row(line, fault)
            if header is None:
                return


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for cell in names:
        _refuse_other_bytes(cell)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RowFault(f"column {quote(twice)} appears twice in the header.", "Rename one of them.")
    return names


def _record(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        what = f"{plural(len(cells), 'cell')}; expected {len(header)}, as in the header. Got {quote(cells)}."
        raise RowFault(what, 'Put a cell that holds the delimiter or a line break in "…".')
    for cell in cells:
        _refuse_other_bytes(cell)
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
        import pyarrow.parquet
    except ImportError:
        raise Unsupported(
            "Reading Parquet needs pyarrow, which is not installed. Install it with "
            '`pip install "tailorbird[parquet]"`, or save the data as JSONL or CSV.'
        ) from None
    return cast("Any", pyarrow.parquet)


def _plain(value: Any) -> Any:
    """Whole numbers as text, as in any other table; the rest as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a row of a table really has: Parquet gives every row every column."""
    return {key: value for key, value in fields.items() if value is not None}
