"""A MediaWiki export, such as a dump of Wikipedia, as a connector."""

from __future__ import annotations

import operator
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from tailorbird.data.documents import Unchanged, Unreadable, document_from_bytes, reading_version
from tailorbird.data.mediawiki_export import Page, Site, read_pages
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import Limits, clean_text
from tailorbird.data.readers.wikitext import MOST_CHARS
from tailorbird.errors import DocumentError, RecipeError
from tailorbird.records import Document
from tailorbird.sources.web_reading import reason_of, words_of

PAGE_LIMITS = Limits(cpu_s=5.0, wall_s=60.0)
"""What one page may cost; the largest real ones take half a second."""
MOST_PROCESSES = 8
WAITING = 4
"""Pages a process that are read ahead."""

_SHOWS_NO_TEXT = {-2: "Media", 6: "File", 14: "Category"}
_DATE = re.compile(r"-(?:\d{8}|latest)(?=[-.])")

Item = Document | Unreadable | Unchanged


@dataclass(frozen=True)
class WikipediaDump:
    """The pages of a MediaWiki export, each a document: its id is the page's address, its version its revision.

    Redirects are left out. A page that an export holds twice is read where it comes first.

    Args:
        file: XML, plain or packed by bzip2 (also in many streams).
        label: names the dump in an index, by default the file's name without its date: the next month's dump
            of the same wiki takes the place of this one.
        namespaces: numbers of the namespaces that are read; 0 holds the articles.
        processes: how many convert pages at the same time; 0 takes as many as there are processors, up to 8.

    Raises:
        RecipeError: No namespace is named, or `processes` is below 0.
    """

    file: Path
    label: str = ""
    namespaces: tuple[int, ...] = (0,)
    processes: int = 0

    complete = True

    def __post_init__(self) -> None:
        if not self.namespaces or self.processes < 0:
            raise RecipeError(
                f"wikipedia_dump: got namespaces {list(self.namespaces)} and processes {self.processes}; expected at "
                "least one namespace, such as 0 for articles, and processes from 0."
            )

    @property
    def name(self) -> str:
        return f"wikipedia_dump:{self.label or _DATE.sub('', self.file.name).removesuffix('.bz2')}"

    @property
    def reading(self) -> str:
        """Changes wherever pages are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Item]:
        """Every page, or why it gives no document.

        Raises:
            NotFound: There is no such file.
            DocumentError: It is no export, damaged, or cut short; an index then keeps what it has.
        """
        return self.changes({})

    def changes(self, known: Mapping[str, str]) -> Iterator[Item]:
        """As `documents`, but pages of the revision that is known are not converted."""
        processes = self.processes or min(os.cpu_count() or 1, MOST_PROCESSES)
        waiting: deque[Future[Item] | Item] = deque()
        with _converting(processes) as convert:
            for site, page in self._pages():
                waiting.append(_item(site, page, known, convert))
                while waiting and (len(waiting) > WAITING * processes or _is_ready(waiting[0])):
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())

    def _pages(self) -> Iterator[tuple[Site, Page]]:
        seen: set[int] = set()
        for site, page in read_pages(self.file):
            if page.namespace not in self.namespaces or page.is_redirect or not page.title:
                continue
            mark = hash(page.title)  # a whole wiki's titles would take gigabytes
            if mark not in seen:
                seen.add(mark)
                yield site, page


Convert = Callable[[Site, Page], Future[Item]]


def _item(site: Site, page: Page, known: Mapping[str, str], convert: Convert) -> Future[Item] | Item:
    address = site.address(page.title)
    if page.revision and known.get(address) == page.revision:
        return Unchanged(address)
    if page.text is None:
        return Unreadable(address, f"has more than {MOST_CHARS:,} characters of wikitext. Divide it.")
    if page.model not in {"wikitext", ""}:
        return Unreadable(address, f"is of the content model {page.model[:40]!r}; expected 'wikitext'.")
    return convert(site, page)


def _is_ready(item: Future[Item] | Item) -> bool:
    return not isinstance(item, Future) or item.done()


def _result(item: Future[Item] | Item) -> Item:
    return item.result() if isinstance(item, Future) else item


@contextmanager
def _converting(processes: int) -> Generator[Convert]:
    """A function that converts pages beside what else is done, in so many processes."""
    parsers = [ParserProcess(PAGE_LIMITS) for _ in range(processes)]
    idle: SimpleQueue[ParserProcess] = SimpleQueue()
    for parser in parsers:
        idle.put(parser)

    def convert(site: Site, page: Page) -> Item:
        parser = idle.get()
        try:
            return _document(site, page, parser)
        finally:
            idle.put(parser)

    pool = ThreadPoolExecutor(processes, "convert pages")
    try:
        yield lambda site, page: pool.submit(convert, site, page)
    finally:
        pool.shutdown(cancel_futures=True)
        for parser in parsers:
            parser.close()


def _document(site: Site, page: Page, parser: ParserProcess) -> Document | Unreadable:
    address = site.address(page.title)
    text = _with_plain_prefixes(page.text or "", site).encode("utf-8", "replace")
    try:
        document = document_from_bytes(address, text, ".wikitext", parser)
    except DocumentError as error:
        return Unreadable(address, reason_of(address, error))
    return replace(document, title=clean_text(page.title), version=page.revision)


def _with_plain_prefixes(text: str, site: Site) -> str:
    """The wiki's own words for files and categories, such as `Datei:`, as those that every wiki knows."""
    for number, plain in _SHOWS_NO_TEXT.items():
        name = site.namespaces.get(number, plain)
        if name and name != plain:
            written = r"[\s_]+".join(map(re.escape, name.replace("_", " ").split()))
            text = re.sub(rf"\[\[\s*{written}\s*:", f"[[{plain}:", text, flags=re.IGNORECASE)
    return text


def wikipedia_dump_at(
    place: str, *, label: str = "", namespaces: int | str | Sequence[int] = 0, processes: int = 0
) -> WikipediaDump:
    """The export in a file, as the plug-in `wikipedia_dump`; several namespaces may be numbers apart by commas.

    Raises:
        RecipeError: A namespace is no whole number.
    """
    listed = (namespaces,) if isinstance(namespaces, int) else namespaces
    given = words_of(listed) if isinstance(listed, str) else listed
    try:
        numbers = tuple(
            int(number) if isinstance(number, str) else operator.index(number) for number in given
        )
    except (TypeError, ValueError):
        raise RecipeError(
            f"wikipedia_dump: got namespaces {namespaces!r}; expected whole numbers, such as 0,4."
        ) from None
    return WikipediaDump(Path(place), label, numbers, processes)
