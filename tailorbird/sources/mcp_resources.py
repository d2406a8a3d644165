"""The resources of an MCP server as a connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tailorbird.data.documents import Unchanged, Unreadable, reading_version
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import EndpointError
from tailorbird.records import Document, content_hash
from tailorbird.sources.mcp_contents import documents_of
from tailorbird.sources.mcp_session import McpSession
from tailorbird.sources.mcp_transports import McpServer
from tailorbird.sources.web_reading import words_of

MAX_RESOURCES = 20_000
MAX_LISTS = 1_000
"""Pages of the list of resources that are asked for."""


@dataclass(frozen=True)
class McpResources:
    """All resources that an MCP server lists; a document's id is its URI.

    A resource that says when it was last changed is read again once that is another time; others are read each time,
    and known by a hash of their content. Resources that only a template names are not listed, and so not read.

    Args:
        server: where the server is.
        label: names the server in an index; by default its command or address.
        timeout_s: seconds that one request may take.
    """

    server: McpServer
    label: str = ""
    timeout_s: float = 30.0
    _complete: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"mcp_resources:{self.label or self.server.place}"

    @property
    def complete(self) -> bool:
        """Whether the last listing came to its end."""
        return self._complete

    @property
    def reading(self) -> str:
        """Changes wherever contents are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Document | Unreadable]:
        """Every resource, or why it gives no document.

        Raises:
            EndpointError: the server can't be reached, or its resources can't be listed.
        """
        for item in self.changes({}):
            assert not isinstance(item, Unchanged)
            yield item

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but what is of the version that is known is not parsed, or not even asked for."""
        object.__setattr__(self, "_complete", False)
        session = McpSession(self.server)
        try:
            listed, whole = self._listed(session)
            given: set[str] = set()
            with ParserProcess() as parser:
                for resource in listed:
                    if str(resource.uri) in given:  # by a folder that was listed before it
                        continue
                    for item in self._read(session, resource, parser, known):
                        if item.id not in given:
                            given.add(item.id)
                            yield item
            object.__setattr__(self, "_complete", whole)
        finally:
            session.close()

    def _listed(self, session: McpSession) -> tuple[Sequence[Any], bool]:
        """The resources, each once, and whether these are all."""
        found: dict[str, Any] = {}
        cursor: str | None = None
        for _ in range(MAX_LISTS):
            page = session.call(_list(cursor), self.timeout_s)
            for resource in page.resources:
                found.setdefault(str(resource.uri), resource)
            cursor = page.next_cursor
            if not cursor or len(found) >= MAX_RESOURCES:
                break
        return list(found.values())[:MAX_RESOURCES], not cursor and len(found) <= MAX_RESOURCES

    def _read(
        self, session: McpSession, resource: Any, parser: ParserProcess, known: Mapping[str, str]
    ) -> Iterator[Document | Unreadable | Unchanged]:
        uri = str(resource.uri)
        changed = resource.annotations.last_modified if resource.annotations else None
        stamp = content_hash(["changed", changed, resource.size, resource.mime_type]) if changed else ""
        if stamp and known.get(uri) == stamp:
            yield Unchanged(uri)
            return
        try:
            contents = session.call(_read(uri), self.timeout_s).contents
        except EndpointError as error:
            yield Unreadable(uri, str(error))
            return
        if not contents:
            yield Unreadable(uri, "the server gives it no content.")
        # The stamp stands for one document: of several, each is known by its own content.
        stamp = stamp if len(contents) == 1 and str(contents[0].uri or uri) == uri else ""
        title = resource.title or resource.name or ""
        for item in documents_of(uri, contents, parser, title):
            if isinstance(item, Document) and stamp:
                yield replace(item, version=stamp)
            elif isinstance(item, Document) and known.get(item.id) == item.version:
                yield Unchanged(item.id)
            else:
                yield item


def _list(cursor: str | None) -> Any:
    async def work(client: Any) -> Any:
        return await client.list_resources(cursor=cursor)

    return work


def _read(uri: str) -> Any:
    async def work(client: Any) -> Any:
        return await client.read_resource(uri)

    return work


def mcp_resources_at(
    place: str,
    *,
    label: str = "",
    env: str | Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> McpResources:
    """The resources of the server at an address, or of one that a command starts, as the plug-in `mcp_resources`."""
    return McpResources(McpServer(place, words_of(env), headers or {}), label, float(timeout_s))
