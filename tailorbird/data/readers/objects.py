"""The readers of JSON: objects become lines of `key: value`, every row a section."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tailorbird.data.readers.content import Content, Limits, clean_text, decoded, joined
from tailorbird.errors import DocumentError

_NAMES = ("title", "name", "question", "heading", "subject", "id")
"""Keys whose value says what a row is about, the best one first."""
_HEADING_CHARS = 100
_DEEPEST_HEADING = 6


def read_jsonl(data: bytes, limits: Limits) -> Content:
    """One section a line, headed by what the row is called or else by its number.

    Raises:
        DocumentError: A line is no JSON, is nested too deep, or all give too many characters.
    """
    lines = decoded(data).split("\n")
    rows = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    parts = (part for number, line in rows for part in _row(_loaded(line, number, limits), number, 1))
    return Content(clean_text(joined(parts, limits)))


def read_json(data: bytes, limits: Limits) -> Content:
    """Objects as lines of `key: value`; lists of objects as sections, one a row.

    Raises:
        DocumentError: It is no JSON, is nested too deep, or gives too many characters.
    """
    value = parsed(data, limits)
    parts = _section(value, 1) if isinstance(value, dict | list) else iter([str(value)])
    return Content(clean_text(joined(parts, limits)))


def parsed(data: bytes, limits: Limits) -> Any:
    """The value of a JSON file, numbers as they are written.

    Raises:
        DocumentError: It is no JSON, or is nested too deep.
    """
    return _loaded(decoded(data), 1, limits)


def _loaded(text: str, line: int, limits: Limits) -> Any:
    too_deep = DocumentError(
        f"line {line:,}: nested deeper than {limits.depth} levels. Flatten it, or save it as text."
    )
    try:
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str, strict=False)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1:,}, character {error.colno:,}"
        raise DocumentError(
            f"no JSON ({where}: {error.msg}). Correct it there, or name the file .txt."
        ) from None
    except RecursionError:
        raise too_deep from None
    level, depth = [value], 0
    while level := [item for outer in level if isinstance(outer, dict | list) for item in _items(outer)]:
        depth += 1
        if depth > limits.depth:
            raise too_deep
    return value


def _items(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _section(value: dict[str, Any] | list[Any], level: int) -> Iterator[str]:
    """First what stands in one line each, then what needs sections of its own."""
    if isinstance(value, list):
        if _is_plain(value):
            yield "\n".join(f"- {_line(item)}" for item in value)
        else:
            for number, item in enumerate(value, start=1):
                yield from _row(item, number, level)
        return
    yield "\n".join(f"{_line(key)}: {_plain(inner)}" for key, inner in value.items() if _is_plain(inner))
    for key, inner in value.items():
        if not _is_plain(inner):
            yield _heading(_line(key), level)
            yield from _section(inner, level + 1)


def _row(value: Any, number: int, level: int) -> Iterator[str]:
    named = value if isinstance(value, dict) else {}
    name = next((_line(named[key]) for key in _NAMES if isinstance(named.get(key), str)), "")
    yield _heading(name[:_HEADING_CHARS] or f"Row {number}", level)
    if isinstance(value, dict | list):
        yield from _section(value, level + 1)
    else:
        yield _line(value)


def _heading(text: str, level: int) -> str:
    return f"{'#' * min(level, _DEEPEST_HEADING)} {text}"


def _is_plain(value: Any) -> bool:
    """Whether it stands in one line: a single value, or a list of such."""
    if isinstance(value, list):
        return not any(isinstance(item, dict | list) for item in value)
    return not isinstance(value, dict) or not value


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    return value.strip() if isinstance(value, str) else _line(value)


def _line(value: Any) -> str:
    if value is None or value == {}:
        return ""
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
