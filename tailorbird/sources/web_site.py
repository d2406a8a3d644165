"""A website as a connector: all pages beneath an address, by the site's own list or by its links."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from protego import Protego

from tailorbird.data.documents import Unchanged, Unreadable
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError, KindError, RecipeError
from tailorbird.records import Document
from tailorbird.sources.addresses import PORTS, Address, joined, read_address
from tailorbird.sources.fetching import USER_AGENT, Fetched, Fetcher, Limits
from tailorbird.sources.revisiting import Note, note_of, read_note, web_reading_version
from tailorbird.sources.sitemap import MAX_PLACES, read_sitemap
from tailorbird.sources.source import Removed
from tailorbird.sources.unpacking import unpacked
from tailorbird.sources.web_reading import (
    GONE,
    MAX_LINKS,
    NOT_FOUND,
    NOT_MODIFIED,
    Visitor,
    document_of,
    links_of,
    reason_of,
    words_of,
)

AGENT = USER_AGENT.partition("/")[0]
"""The name by which robots.txt may speak to us."""
MAX_ROBOTS_BYTES = 512_000
MAX_SITEMAPS = 50
MAX_PAUSE_S = 60.0
MAX_FAILURES = 10
"""Pages in a row that fail before a site is taken to be down."""
MAX_TOLD = 5
"""Doubts that are told one by one."""
GZIP = b"\x1f\x8b"


@dataclass
class WebSite:
    """The pages of a site whose addresses begin as `start` does, up to its last `/`.

    They are those that the site's sitemaps list, or else those that links lead to, breadth first. robots.txt
    is kept to, with its crawl delay. A document's id is its address in one form, after redirects. A page whose
    server says that it is as it was (ETag, Last-Modified) is not sent again.

    Args:
        start: an http or https address.
        label: names the site in an index; by default its address.
        allow_hosts: hosts that may be on a private network, as for `Fetcher`.
        exclude: beginnings of paths that are left out, such as `/login`.
        max_pages: pages that are asked for, at most.
        max_depth: links from `start` to a page, at most, where there is no sitemap.
        max_bytes: size of all pages together.
        pause_s: seconds between two requests; more if robots.txt asks for it, up to 60.
        sitemaps: whether to look for sitemaps.
        limits: what one page may take.

    Raises:
        DocumentError: `start`, or a host in `allow_hosts`, is no address.
        RecipeError: A number is out of its range.
    """

    start: str
    label: str = ""
    allow_hosts: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_pages: int = 1_000
    max_depth: int = 10
    max_bytes: int = 500 * 2**20
    pause_s: float = 1.0
    sitemaps: bool = True
    limits: Limits = field(default_factory=Limits)
    notes: dict[str, str] = field(default_factory=dict[str, str], init=False, repr=False, compare=False)
    """By what each page is recognised, kept by the index from one sync to the next."""
    _complete: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_pages < 1 or self.max_depth < 0 or self.max_bytes < 1 or self.pause_s < 0:
            raise RecipeError(
                f"web_site: got max_pages {self.max_pages}, max_depth {self.max_depth}, max_bytes {self.max_bytes} "
                f"and pause_s {self.pause_s:g}; expected at least 1, 0, 1 and 0."
            )
        Fetcher(self.allow_hosts)
        read_address(self.start)

    @property
    def name(self) -> str:
        return f"web_site:{self.label or read_address(self.start).url}"

    @property
    def complete(self) -> bool:
        """Whether the last `documents()`, read to its end, listed all of the site without errors.

        Pages that are not there (404, 410) or of a kind that is not read are no errors. Anything else is, as
        are limits that were reached and redirects that hold only for now: an outage never looks like deletion.
        """
        return self._complete

    def documents(self) -> Iterator[Document | Removed | Unreadable]:
        """Every page, and every one that gives no document, with the reason.

        Raises:
            DocumentError: The site may not be read, or `start` leads elsewhere.
            EndpointError: The site cannot be reached; an index then keeps what it has.
        """
        for item in self.changes({}):
            assert not isinstance(item, Unchanged)
            yield item

    @property
    def reading(self) -> str:
        """Changes wherever pages are read otherwise than before."""
        return web_reading_version()

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Removed | Unreadable | Unchanged]:
        """As `documents`, but a page of the version that is known is only asked whether it changed."""
        self._complete = False
        with ParserProcess() as parser:
            crawl = _Crawl(self, parser, known)
            yield from crawl.pages()
        if not crawl.doubts:
            for url in self.notes.keys() - crawl.noted:
                del self.notes[url]
        self._complete = not crawl.doubts


class _Crawl:
    """One walk over a site."""

    def __init__(self, site: WebSite, parser: ParserProcess, versions: Mapping[str, str]) -> None:
        self.site, self.start, self.versions = site, read_address(site.start), versions
        self.noted: set[str] = set()
        """Addresses whose notes are true."""
        self.visitor = Visitor(Fetcher(site.allow_hosts, site.limits), site.pause_s, parser)
        self.prefix = self.start.path[: self.start.path.rindex("/") + 1]
        self.doubts: dict[str, None] = {}
        """Why there may be more than was listed."""
        self.queue: deque[tuple[Address, int]] = deque()
        self.known: set[str] = set()
        """Pages that were given or wait in the queue."""
        self.num_failures = 0
        self.num_bytes = 0

    def pages(self) -> Iterator[Document | Removed | Unreadable | Unchanged]:
        self.robots = self._robots()
        listed = list(islice(self._sitemap_pages(), MAX_PLACES)) if self.site.sitemaps else []
        if len(listed) == MAX_PLACES:
            self._doubt(f"The sitemaps list {MAX_PLACES:,} addresses or more, so not all were read.")
        inside = [self._enqueue(address, 0) for address in listed]
        follow = not any(inside)
        if follow:
            self._must_be_open(self.start)
            self._enqueue(self.start, 0)
        for _ in range(self.site.max_pages):
            if not self.queue or self._has_to_end():
                break
            address, depth = self.queue.popleft()
            yield from self._visit(address, depth, follow=follow)
        if self.queue and not self._has_to_end():
            self._doubt(f"More than {self.site.max_pages} pages; raise max_pages to read them all.")
        if self.doubts:
            # Its id is the site's own name, which no page has.
            told = list(self.doubts)
            more = [f"And {len(told) - MAX_TOLD} more."] if len(told) > MAX_TOLD else []
            yield Unreadable(self.site.name, " ".join(told[:MAX_TOLD] + more))

    def _visit(
        self, address: Address, depth: int, *, follow: bool
    ) -> Iterator[Document | Removed | Unreadable | Unchanged]:
        note = read_note(self.site.notes.get(address.url), self.versions)
        try:
            answer = self.visitor.page(address, note.conditions() if note else None)
        except KindError as error:
            self._raise_if_start(address, error)
            yield Unreadable(address.url, reason_of(address.url, error))
        except EndpointError as error:
            yield self._failed(address, error)
        except DocumentError as error:
            self._raise_if_start(address, error)
            self._doubt(f"{address.url} was not read.")
            yield Unreadable(address.url, reason_of(address.url, error))
        else:
            self.num_failures = 0
            self.num_bytes += len(answer.body)
            if not self._is_inside(answer.address):
                yield self._outside(address, answer.address)
                return
            if note and answer.status == NOT_MODIFIED:
                links = [read_address(link) for link in note.links]
                canonical = read_address(note.canonical) if note.canonical else None
            else:
                note = None
                links, canonical = links_of(answer)
            if follow:
                self._follow(links, depth)
            yield from self._given(address, answer, links, canonical, note)

    def _failed(self, address: Address, error: EndpointError) -> Removed | Unreadable:
        self._raise_if_start(address, error)
        if error.status == GONE:
            return Removed(address.url)
        if error.status != NOT_FOUND:
            self.num_failures += 1
            self._doubt(f"{address.url} failed.")
        return Unreadable(address.url, reason_of(address.url, error))

    def _raise_if_start(self, address: Address, error: Exception) -> None:
        if address == self.start:
            raise error

    def _given(
        self,
        address: Address,
        answer: Fetched,
        links: list[Address],
        canonical: Address | None,
        note: Note | None,
    ) -> Iterator[Document | Unreadable | Unchanged]:
        place = answer.address
        if place != address:
            if not answer.moved_for_good:
                told = f"redirects to {place.url} for now, so what else is gone can't be told."
                self._doubt(f"{address.url} {told}")
                yield Unreadable(address.url, f"{told} Start there, or exclude it.")
            if place.url in self.known:
                return
            self.known.add(place.url)
        if canonical and self._is_inside(canonical) and _differ_in_query(canonical, place):
            if canonical.url in self.known:
                return
            self.known.add(canonical.url)
            place = canonical
        try:
            if note and note.document != place.url:  # it gave another document then
                answer, note = self.visitor.page(address), None
            if note:
                self.noted.add(address.url)
                yield Unchanged(place.url)
                return
            document = document_of(place.url, answer, self.visitor.parser)
        except (DocumentError, EndpointError) as error:
            yield Unreadable(place.url, reason_of(place.url, error))
            return
        self._note(address, answer, document, links, canonical)
        same = self.versions.get(document.id) == document.version
        yield Unchanged(document.id) if same else document

    def _note(
        self,
        address: Address,
        answer: Fetched,
        document: Document,
        links: list[Address],
        canonical: Address | None,
    ) -> None:
        # All links, for what is inside may be said otherwise next time.
        named, urls = canonical.url if canonical else "", [link.url for link in links]
        note = note_of(answer, document.id, document.version, urls, named)
        if note:
            self.site.notes[address.url] = note.text()
            self.noted.add(address.url)
        else:
            self.site.notes.pop(address.url, None)

    def _outside(self, address: Address, place: Address) -> Unreadable:
        error = DocumentError(
            f"{address.url}: redirects to {place.url}, which is no part of the site. Start there."
        )
        self._raise_if_start(address, error)
        return Unreadable(address.url, reason_of(address.url, error))

    def _follow(self, links: list[Address], depth: int) -> None:
        if len(links) == MAX_LINKS:
            self._doubt(f"A page has more than {MAX_LINKS:,} links.")
        if depth < self.site.max_depth:
            for link in links:
                self._enqueue(link, depth + 1)
        elif any(self._is_inside(link) and link.url not in self.known for link in links):
            self._doubt(f"Links deeper than {self.site.max_depth} were not followed; raise max_depth.")

    def _enqueue(self, address: Address, depth: int) -> bool:
        """Whether the address is a page of the site that may be read."""
        if not self._is_inside(address) or not self.robots.can_fetch(address.url, AGENT):
            return False
        if len(self.known) >= MAX_PLACES:
            self._doubt(f"More than {MAX_PLACES:,} addresses; take a part of the site as start.")
        elif address.url not in self.known:
            self.known.add(address.url)
            self.queue.append((address, depth))
        return True

    def _doubt(self, told: str) -> None:
        self.doubts[told] = None

    def _is_inside(self, address: Address) -> bool:
        return (
            _site_of(address) == _site_of(self.start)
            and address.path.startswith(self.prefix)
            and not address.path.startswith(tuple(self.site.exclude))
        )

    def _has_to_end(self) -> bool:
        if self.num_failures >= MAX_FAILURES:
            self._doubt(
                f"{MAX_FAILURES} pages in a row failed, so the rest was not asked for. Try again later."
            )
            return True
        if self.num_bytes > self.site.max_bytes:
            self._doubt(f"More than {self.site.max_bytes:,} bytes; raise max_bytes to read them all.")
            return True
        return False

    def _robots(self) -> Protego:
        """The site's rules; a site whose rules can't be had is not read at all (RFC 9309)."""
        address = joined(self.start, "/robots.txt")
        answer = self.visitor.get(address)
        if answer.status >= 500 or answer.status == 429:
            raise EndpointError(
                f"{address.url}: status {answer.status}, so which pages may be read is not known. Try again later.",
                answer.status,
            )
        found = 200 <= answer.status < 300
        robots = Protego.parse(answer.body[:MAX_ROBOTS_BYTES].decode("utf-8", "replace") if found else "")
        rate = robots.request_rate(AGENT)
        asked_s = max(robots.crawl_delay(AGENT) or 0, rate.seconds / max(rate.requests, 1) if rate else 0)
        if asked_s > MAX_PAUSE_S:
            raise DocumentError(
                f"{address.url}: asks for {asked_s:g} s between two pages; at most {MAX_PAUSE_S:g} s are waited. "
                "List the pages that you need instead (web_pages)."
            )
        self.visitor.pause_s = max(self.visitor.pause_s, asked_s)
        return robots

    def _must_be_open(self, address: Address) -> None:
        if not self.robots.can_fetch(address.url, AGENT):
            raise DocumentError(
                f"{address.url}: robots.txt closes it to programs. Ask the site, or list the pages that you "
                "need instead (web_pages)."
            )

    def _sitemap_pages(self) -> Iterator[Address]:
        """All addresses in the sitemaps that robots.txt names, or else in /sitemap.xml."""
        named = list(islice(self.robots.sitemaps, MAX_SITEMAPS + 1))
        waiting = deque(named or ["/sitemap.xml"])
        seen: set[str] = set()
        while waiting and len(seen) < MAX_SITEMAPS:
            try:
                address = joined(self.start, waiting.popleft())
            except DocumentError as error:
                self._doubt(f"A sitemap's address was not read: {error}")
                continue
            if address.url not in seen:
                seen.add(address.url)
                pages, more = self._sitemap(address, is_guess=not named and len(seen) == 1)
                waiting.extend(more)
                yield from self._addresses(address, pages)
        if waiting:
            self._doubt(f"More than {MAX_SITEMAPS} sitemaps, so not all were read.")

    def _sitemap(self, address: Address, *, is_guess: bool) -> tuple[list[str], list[str]]:
        try:
            answer = self.visitor.get(address)
            if answer.status >= 400 and is_guess and answer.status < 500 and answer.status != 429:
                return [], []
            if not 200 <= answer.status < 300:
                self._doubt(f"The sitemap {address.url} answered with status {answer.status}.")
                return [], []
            if is_guess and answer.kind in {"text/html", "application/xhtml+xml"}:
                return [], []  # a page that says in words that there is none
            data = (
                unpacked(answer.body, self.site.limits.size_bytes) if answer.body[:2] == GZIP else answer.body
            )
            return read_sitemap(data)
        except (DocumentError, EndpointError) as error:
            self._doubt(f"The sitemap {address.url} was not read: {reason_of(address.url, error)}")
            return [], []

    def _addresses(self, sitemap: Address, pages: list[str]) -> Iterator[Address]:
        for page in pages:
            try:
                yield read_address(page)
            except DocumentError as error:
                self._doubt(f"The sitemap {sitemap.url} names what is no address: {error}")


def _site_of(address: Address) -> tuple[str, int]:
    """Host and port; http and https on their own ports are one site."""
    return address.host, 0 if address.port == PORTS[address.scheme] else address.port


def _differ_in_query(a: Address, b: Address) -> bool:
    """Whether two addresses differ in the query or a closing `/` only: often one page with two names."""
    return a != b and a.path.rstrip("/") == b.path.rstrip("/")


def web_site_at(
    place: str,
    *,
    allow_hosts: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    pause_s: float = 1.0,
    **rest: Any,
) -> WebSite:
    """The site at an address, as the plug-in `web_site`; lists may be words apart by commas."""
    return WebSite(
        place, allow_hosts=words_of(allow_hosts), exclude=words_of(exclude), pause_s=float(pause_s), **rest
    )
