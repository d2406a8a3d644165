"""Wikipedia, or any other MediaWiki, as a source that is asked live over its Action API.

The API: https://www.mediawiki.org/wiki/API:Main_page. Its etiquette asks for a telling User-Agent and for
`maxlag`, by which a wiki that is behind says so and is asked again later.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tailorbird.errors import DocumentError, EndpointError
from tailorbird.records import Document, Passage
from tailorbird.sources.addresses import read_address
from tailorbird.sources.fetching import USER_AGENT, Fetched, Fetcher, Limits
from tailorbird.sources.live_passages import best_passages, document_at

INTRODUCTION = f"{USER_AGENT} (knowledge source; https://www.mediawiki.org/wiki/API:Etiquette)"

MAX_QUERY = 300
"""Characters of a question; the wiki's search refuses longer ones."""

MAX_PAGES = 20
"""Pages of one question whose openings the API gives."""

MAX_LAG_S = 5
ATTEMPTS = 3


@dataclass(frozen=True)
class Wikipedia:
    """Passages from the opening sections of the pages that a wiki's own search finds.

    A passage's `document` is the page's address, its `version` the page's revision. `endpoint` is the
    address of an `api.php`; by default that of the Wikipedia in `language`.

    Raises:
        EndpointError: The wiki cannot be reached, or answers something else than its API does.
    """

    language: str = "en"
    endpoint: str | None = None
    timeout_s: float = 10.0

    @property
    def public(self) -> bool:
        """Whether everyone may read it: Wikipedia yes, a wiki of one's own not without saying who."""
        return self.endpoint is None

    @property
    def url(self) -> str:
        """The address of the API."""
        return self.endpoint or f"https://{self.language}.wikipedia.org/w/api.php"

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages: the wiki's ranking of pages fused with BM25 over their passages."""
        words = _plain_words(query)
        if k <= 0 or not words:
            return []
        pages = self._pages(words, min(k, MAX_PAGES))
        return best_passages(pages, query, k)

    def _pages(self, words: str, limit: int) -> list[Document]:
        answer = self._ask(
            {
                "action": "query",
                "format": "json",
                "formatversion": "2",
                "maxlag": str(MAX_LAG_S),
                "generator": "search",
                "gsrsearch": words,
                "gsrlimit": str(limit),
                "gsrnamespace": "0",
                "prop": "extracts|info",
                "exintro": "1",
                "explaintext": "1",
                "exlimit": "max",
                "inprop": "url",
            }
        )
        try:
            # A search that finds nothing is answered without a "query" at all.
            found = sorted(answer.get("query", {}).get("pages", []), key=lambda page: page["index"])
            documents = [_document(page) for page in found if page.get("extract")]
            return [document for document in documents if document is not None]
        except (KeyError, TypeError, AttributeError) as error:
            raise EndpointError(
                f"{self.url} answered a search with pages of an unknown form ({error!r}). "
                "Check that the address is that of a MediaWiki api.php with the extension TextExtracts."
            ) from error

    def _ask(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The API's answer; a wiki that is busy is asked again, a few times."""
        for _ in range(ATTEMPTS):
            status, wait_s, answer = self._get(parameters)
            if status in (429, 503) or _error_code(answer) == "maxlag":
                time.sleep(min(wait_s, self.timeout_s))
                continue
            if status == 200 and isinstance(answer, dict) and "error" not in answer:
                return answer
            raise EndpointError(
                f"{self.url} answered with status {status}: {_error_text(answer)}. "
                "Expected the address of a MediaWiki api.php."
            )
        raise EndpointError(f"{self.url} is busy: it refused {ATTEMPTS} times. Try again later.")

    def _get(self, parameters: Mapping[str, str]) -> tuple[int, float, Any]:
        """Status, seconds to wait as the wiki asks for, and the parsed answer (None if it is not JSON)."""
        separator = "&" if "?" in self.url else "?"
        url = f"{self.url}{separator}{urlencode(parameters)}"
        try:
            # The address is the user's own setting, so its host may be on a private network.
            host = read_address(self.url)
            fetcher = Fetcher((host.authority,), Limits(self.timeout_s, self.timeout_s), INTRODUCTION)
            answer = fetcher.fetch(url)
        except (DocumentError, EndpointError) as error:
            # Without the question, which is nothing for a log.
            reason = str(error).replace(_whole(url), self.url)
            raise EndpointError(
                f"The wiki at {self.url} cannot be reached: {reason} "
                "Give another address, or index a folder of documents instead."
            ) from error
        wait = answer.retry_after_s
        return answer.status, 1.0 if wait is None else wait, _parsed(answer)


def _whole(url: str) -> str:
    """The address as the fetcher's errors name it; what is none, as it stands."""
    try:
        return read_address(url).url
    except DocumentError:
        return url


def _parsed(answer: Fetched) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _plain_words(query: str) -> str:
    """The question's words without the search's operators (`insource:`, `-`, `OR`, quotes), cut to length."""
    words = " ".join(re.findall(r"\w+(?:['’.]\w+)*", query.lower()))
    if len(words) <= MAX_QUERY:
        return words
    return words[: MAX_QUERY + 1].rpartition(" ")[0] or words[:MAX_QUERY]


def _document(page: Mapping[str, Any]) -> Document | None:
    return document_at(page["canonicalurl"], page["extract"], page["title"], str(page["lastrevid"]))


def _error_code(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("code", "")) if isinstance(error, dict) else ""


def _error_text(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("info", error)) if isinstance(error, dict) else "not an answer of the MediaWiki API"
