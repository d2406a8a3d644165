"""From addresses to documents: politely asked for, read by kind, with the links they hold."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tailorbird.data.documents import document_from_bytes
from tailorbird.data.markup import decode_html
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError
from tailorbird.records import Document, content_hash
from tailorbird.sources.addresses import Address, joined
from tailorbird.sources.fetching import Fetched, Fetcher

KINDS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
"""Content types that are read, and as what."""

BUSY = frozenset({429, 503})
ATTEMPTS = 2
MAX_WAIT_S = 30.0
NOT_MODIFIED, GONE, NOT_FOUND = 304, 410, 404
MAX_LINKS = 10_000
"""Links of one page that are read."""


@dataclass
class Visitor:
    """Fetches one page after the other, with a pause of `pause_s` between two requests to a host."""

    fetcher: Fetcher
    pause_s: float
    parser: ParserProcess
    """What parses the pages."""
    max_wait_s: float = MAX_WAIT_S
    """Seconds that a busy server is waited for, whatever it asks for; with 0 it is not asked again."""
    _asked: dict[str, float] = field(default_factory=dict[str, float])
    """When each host was asked last."""

    def get(
        self,
        address: Address,
        kinds: Collection[str] | None = None,
        conditions: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Fetched:
        """The answer, whatever its status; a busy server is asked once more. `conditions` are as `Fetcher`'s.

        Raises:
            DocumentError, EndpointError: As `Fetcher.fetch` does.
        """
        answer = self._once(address, kinds, conditions)
        for _ in range(ATTEMPTS - 1):
            if answer.status not in BUSY or not self.max_wait_s:
                break
            wait_s = self.pause_s if answer.retry_after_s is None else answer.retry_after_s
            time.sleep(min(wait_s, self.max_wait_s))
            answer = self._once(address, kinds, conditions)
        return answer

    def page(self, address: Address, conditions: Mapping[str, Mapping[str, str]] | None = None) -> Fetched:
        """The page at an address; with `conditions` perhaps only that it is as it was (`NOT_MODIFIED`).

        Raises:
            KindError: It is of a kind that is not read.
            DocumentError: The address is refused, or the page is too large.
            EndpointError: It is not there or cannot be had; `status` holds what the server said, or 0.
        """
        answer = self.get(address, KINDS, conditions)
        if 200 <= answer.status < 300 or (conditions and answer.status == NOT_MODIFIED):
            return answer
        if answer.status in {GONE, NOT_FOUND}:
            advice = "there is no such page. Correct the address, or remove the link to it."
        else:
            advice = "the page cannot be read now, or not by everyone. Try again later."
        raise EndpointError(f"{address.url}: status {answer.status}: {advice}", answer.status)

    def _once(
        self,
        address: Address,
        kinds: Collection[str] | None,
        conditions: Mapping[str, Mapping[str, str]] | None,
    ) -> Fetched:
        if (asked := self._asked.get(address.host)) is not None:
            time.sleep(max(0.0, asked + self.pause_s - time.monotonic()))
        try:
            return self.fetcher.fetch(address.url, kinds, conditions=conditions or {})
        finally:
            self._asked[address.host] = time.monotonic()


def document_of(id: str, answer: Fetched, parser: ParserProcess) -> Document:  # noqa: A002  -- the record's own word
    """The page as a document; its version is a hash of title and text, for markup may change with every answer.

    Raises:
        DocumentError: It is damaged, not what it says it is, or without text.
    """
    suffix = KINDS[answer.kind]
    if suffix == ".txt" and answer.address.path.lower().endswith(".md"):
        suffix = ".md"
    data = answer.body if suffix in {".pdf", ".docx"} else _utf8(answer)
    document = document_from_bytes(id, data, suffix, parser)
    return replace(document, version=content_hash([document.title, document.text]))


def reason_of(id: str, error: Exception) -> str:  # noqa: A002
    """Why a page could not be read, without its address, which stands beside it."""
    return str(error).removeprefix(f"{id}: ")


def links_of(answer: Fetched) -> tuple[list[Address], Address | None]:
    """Where a page leads by its first `MAX_LINKS` links, each once, and what it calls its own address, if it says."""
    if KINDS[answer.kind] != ".html":
        return [], None
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(decode_html(_utf8(answer)))
    base = answer.address
    if (node := tree.css_first("base[href]")) is not None:
        base = next(_joined(base, [node.attributes.get("href")]), base)
    written = [node.attributes.get("href") for node in tree.css("a[href], area[href]")[:MAX_LINKS]]
    node = tree.css_first("link[rel=canonical][href]")
    named = list(_joined(base, [node.attributes.get("href")])) if node is not None else []
    return list(dict.fromkeys(_joined(base, written))), named[0] if named else None


def _joined(base: Address, references: list[str | None]) -> Iterator[Address]:
    """The web addresses among references; what is none (`mailto:`, a slip of the pen) leads to no page."""
    for reference in references:
        try:
            yield joined(base, (reference or "").strip())
        except DocumentError:
            continue


def _utf8(answer: Fetched) -> bytes:
    """The text in UTF-8, if the server names another character set; else as it came."""
    if answer.charset in {"", "utf-8", "utf8"}:
        return answer.body
    try:
        return answer.body.decode(answer.charset, "replace").encode()
    except (LookupError, UnicodeError, ValueError):
        return answer.body


def words_of(value: str | Sequence[str]) -> tuple[str, ...]:
    """The words of a text, apart by white space or commas; a sequence as it is.

    >>> words_of("wiki.internal, docs.internal")
    ('wiki.internal', 'docs.internal')
    """
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(value)
