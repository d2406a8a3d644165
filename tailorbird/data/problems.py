"""What a check found wrong: a record with a place and a way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
