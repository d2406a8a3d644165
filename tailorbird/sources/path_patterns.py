"""Which of many paths are meant: `docs/**/*.md`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tailorbird.errors import RecipeError

MAX_CHARS = 500
_TOKEN = re.compile(r"\*\*/|\*\*|.", re.DOTALL)
_MAY_BE_EMPTY = frozenset({"*", "**", "**/"})


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
    wanted, unwanted = [_tokens(p) for p in include], [_tokens(p) for p in exclude]

    def is_meant(path: str) -> bool:
        return (not wanted or any(_fits(path, p) for p in wanted)) and not any(
            _fits(path, p) for p in unwanted
        )

    return is_meant


def _tokens(pattern: str) -> Sequence[str]:
    """The pattern of a whole path, cut into wildcards and single characters."""
    if not pattern.strip("/") or len(pattern) > MAX_CHARS:
        raise RecipeError(
            f"pattern {pattern[:60]!r}: expected one to {MAX_CHARS} characters that name files, such as 'docs/**/*.md'."
        )
    whole = f"{pattern}**" if pattern.endswith("/") else pattern if "/" in pattern else f"**/{pattern}"
    return _TOKEN.findall(re.sub(r"\*{3,}", "**", whole.lstrip("/")))


def _fits(path: str, tokens: Sequence[str]) -> bool:
    """Whether the path is of the pattern, by all places in it that are possible so far: never exponential in time."""
    places: set[int] = set()
    _arrive(places, 0, tokens)
    for character in path:
        before, places = places, set()
        for at in before:
            part = tokens[at] if at < len(tokens) else ""
            if part == "**/":
                places.add(at)  # in a folder's name, until its end
                if character == "/":
                    _arrive(places, at + 1, tokens)
            elif part == "**" or (part == "*" and character != "/"):
                _arrive(places, at, tokens)
            elif part == character or (part == "?" and character != "/"):
                _arrive(places, at + 1, tokens)
    return len(tokens) in places


def _arrive(places: set[int], at: int, tokens: Sequence[str]) -> None:
    """Adds a place, and those behind wildcards that stand for nothing."""
    places.add(at)
    while at < len(tokens) and tokens[at] in _MAY_BE_EMPTY:
        at += 1
        places.add(at)
