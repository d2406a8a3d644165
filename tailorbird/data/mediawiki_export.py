"""Pages of a MediaWiki export, such as Wikipedia's dumps: XML, plain or packed by bzip2, read as a stream.

However large the file, only the page at hand is in memory. Nothing in the XML is expanded: a document
type, which entities need, is refused. Form: https://www.mediawiki.org/wiki/Help:Export.
"""

from __future__ import annotations

import bz2
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote
from xml.parsers import expat

from tailorbird.data.readers.wikitext import MOST_CHARS
from tailorbird.errors import DocumentError, NotFound

CHUNK_BYTES = 2**18
UNPACKED_BYTES, UNPACKED_RATIO = 256 * 2**20, 200
"""A file may unpack to so many bytes, and beyond that to so many times its own size; real dumps reach about 30."""
TOKEN_BYTES = 16 * 2**20
"""The longest tag that is waited for."""
DEPTH = 20
FIELD_CHARS = 4_096
"""Characters of what is no page's text, such as a title; MediaWiki's titles have 255 bytes."""
MAX_NAMESPACES = 1_000

_FIELDS = {
    ("siteinfo", "base"),
    ("namespaces", "namespace"),
    ("page", "title"),
    ("page", "ns"),
    ("revision", "id"),
    ("revision", "model"),
    ("revision", "text"),
}
"""Elements whose characters are read, each with what it stands in."""


@dataclass(slots=True)
class Site:
    """The wiki that an export is of: its main page's address, empty if not said, and its namespaces' names."""

    main_page: str = ""
    namespaces: dict[int, str] = field(default_factory=dict[int, str])

    def address(self, title: str) -> str:
        """A page's address as MediaWiki writes it; without a main page just its title, in the same way."""
        place = self.main_page.rpartition("/")[0]
        return (f"{place}/" if place else "") + quote(title.replace(" ", "_"), safe=";@$!*(),/~:")


@dataclass(slots=True)
class Page:
    """A page in its last revision. `text` is wikitext where `model` says so; None if it is too long to be read."""

    title: str = ""
    namespace: int = 0
    revision: str = ""
    model: str = "wikitext"
    is_redirect: bool = False
    text: str | None = ""


def read_pages(path: Path) -> Iterator[tuple[Site, Page]]:
    """The pages in the file's order.

    Raises:
        NotFound: There is no such file.
        DocumentError: It is no export, damaged, cut short, or unpacks to too much.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such file. Name a MediaWiki export, such as a Wikipedia dump.")
    reader = _Reader()
    try:
        for chunk in _chunks(path):
            reader.feed(chunk)
            while reader.pages:
                yield reader.site, reader.pages.popleft()
        reader.end()
    except (expat.ExpatError, EOFError, OSError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise DocumentError(f"{path}: {error}") from None
        raise DocumentError(
            f"{path}: is no MediaWiki export, damaged or cut short ({error}). Expected XML, plain or packed by bzip2. "
            "Get it again, and compare its checksum."
        ) from None


def _chunks(path: Path) -> Iterator[bytes]:
    """The XML's bytes, unpacked piece by piece."""
    with path.open("rb") as packed:
        is_packed = packed.read(3) == b"BZh"
        packed.seek(0)
        file: IO[bytes] | bz2.BZ2File = bz2.BZ2File(packed) if is_packed else packed
        num_bytes = 0
        while chunk := file.read(CHUNK_BYTES):
            num_bytes += len(chunk)
            if num_bytes > max(UNPACKED_BYTES, UNPACKED_RATIO * packed.tell()):
                raise DocumentError(
                    f"looks like a bomb ({num_bytes / 2**20:.0f} MB unpacked from {packed.tell() / 2**20:.1f} MB). "
                    "If it is genuine, unpack it first."
                )
            yield chunk


class _Reader:
    """Takes XML in pieces; `pages` are those that are complete and were not taken yet."""

    def __init__(self) -> None:
        self.site = Site()
        self.pages: deque[Page] = deque()
        self._page = Page()
        self._path: list[str] = []
        self._chars: list[str] | None = None
        self._num_chars = 0
        self._key = ""
        self._fed_bytes = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        self._parser = parser

    def feed(self, chunk: bytes) -> None:
        self._parser.Parse(chunk, False)
        self._fed_bytes += len(chunk)
        if self._fed_bytes - self._parser.CurrentByteIndex > TOKEN_BYTES:
            raise DocumentError(
                f"holds a tag of more than {TOKEN_BYTES // 2**20} MB, which no export has. Get it again."
            )

    def end(self) -> None:
        """Refuses what is cut short."""
        self._parser.Parse(b"", True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._path and name != "mediawiki":
            raise DocumentError(
                f"is no MediaWiki export: got <{name[:40]}>, expected <mediawiki>. Check the file."
            )
        if len(self._path) >= DEPTH:
            raise DocumentError(f"nests deeper than {DEPTH} elements, which no export does. Check the file.")
        around = self._path[-1] if self._path else ""
        self._path.append(name)
        if (around, name) in _FIELDS:
            self._chars, self._num_chars = [], 0
            self._key = attributes.get("key", "")
        elif name == "page":
            self._page = Page()
        elif (around, name) == ("page", "redirect"):
            self._page.is_redirect = True

    def _text(self, text: str) -> None:
        if self._chars is None:
            return
        self._num_chars += len(text)
        if self._num_chars <= (MOST_CHARS if self._path[-1] == "text" else FIELD_CHARS):
            self._chars.append(text)
        elif self._path[-1] != "text":
            raise DocumentError(
                f"has a <{self._path[-1]}> of more than {FIELD_CHARS:,} characters. Check the file."
            )

    def _end(self, name: str) -> None:
        self._path.pop()
        if name == "page" and len(self._path) == 1:
            self.pages.append(self._page)
            self._page = Page()
        elif self._chars is not None:
            self._take(name, "".join(self._chars))
            self._chars = None

    def _take(self, name: str, value: str) -> None:
        page = self._page
        if name == "text":
            page.text = value if self._num_chars <= MOST_CHARS else None
        elif name == "title":
            page.title = value
        elif name == "ns":
            page.namespace = int(value)
        elif name == "id":
            page.revision = value
        elif name == "model":
            page.model = value
        elif name == "base":
            self.site.main_page = value
        elif len(self.site.namespaces) < MAX_NAMESPACES:
            self.site.namespaces[int(self._key)] = value


def _refuse_doctype(name: str, *_: object) -> None:
    raise DocumentError(
        f"declares a document type ({name[:40]!r}), which no MediaWiki export does. Get it again."
    )
