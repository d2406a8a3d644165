"""The one way to MCP servers: a process that the user configured, or HTTP through the one fetcher.

Both are transports beneath the SDK's client. The one reads no more of a process's output than there is room for; by
the other every message goes as a request of `Fetcher`, and what a server would say without being asked is not read.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tailorbird.errors import DocumentError, EndpointError, RecipeError, TailorbirdError
from tailorbird.sources.addresses import read_address
from tailorbird.sources.fetching import USER_AGENT, Fetcher, Limits
from tailorbird.sources.named_variables import check_address, check_headers, filled_headers, filled_in

if TYPE_CHECKING:
    import httpx2
    from anyio.abc import Process

ANSWER_BYTES = 20 * 2**20
"""What a server may say to one question, and in one message."""
STOP_S = 2.0
"""Seconds for a process to end by itself once its input is closed."""
ERRORS_KEPT = 2_000
"""Characters of a process's last error output, for the message if it fails."""


@dataclass(frozen=True)
class McpServer:
    """Where an MCP server is.

    Args:
        place: an http(s) address of its streamable HTTP endpoint, or a command, in words as a shell has them, that
            starts it and speaks over its input and output. No shell runs the command. What is secret in either is the
            name of the environment variable that holds it, such as `$SHOP_KEY`.
        env: names of environment variables that a started process gets besides PATH, HOME and the like.
        headers: for HTTP, each with the name of the environment variable that holds its value.

    Raises:
        RecipeError: there is no command, or a header or the address holds a key.
        DocumentError: the address is none.
    """

    place: str
    env: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        check_headers("mcp", self.headers)
        if self.is_remote:
            check_address("mcp", "address", self.place)
            read_address(self.place)
            return
        try:
            words = shlex.split(self.place)
        except ValueError as error:
            raise RecipeError(
                f"mcp: the command {self.place!r} can't be divided into words ({error})."
            ) from None
        if not words:
            raise RecipeError(
                "mcp: there is no server. Give a command that starts it, or its http(s) address."
            )

    @property
    def is_remote(self) -> bool:
        return self.place.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The server in few words, for messages and names of documents: its host, or the script or package."""
        if self.is_remote:
            return read_address(self.place).authority
        command, *words = shlex.split(self.place)
        told = next((w for w in words if re.search(r"\w[./_@-]", w) and not w.startswith("-")), command)
        return told.rstrip("/").rpartition("/")[2] or command

    def address(self, encode: Callable[[str], str] = str) -> str:
        """The address to ask, filled in; `encode` sees every value.

        Raises:
            NotFound: an environment variable that it names is not set.
            EndpointError: what they hold makes it none.
        """
        url = filled_in(self.place, self.shown, lambda value: quote(encode(value), safe=""))
        try:
            return read_address(url).url
        except DocumentError:
            raise EndpointError(
                f"{self.place} is no address once its variables are filled in. Check their values."
            ) from None

    def words(self, encode: Callable[[str], str] = str) -> list[str]:
        """The command's words, filled in; `encode` sees every value.

        Raises:
            NotFound: an environment variable that it names is not set.
        """
        return [filled_in(word, self.shown, encode) for word in shlex.split(self.place)]


# -- a process ------------------------------------------------------------------------------------


class Room:
    """How much a server has said since the last question, its last errors, and why the fetcher refused it, if so."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self.errors = deque[str](maxlen=ERRORS_KEPT)
        self.refused = ""
        self.secrets = set[str]()
        """What the server was given from the environment, and may repeat."""

    def keep_secret(self, value: str) -> str:
        """The value, which errors don't repeat from now on; what is as short as a switch is no secret."""
        if len(value) > 3:
            self.secrets |= {value, quote(value, safe="")}
        return value

    @property
    def last_words(self) -> str:
        """The end of the process's error output, on one line and without what it was given from the environment."""
        return " ".join(self.without_secrets("".join(self.errors)).split())[-300:]

    def without_secrets(self, text: str) -> str:
        """A text for a message that may be logged."""
        for value in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(value, "…")
        return text

    def clear(self) -> None:
        self._num_bytes, self.refused = 0, ""

    def take(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes

    @property
    def is_full(self) -> bool:
        return self._num_bytes > ANSWER_BYTES


@asynccontextmanager
async def over_pipes(server: McpServer, room: Room) -> AsyncGenerator[Any]:
    """Starts the server's process, and gives the streams of its messages; at the end the process is ended."""
    import anyio
    from mcp.client.stdio import get_default_environment

    given = {name: filled_in(f"${{{name}}}", f"{server.shown}: env", room.keep_secret) for name in server.env}
    process = await anyio.open_process(
        server.words(room.keep_secret),
        env={**get_default_environment(), **given},
        start_new_session=True,  # so that its own children end with it
    )
    to_us, heard = anyio.create_memory_object_stream[Any](0)
    said, from_us = anyio.create_memory_object_stream[Any](0)
    async with anyio.create_task_group() as tasks, to_us, heard, said, from_us:
        tasks.start_soon(_hear, process, to_us, room)
        tasks.start_soon(_say, process, from_us)
        tasks.start_soon(_keep_errors, process, room.errors)
        try:
            yield heard, said
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            tasks.cancel_scope.cancel()


async def _hear(process: Process, to_us: Any, room: Room) -> None:
    """Messages from lines of the process's output, until it ends or has said too much."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    assert process.stdout
    rest = bytearray()
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async with to_us:
            while True:
                piece = await process.stdout.receive(2**16)
                room.take(len(piece))
                if room.is_full:
                    return
                rest += piece
                if b"\n" not in piece:
                    continue
                *lines, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in lines:
                    try:
                        message: Any = SessionMessage(
                            jsonrpc_message_adapter.validate_json(line, by_name=False)
                        )
                    except ValueError as error:
                        message = error
                    await to_us.send(message)


async def _say(process: Process, from_us: Any) -> None:
    import anyio

    assert process.stdin
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async for message in from_us:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(f"{text}\n".encode())


async def _keep_errors(process: Process, errors: deque[str]) -> None:
    import anyio

    assert process.stderr
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        while True:
            errors.extend((await process.stderr.receive(2**14)).decode("utf-8", "replace"))


async def _end(process: Process) -> None:
    """Closes the process's input, waits a little, and then ends it and what it started."""
    import anyio

    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        if process.stdin:
            await process.stdin.aclose()
    with anyio.move_on_after(STOP_S):
        await process.wait()
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode is None:
            process.kill()
    with anyio.move_on_after(STOP_S), suppress(OSError):
        await process.aclose()


# -- HTTP -----------------------------------------------------------------------------------------


@asynccontextmanager
async def over_http(server: McpServer, room: Room, timeout_s: float) -> AsyncGenerator[Any]:
    """The SDK's streamable HTTP, whose every request goes by the one fetcher."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    # The address is the user's own setting, so its host may be on a private network.
    url = server.address(room.keep_secret)
    fetcher = Fetcher((read_address(url).authority,), Limits(timeout_s, timeout_s, ANSWER_BYTES))
    headers = filled_headers(server.headers, server.shown)

    class Guarded(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            try:
                return await _fetched(fetcher, request)
            except TailorbirdError as error:
                room.refused = str(error).replace(url, server.place)
                raise httpx2.ConnectError(room.refused) from None

    async with (
        httpx2.AsyncClient(
            transport=Guarded(), headers={"User-Agent": USER_AGENT, **headers}, timeout=None, trust_env=False
        ) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


async def _fetched(fetcher: Fetcher, request: httpx2.Request) -> httpx2.Response:
    """One exchange. A stream of what the server says without being asked is not opened: such a GET gets status 405."""
    import anyio.to_thread
    import httpx2

    if request.method == "GET":
        return httpx2.Response(405, request=request)
    body = await request.aread()
    sent = {name: value for name, value in request.headers.items() if name not in {"host", "content-length"}}
    answer = await anyio.to_thread.run_sync(
        lambda: fetcher.send(str(request.url), body, sent, request.method), abandon_on_cancel=True
    )
    kept = {
        name: v for name, v in answer.headers.items() if name not in {"content-encoding", "content-length"}
    }
    return httpx2.Response(answer.status, headers=kept, content=answer.body, request=request)
