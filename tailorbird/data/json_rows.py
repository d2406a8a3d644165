"""Rows in JSON: one object a line, or the elements of one array, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

from tailorbird.data.problems import RowFault, json_type, quote

BOM = b"\xef\xbb\xbf"
MAX_ELEMENT_CHARS = 64 * 2**20
"""An element of a JSON array that is longer than this is taken for damage."""

_CHUNK_CHARS = 2**20
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_SAVE_AS_UTF8 = "Save the file as UTF-8, for instance: iconv -f WINDOWS-1252 -t UTF-8."


class Row(NamedTuple):
    """One row: its number, its fields or what is wrong with it, and, in JSON lines, where it lies."""

    number: int
    fields: dict[str, Any] | RowFault
    start: int = 0
    size: int = 0


def json_lines(file: IO[bytes]) -> Iterator[Row]:
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


def refuse_other_bytes(text: str) -> None:
    """Refuses text that was read with `surrogateescape` from bytes that are not UTF-8."""
    found = _NOT_UTF8.search(text)
    if found:
        raise RowFault(f"byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8.", _SAVE_AS_UTF8)


class _Window:
    """The part of a long text that is being looked at; `at` is the place in it."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
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


def json_array(file: IO[str]) -> Iterator[Row]:
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
            refuse_other_bytes(text)
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
        yield Row(
            number, _Broken(what, "Put all objects in one array, or one on each line without an array.")
        )


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
