"""What a check found wrong: a record with a place and a way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to know about a file before training on it.

    An `error` stops training, a `warning` will probably hurt the result, an `info` is only said.
    `where` is `file` or `file:line`; `what` names what was found and expected; `fix` says what to do.
    """

    severity: Severity
    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.fix}".rstrip()


def quote(value: object, limit: int = 60) -> str:
    """The value as it would be typed, cut so that a message stays readable."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 2] + "…" + text[-1]


def plural(count: int, noun: str) -> str:
    """`1 row`, `3 rows`, `12,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class RowFault(Exception):  # noqa: N818  -- becomes a Problem or a DataError, never seen itself
    """A row that is no example: what is wrong with it, and the way out."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def json_type(value: Any) -> str:
    """The name that JSON gives to the value's type."""
    names: dict[type, str] = {
        bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object",
        type(None): "null",
    }  # fmt: skip
    return names.get(type(value), type(value).__name__)
