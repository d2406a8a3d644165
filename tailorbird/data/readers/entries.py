"""Files that lie together in one: what a reader of such tells of each, before any of its bytes are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tailorbird.data.readers.content import Limits


@dataclass(frozen=True, slots=True)
class Entry:
    """A file inside another.

    Args:
        name: Its path in there.
        version: Equal for equal bytes.
        load: Gives its bytes.
        title: What it is called, if that is said.
        size_bytes: As it is declared; 0 where nothing is.
        refused: Why it can't be read whatever its bytes, or nothing.
    """

    name: str
    version: str
    load: Callable[[], bytes]
    title: str = ""
    size_bytes: int = 0
    refused: str = ""


ReadEntries = Callable[[str, Mapping[str, Any], Limits], Iterator[Entry]]
"""Called with a path, the reader's settings and limits."""
