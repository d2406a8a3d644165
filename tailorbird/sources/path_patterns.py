"""Which of many paths are meant: `docs/**/*.md`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from tailorbird.errors import RecipeError

MAX_CHARS = 500
_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANINGS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def chooses(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path is one of `include`, or that is empty, and none of `exclude`.

    A pattern means the whole path, one without a `/` the last part of it. `*` stands for anything within a part,
    `**/` for any number of folders, `?` for one character; one that ends in `/` means all that is in that folder.

    >>> is_meant = chooses(["docs/**/*.md", "*.txt"], ["docs/old/"])
    >>> [is_meant(path) for path in ("docs/a.md", "docs/x/a.md", "x/a.txt", "docs/old/a.md", "src/a.md")]
    [True, True, True, False, False]

    Raises:
        RecipeError: A pattern is empty, or too long.
    """
    wanted, unwanted = [_meaning(p) for p in include], [_meaning(p) for p in exclude]

    def is_meant(path: str) -> bool:
        return (not wanted or any(p.fullmatch(path) for p in wanted)) and not any(
            p.fullmatch(path) for p in unwanted
        )

    return is_meant


@cache
def _meaning(pattern: str) -> re.Pattern[str]:
    if not pattern.strip("/") or len(pattern) > MAX_CHARS:
        raise RecipeError(
            f"pattern {pattern[:60]!r}: expected one to {MAX_CHARS} characters that name files, such as 'docs/**/*.md'."
        )
    whole = f"{pattern}**" if pattern.endswith("/") else pattern if "/" in pattern else f"**/{pattern}"
    whole = re.sub(r"\*{3,}", "**", whole.lstrip("/"))
    return re.compile(
        "".join(_MEANINGS.get(part) or re.escape(part) for part in _PARTS.findall(whole)), re.DOTALL
    )
