"""A tool of an MCP server as a source that is asked live: called with the question, by the configured name alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, EndpointError, RecipeError
from tailorbird.records import Document, Passage
from tailorbird.sources.live_passages import MAX_RESULTS, best_passages, document_at, parsing_limits, sendable
from tailorbird.sources.mcp_contents import document_of_content
from tailorbird.sources.mcp_session import McpSession
from tailorbird.sources.mcp_transports import McpServer
from tailorbird.sources.named_variables import check_values, filled_values
from tailorbird.sources.result_fields import ResultFields
from tailorbird.sources.web_reading import words_of

MAX_LINKED = 5
"""Resources of one answer that are read because the tool links to them."""


@dataclass(frozen=True)
class McpTool:
    """Passages from what a tool answers: its texts, resources and links to the server's own resources, or parts of
    its structured result, in its order fused with BM25.

    Only this tool is ever called, with these arguments: what it answers is text, whatever it asks for.

    Args:
        server: an http(s) address, or a command that starts the server; keys in it are named as in `headers`.
        tool: the tool's name.
        argument: which of its arguments is the question.
        count_argument: which is the number of results; empty if none is.
        arguments: further ones, the same in every call; keys in them are named as in `headers`.
        results: where its structured result, or the JSON that its text is, holds the list of results; empty takes
            its contents as they are. See `SearchApi`, also for `text`, `title` and `link`.
        text: where a result holds its text.
        title: where a result holds its title.
        link: where a result holds its address.
        env: names of environment variables that a started server gets.
        headers: for an address, each with the name of the environment variable that holds its value.
        timeout_s: seconds that one question may take.

    Raises:
        RecipeError: there is no server or tool, or an argument is given twice.
    """

    server: str
    tool: str
    argument: str = "query"
    count_argument: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    results: str = ""
    text: tuple[str, ...] | str = ("text", "snippet", "content", "description")
    title: str = "title"
    link: str = "url"
    env: tuple[str, ...] | str = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        _ = self._session  # which checks where the server is, and opens nothing
        check_values("mcp_tool", "arguments", self.arguments)
        if not self.tool or not self.argument:
            raise RecipeError("mcp_tool: name the tool, and the argument that takes the question.")
        asked = [name for name in (self.argument, self.count_argument) if name]
        if twice := sorted({*self.arguments} & {*asked}) or asked[1:] * (len(set(asked)) < len(asked)):
            raise RecipeError(f"mcp_tool: the argument {twice[0]!r} is given twice. Leave one out.")

    @cached_property
    def _session(self) -> McpSession:
        return McpSession(McpServer(self.server, words_of(self.env), self.headers))

    def prepare(self) -> None:
        """Starts the server, which may take longer than a question may.

        Raises:
            EndpointError: it doesn't start.
        """
        self._session.call(_nothing, self.timeout_s)

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages.

        Raises:
            EndpointError: the server can't be started or reached, is too slow, or the tool fails.
        """
        words = sendable(query)
        if k <= 0 or not words:
            return []
        place = f"{self._session.server.shown}/{self.tool}"
        arguments = {**filled_values(self.arguments, f"{place}: arguments"), self.argument: words}
        if self.count_argument:
            arguments[self.count_argument] = k
        contents, structured = self._session.call(self._asking(arguments, place), self.timeout_s)
        found = (
            self._structured(contents, structured, place) if self.results else self._plain(contents, place)
        )
        return best_passages(found, query, k)

    def _asking(self, arguments: Mapping[str, Any], place: str) -> Any:
        async def work(client: Any) -> tuple[list[Any], Any]:
            answer = await client.call_tool(self.tool, dict(arguments))
            if answer.is_error:
                said = " ".join(" ".join(_texts(answer.content)).split())[:300]
                raise EndpointError(f"{place}: the tool failed: {said or 'it says nothing'}")
            contents: list[Any] = []
            links = 0
            for content in answer.content[:MAX_RESULTS]:
                if content.type == "resource_link" and links < MAX_LINKED:
                    # Read from the server that named it, and from nowhere else.
                    links += 1
                    read = await client.read_resource(str(content.uri))
                    contents += read.contents[:MAX_RESULTS]
                else:
                    contents.append(content)
            return contents, answer.structured_content

        return work

    def _structured(self, contents: list[Any], structured: Any, place: str) -> list[Document]:
        value = structured
        if value is None:
            with suppress(ValueError, RecursionError):
                value = json.loads("".join(_texts(contents)))
        if value is None:
            raise EndpointError(
                f"{place}: the tool gives no structured result, and its text is no JSON. Leave the setting `results` "
                "out."
            )
        text = (self.text,) if isinstance(self.text, str) else self.text
        return ResultFields(self.results, text, self.title, self.link).documents(value, place)

    def _plain(self, contents: list[Any], place: str) -> Iterator[Document]:
        with ParserProcess(parsing_limits(self.timeout_s)) as parser:
            for number, content in enumerate(contents[:MAX_RESULTS], 1):
                document = _document(content, f"{place}#{number}", parser)
                if document is not None:
                    yield document


def _document(content: Any, name: str, parser: ParserProcess) -> Document | None:
    """A content as a document; None for pictures, sounds and what can't be read."""
    if getattr(content, "type", "") == "text":
        return document_at(name, content.text)
    held = content.resource if getattr(content, "type", "") == "resource" else content
    if not hasattr(held, "text") and not hasattr(held, "blob"):
        return None
    with suppress(DocumentError):
        found = document_of_content(str(held.uri), held, parser)
        return document_at(found.id, found.text, found.title, found.version)
    return None


async def _nothing(_client: Any) -> None:
    """An open session is all that is wanted."""


def _texts(contents: list[Any]) -> list[str]:
    return [content.text for content in contents if getattr(content, "type", "") == "text"]
