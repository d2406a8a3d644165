"""A list of web pages as a connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tailorbird.data.documents import Unchanged, Unreadable
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError
from tailorbird.records import Document
from tailorbird.sources.addresses import read_address
from tailorbird.sources.fetching import Fetcher, Limits
from tailorbird.sources.revisiting import note_of, read_note, web_reading_version
from tailorbird.sources.web_reading import NOT_MODIFIED, Visitor, document_of, reason_of, words_of


@dataclass(frozen=True)
class WebPages:
    """The pages at these addresses: HTML, text, Markdown, PDF or Word documents. Links are not followed.

    A document's id is its address in one form, without a fragment. A page that fails is said and stays in
    the index as it was; to forget it, take its address out of the list. A page whose server says that it
    is as it was (ETag, Last-Modified) is not sent again.

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
    notes: dict[str, str] = field(default_factory=dict[str, str], init=False, repr=False, compare=False)
    """By what each page is recognised, kept by the index from one sync to the next."""

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

    @property
    def reading(self) -> str:
        """Changes wherever pages are read otherwise than before."""
        return web_reading_version()

    def documents(self) -> Iterator[Document | Unreadable]:
        """Every page, or why it gives no document; one that leads to another one's address gives none."""
        for item in self.changes({}):
            assert not isinstance(item, Unchanged)
            yield item

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but a page of the version that is known is only asked whether it changed."""
        with ParserProcess() as parser:
            visitor = Visitor(Fetcher(self.allow_hosts, self.limits), self.pause_s, parser)
            yield from self._changes(visitor, known)

    def _changes(
        self, visitor: Visitor, known: Mapping[str, str]
    ) -> Iterator[Document | Unreadable | Unchanged]:
        listed = {address.url: address for address in map(read_address, self.urls)}
        given: dict[str, str] = {}
        for url in self.notes.keys() - listed.keys():
            del self.notes[url]
        for url, address in listed.items():
            note = read_note(self.notes.get(url), known)
            try:
                answer = visitor.page(address, note.conditions() if note else None)
                place = answer.address.url
                if place != url and (place in listed or place in given):
                    yield Unreadable(
                        url, f"redirects to {place}, which is there already. Remove the address."
                    )
                    continue
                given[place] = url
                if answer.status == NOT_MODIFIED:
                    yield Unchanged(url)
                    continue
                self.notes.pop(url, None)
                document = document_of(url, answer, visitor.parser)
                if new := note_of(answer, url, document.version):
                    self.notes[url] = new.text()
                yield Unchanged(url) if known.get(url) == document.version else document
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
