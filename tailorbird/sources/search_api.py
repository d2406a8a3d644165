"""Any search API that answers JSON as a source that is asked live: its address, and where its results stand."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError, RecipeError
from tailorbird.records import Document, Passage
from tailorbird.sources.addresses import MAX_CHARS, read_address
from tailorbird.sources.fetching import Fetched, Fetcher, Limits
from tailorbird.sources.live_passages import best_passages, parsing_limits, sendable
from tailorbird.sources.named_variables import (
    check_address,
    check_headers,
    check_values,
    filled_headers,
    filled_in,
    filled_values,
)
from tailorbird.sources.result_fields import ResultFields, parsed
from tailorbird.sources.web_reading import Visitor, document_of, words_of

log = logging.getLogger(__name__)

ANSWER_BYTES = 2 * 2**20
PAGE_BYTES = 5 * 2**20
MAX_PAGES = 5
"""Pages of one question that are read."""
BUSY = frozenset({429, 503})
ATTEMPTS = 2
QUERY, COUNT = "{query}", "{k}"


@dataclass(frozen=True)
class SearchApi:
    """Passages from the results of a search API, in its order fused with BM25, or from the pages that it finds.

    A passage's `document` is the result's link. Results without a link are named by the API's host and their place.

    Args:
        url: an address with `{query}` where the question goes, `{k}` where the number of results does, and the name
            of an environment variable, such as `$SHOP_KEY`, where a key does.
        results: where the answer holds its list of results: names apart by dots, such as `data.items`, through lists
            too; empty if the answer is the list.
        text: likewise where a result holds its text; several are joined.
        title: likewise its title; empty if it has none.
        link: likewise its address; empty if it has none.
        headers: further ones, each with the name of the environment variable that holds what is secret in it, such as
            `"Bearer $SHOP_KEY"`.
        body: what is sent as JSON, by POST, with `{query}`, `{k}` and names of environment variables inside its texts;
            without it a GET asks.
        read_pages: read the found pages (at most 5) and take passages from these; one that can't be read leaves its
            result's text.
        allow_hosts: hosts of found pages that may be on a private network. The API's own host may be.
        timeout_s: seconds that one question may take, its pages included.

    Raises:
        RecipeError: the address has no place for the question, or a header, the address or the body holds a key.
        DocumentError: an address, or a host in `allow_hosts`, is none.
    """

    url: str
    results: str = "results"
    text: tuple[str, ...] | str = ("text", "snippet", "content", "description")
    title: str = "title"
    link: str = "url"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Any] | None = None
    read_pages: bool = False
    allow_hosts: tuple[str, ...] | str = ()
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_headers("search_api", self.headers)
        check_address("search_api", "address", self.url)
        check_values("search_api", "body", self.body)
        if QUERY not in self.url and QUERY not in json.dumps(self.body):
            raise RecipeError(
                f"search_api: neither the address {self.url!r} nor the body says where the question goes. Write "
                f"{QUERY} in its place, as in https://shop.example/search?q={QUERY}&n={COUNT}"
            )
        host = self.url.partition("://")[2].partition("/")[0]
        if "{" in host:
            raise RecipeError(
                f"search_api: the host {host!r} has a gap. A question must not choose who is asked."
            )
        self._pages()
        read_address(self._filled("q", 1))

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages.

        Raises:
            EndpointError: the API can't be reached, refuses, or answers something else than its settings say.
            NotFound: an environment variable that a header names is not set.
        """
        words = sendable(query)
        if k <= 0 or not words:
            return []
        began = time.monotonic()
        place = read_address(self._filled("q", 1)).authority
        answer = parsed_answer(self._asked(words, k, place), place)
        text = (self.text,) if isinstance(self.text, str) else self.text
        found = ResultFields(self.results, text, self.title, self.link).documents(answer, place)
        if self.read_pages:
            once: dict[str, Document] = {}
            for result in found:
                once.setdefault(result.id, result)
            found = list(once.values())
            first = found[: min(k, MAX_PAGES)]
            found = [*self._read(first, began + self.timeout_s), *found[len(first) :]]
        return best_passages(found, query, k)

    def _filled(self, words: str, k: int, url: str = "") -> str:
        return (url or self.url).replace(COUNT, str(k)).replace(QUERY, quote(words, safe=""))

    def _asked(self, words: str, k: int, place: str) -> Fetched:
        """The answer; a busy API is asked once more."""
        headers = filled_headers(self.headers, place)
        # Keys first, so that a question can't name a variable.
        template = filled_in(self.url, f"{place}: url", encode=quote_whole)
        body = filled_values(self.body, f"{place}: body")
        url = self._filled(words, k, template)
        while (
            len(url) > MAX_CHARS and len(words) > 1
        ):  # in some scripts a word takes a whole line of an address
            words = words[: len(words) * 3 // 4]
            url = self._filled(words, k, template)
        try:
            # The address is the user's own setting, so its host may be on a private network.
            host = read_address(url)
        except DocumentError:
            raise EndpointError(
                f"{self.url} is no address once its variables are filled in. Check their values."
            ) from None
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(ATTEMPTS):
            limits = Limits(max(0.1, deadline - time.monotonic()), self.timeout_s, ANSWER_BYTES)
            answer = self._once(
                Fetcher((host.authority,), limits), url, headers, _with_gaps_filled(body, words, k)
            )
            wait_s = answer.retry_after_s or 0.5
            if answer.status not in BUSY or attempt + 1 == ATTEMPTS or time.monotonic() + wait_s >= deadline:
                return answer
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    def _once(self, fetcher: Fetcher, url: str, headers: Mapping[str, str], body: Any) -> Fetched:
        try:
            if body is None:
                return fetcher.fetch(url, headers={"Accept": "application/json", **headers})
            sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
            return fetcher.send(url, json.dumps(body).encode(), sent)
        except (DocumentError, EndpointError) as error:
            # An address may hold a key, and a message may be logged: the setting stands for it.
            shown = str(error).replace(read_address(url).url, self.url)
            if " redirects " in shown:
                shown = f"{self.url} redirects to where it can't be read. Give the address that it should lead to."
            raise EndpointError(f"{shown} Check the address of the search API.") from None

    def _pages(self) -> Fetcher:
        return Fetcher(words_of(self.allow_hosts))

    def _read(self, found: list[Document], end: float) -> Iterator[Document]:
        """The pages that results lead to, in their place; where one can't be read, the result itself."""
        with ParserProcess() as parser:
            for result in found:
                left_s = end - time.monotonic()
                try:
                    if left_s <= 0:
                        raise EndpointError("there was no time left to read it.")  # noqa: TRY301 - as any other
                    limits = Limits(left_s, left_s, PAGE_BYTES)
                    visitor = Visitor(
                        Fetcher(words_of(self.allow_hosts), limits), 0.0, parser, max_wait_s=0.0
                    )
                    page = visitor.page(read_address(result.id))
                    parser.limits = parsing_limits(end - time.monotonic())
                    yield document_of(result.id, page, parser)
                except (DocumentError, EndpointError) as error:
                    log.info("search_api: the text of the result stands for its page: %s", error)
                    yield result


def quote_whole(text: str) -> str:
    """Percent-encoded, so that it is one part of an address."""
    return quote(text, safe="")


def parsed_answer(answer: Fetched, place: str) -> Any:
    """What an API answered, as JSON.

    Raises:
        EndpointError: it refused, or it is no JSON.
    """
    if not 200 <= answer.status < 300:
        advice = {401: "Check the key.", 403: "Check the key.", 429: "Ask less often, or later."}
        raise EndpointError(
            f"{place}: status {answer.status}. {advice.get(answer.status, 'Check the address of the search API.')}",
            answer.status,
        )
    return parsed(answer.body, place, answer.kind)


def _with_gaps_filled(value: Any, words: str, k: int) -> Any:
    """A body's texts with the question in them; a text that is nothing but `{k}` becomes a number."""
    if isinstance(value, str):
        return k if value == COUNT else value.replace(COUNT, str(k)).replace(QUERY, words)
    if isinstance(value, Mapping):
        return {key: _with_gaps_filled(inner, words, k) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_gaps_filled(inner, words, k) for inner in value]
    return value
