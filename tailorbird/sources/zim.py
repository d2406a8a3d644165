"""A ZIM archive, such as Kiwix offers of Wikipedia, as a connector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tailorbird.data.documents import Limits, Unchanged, Unreadable, read_entry, reading_version
from tailorbird.data.entry_process import EntryReader
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import NotFound
from tailorbird.records import Document
from tailorbird.sources.optional import need

_DATE = re.compile(r"_\d{4}-\d{2}(?:-\d{2})?$")


@dataclass(frozen=True)
class ZimArchive:
    """The HTML pages of a ZIM archive, each a document: its id is the label and the page's path in there.

    Redirects, images and other files are left out. A page's version is a hash of its HTML.

    Args:
        file: The archive.
        label: names it in an index, by default the file's name without its date: a newer edition takes the
            place of this one.
    """

    file: Path
    label: str = ""

    complete = True

    @property
    def name(self) -> str:
        return f"zim:{self._label}"

    @property
    def _label(self) -> str:
        return self.label or _DATE.sub("", self.file.stem)

    @property
    def reading(self) -> str:
        """Changes wherever pages are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Document | Unreadable | Unchanged]:
        """Every page, or why it gives no document.

        Raises:
            NotFound: There is no such file.
            Unsupported: libzim is not installed.
            DocumentError: It is no archive, or damaged; an index then keeps what it has.
        """
        return self.changes({})

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but pages of the version that is known are not parsed."""
        need("libzim", "zim", "zim")
        if not self.file.is_file():
            raise NotFound(f"{self.file}: there is no such file. Name a ZIM archive.")
        with ParserProcess() as parser:
            for entry in EntryReader("zim", str(self.file), {}, Limits()).entries():
                yield read_entry(f"{self._label}/{entry.name}", entry, known, parser, ".html")


def zim_at(place: str, *, label: str = "") -> ZimArchive:
    """The archive in a file, as the plug-in `zim`."""
    need("libzim", "zim", "zim")
    return ZimArchive(Path(place), label)
