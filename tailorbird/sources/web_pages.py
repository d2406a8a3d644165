"""A list of web pages as a connector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tailorbird.data.documents import Unreadable
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError
from tailorbird.records import Document
from tailorbird.sources.addresses import read_address
from tailorbird.sources.fetching import Fetcher, Limits
from tailorbird.sources.web_reading import Visitor, document_of, reason_of, words_of


@dataclass(frozen=True)
class WebPages:
    """The pages at these addresses: HTML, text, Markdown, PDF or Word documents. Links are not followed.

    A document's id is its address in one form, without a fragment. A page that fails is said and stays in
    the index as it was; to forget it, take its address out of the list.

    Args:
        urls: http and https addresses.
        label: names the list in an index; the same as the list grows and shrinks.
        allow_hosts: hosts that may be on a private network, as for `Fetcher`.
        pause_s: seconds between two requests to a host.
        limits: what one page may take.

    Raises:
        DocumentError: An address, or a host in `allow_hosts`, is none.
        RecipeError: There is no label, or `pause_s` is below 0.
    """

    urls: tuple[str, ...]
    label: str
    allow_hosts: tuple[str, ...] = ()
    pause_s: float = 1.0
    limits: Limits = field(default_factory=Limits)

    complete = True

    def __post_init__(self) -> None:
        if not self.label or self.pause_s < 0:
            raise RecipeError(
                f"web_pages: got label {self.label!r} and pause_s {self.pause_s:g}; expected a label and at least 0."
            )
        Fetcher(self.allow_hosts)
        for url in self.urls:
            read_address(url)

    @property
    def name(self) -> str:
        return f"web_pages:{self.label}"

    def documents(self) -> Iterator[Document | Unreadable]:
        """Every page, or why it gives no document; one that leads to another one's address gives none."""
        with ParserProcess() as parser:
            yield from self._documents(Visitor(Fetcher(self.allow_hosts, self.limits), self.pause_s, parser))

    def _documents(self, visitor: Visitor) -> Iterator[Document | Unreadable]:
        listed = {address.url: address for address in map(read_address, self.urls)}
        given: dict[str, str] = {}
        for url, address in listed.items():
            try:
                answer = visitor.page(address)
                place = answer.address.url
                if place != url and (place in listed or place in given):
                    yield Unreadable(
                        url, f"redirects to {place}, which is there already. Remove the address."
                    )
                    continue
                given[place] = url
                yield document_of(url, answer, visitor.parser)
            except (DocumentError, EndpointError) as error:
                yield Unreadable(url, reason_of(url, error))


def web_pages_at(
    place: str | Sequence[str],
    *,
    label: str = "",
    allow_hosts: str | Sequence[str] = (),
    pause_s: float = 1.0,
) -> WebPages:
    """The pages at addresses apart by white space or commas, or in a file of them, as the plug-in `web_pages`.

    The label is by default the file, or the first address.
    """
    file = Path(place) if isinstance(place, str) and "://" not in place else None
    if file is not None and not file.is_file():
        raise NotFound(f"{file}: there is no such file of addresses. Name one, or give addresses.")
    urls = words_of(file.read_text("utf-8") if file else place)
    named = file.resolve().as_posix() if file else urls[0] if urls else ""
    return WebPages(urls, label or named, words_of(allow_hosts), float(pause_s))
