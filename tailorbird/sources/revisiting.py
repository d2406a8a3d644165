"""What is remembered of a web page, so that its server can say that it is as it was (RFC 9110, section 13)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path

from tailorbird.data.documents import reading_version
from tailorbird.records import content_hash
from tailorbird.sources import web_reading
from tailorbird.sources.fetching import Fetched

MAX_VALIDATOR = 512
"""Characters of an ETag that is remembered."""
MAX_KEPT_LINKS = 1_000
"""A page with more links than this is read anew each time."""
SETTLED_S = 60
"""A page may have changed again within the time that `Last-Modified` can tell apart; older ones are settled."""


@dataclass(frozen=True)
class Note:
    """Of a page that was read: the document it gave, and by what its server recognises it.

    `place` is the address that it came from, after redirects; `links` and `canonical` are what a crawl needs of it.
    """

    document: str
    version: str
    place: str
    etag: str = ""
    modified: str = ""
    canonical: str = ""
    links: tuple[str, ...] = ()

    def conditions(self) -> dict[str, dict[str, str]]:
        """The headers that ask for the page only if it changed, for the one address they are of."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {self.place: {name: value for name, value in found.items() if value}}

    def text(self) -> str:
        """The note as an index keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False)


def note_of(
    answer: Fetched, document: str, version: str, links: Sequence[str] = (), canonical: str = ""
) -> Note | None:
    """What to remember of a page; None if its server gives nothing to recognise it by."""
    etag = _plain(answer.headers.get("etag", ""))
    modified = _settled(answer.headers.get("last-modified", ""), answer.headers.get("date", ""))
    if not (etag or modified) or len(links) > MAX_KEPT_LINKS:
        return None
    return Note(document, version, answer.address.url, etag, modified, canonical, tuple(links))


def read_note(text: str | None, known: Mapping[str, str]) -> Note | None:
    """The note of a page whose document the index still holds as it was; else None, and the page is read anew."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        facts = json.loads(text or "")
        facts["links"] = tuple(facts["links"])
        note = Note(**facts)
        return note if known.get(note.document) == note.version else None
    return None


@cache
def web_reading_version() -> str:
    """Changes wherever pages are read otherwise than before."""
    return content_hash([reading_version(), Path(web_reading.__file__).read_text("utf-8")])


def _plain(value: str) -> str:
    """A header's value that can be sent back as it is; anything else is forgotten."""
    return value if len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable() else ""


def _settled(modified: str, date: str) -> str:
    """`Last-Modified`, if the page had not changed for so long that its next change will show."""
    with contextlib.suppress(ValueError, TypeError):
        age = parsedate_to_datetime(date) - parsedate_to_datetime(modified)
        if age.total_seconds() >= SETTLED_S:
            return _plain(modified)
    return ""
