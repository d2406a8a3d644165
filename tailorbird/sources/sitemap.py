"""Sitemaps: which pages a site says it has. The format: https://www.sitemaps.org/protocol.html."""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from tailorbird.errors import DocumentError

MAX_PLACES = 50_000
"""Addresses in one sitemap, as the format allows."""


def read_sitemap(data: bytes) -> tuple[list[str], list[str]]:
    """The pages that a sitemap lists, and the further sitemaps that it names.

    Raises:
        DocumentError: It is no sitemap, is damaged, declares a DOCTYPE, or lists too much.
    """
    places: dict[str, list[str]] = {"url": [], "sitemap": []}
    reader = _Reader(places)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"is no sitemap ({error}). Expected XML as sitemaps.org describes it.") from None
    if reader.root not in {"urlset", "sitemapindex"}:
        raise DocumentError(f"is no sitemap. Got <{reader.root}>, expected <urlset> or <sitemapindex>.")
    return places["url"], places["sitemap"]


class _Reader:
    """Collects what stands in `<loc>` directly inside `<url>` and `<sitemap>`."""

    def __init__(self, places: dict[str, list[str]]) -> None:
        self.root = ""
        self._places, self._open, self._text = places, list[str](), list[str]()

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        self.root = self.root or name
        self._open.append(name)
        self._text.clear()

    def end(self, _name: str) -> None:
        if self._open.pop() != "loc" or not self._open or self._open[-1] not in self._places:
            return
        self._places[self._open[-1]].append("".join(self._text).strip())
        if sum(map(len, self._places.values())) > MAX_PLACES:
            raise DocumentError(f"lists more than {MAX_PLACES:,} addresses. Divide it, as sitemaps.org says.")

    def text(self, text: str) -> None:
        if self._open[-1] == "loc":
            self._text.append(text)


def _refuse(*_args: Any) -> None:
    raise DocumentError("declares a DOCTYPE, which no sitemap needs.")
