"""Sessions with MCP servers, spoken by the official SDK (https://modelcontextprotocol.io), asked from any thread.

A session stays open between two questions, since starting a server may take seconds. The server can ask for nothing:
neither a model's words nor files nor the user are offered to it.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tailorbird.errors import EndpointError, NotFound, TailorbirdError
from tailorbird.sources.mcp_transports import ANSWER_BYTES, STOP_S, McpServer, Room, over_http, over_pipes
from tailorbird.sources.optional import need

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from mcp import Client

T = TypeVar("T")
Work = Callable[["Client"], Awaitable[T]]

START_S = 30.0
"""Seconds for a process to start and to agree on the protocol, at least."""
GRACE_S = 3.0

logging.getLogger("mcp").addHandler(logging.NullHandler())  # what the SDK tells is heard by those who listen


class McpSession:
    """A session with one server: opened by the first question, again after it broke, closed at the end.

    Threads may share it.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def call(self, work: Work[T], timeout_s: float) -> T:
        """What `work` gives with a client of the server; a session that broke since the last call is opened again.

        Raises:
            EndpointError: the server can't be started or reached, refuses, says too much, or is too slow.
            NotFound: an environment variable is not set, or there is no such command.
            Unsupported: the SDK is not installed.
        """
        need("mcp", "mcp", "mcp")
        with self._lock:
            line, fresh = self._line, False
            if line is None or not line.is_open:
                # What is asked over HTTP has been started already.
                start_s = timeout_s if self.server.is_remote else max(START_S, timeout_s)
                line, fresh = _Line(self.server, start_s), True
                self._line = line
                weakref.finalize(self, line.close)
        try:
            return line.call(work, timeout_s)
        except _BrokenError as error:
            line.close()
            if fresh:
                raise EndpointError(f"{self.server.shown}: {error}") from None
            with self._lock:
                if self._line is line:
                    self._line = None
            return self.call(work, timeout_s)

    def close(self) -> None:
        """Ends the session, and the process if it was started for it. The next call opens another one."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.close(wait_s=STOP_S + GRACE_S)


class _BrokenError(Exception):
    """The session is at its end, and another one might not be."""


class _Line:
    """An open session: a thread with an event loop, in which the SDK's client lives."""

    def __init__(self, server: McpServer, start_s: float) -> None:
        self._server, self._owner = server, os.getpid()
        self._room = Room()
        self._portal: BlockingPortal | None = None
        self._client: Client | None = None
        self._failed: BaseException | None = None
        self._opened = threading.Event()
        self._calls = threading.Lock()
        self._num_calls, self._is_left = 0, False
        self._thread = threading.Thread(target=self._run, args=(start_s,), name="mcp", daemon=True)
        self._thread.start()
        _LINES.add(self)
        if not self._opened.wait(start_s + GRACE_S):
            self.close()
            raise EndpointError(f"{server.shown}: it didn't start within {start_s:g} s. {self._said()}")
        if self._failed is not None:
            raise self._error(self._failed, start_s)

    @property
    def is_open(self) -> bool:
        """Whether further calls may go by it."""
        if self._is_left or self._owner != os.getpid():
            return False
        return self._thread.is_alive() and self._client is not None

    def call(self, work: Work[T], timeout_s: float) -> T:
        """What `work` gives.

        After a call that was too slow the line takes no more, for a server that hangs would be asked again and again;
        calls that are under way are not disturbed, and the last of them closes it.

        Raises:
            _BrokenError: the session ended before.
            EndpointError: the server failed.
        """
        with self._calls:
            self._num_calls += 1
        try:
            return self._call(work, timeout_s)
        finally:
            with self._calls:
                self._num_calls -= 1
                is_last = self._is_left and not self._num_calls
            if is_last:
                self.close()

    def _call(self, work: Work[T], timeout_s: float) -> T:
        self._room.clear()
        if self._portal is None or self._client is None:
            raise _BrokenError(f"the session is closed. {self._said()}")
        try:
            future = self._portal.start_task_soon(_within, work, self._client, timeout_s)
        except RuntimeError:
            raise _BrokenError(f"the session ended. {self._said()}") from None
        try:
            return future.result(timeout_s + GRACE_S)
        except (TimeoutError, FutureTimeoutError) as error:
            future.cancel()
            self._is_left = True
            raise self._error(error, timeout_s) from None
        except Exception as error:  # noqa: BLE001 - the SDK's and its libraries' own
            if self._room.is_full:
                self.close()
            elif _is_closed(error) and not self._room.refused:
                raise _BrokenError(f"it ended in the middle. {self._said()}".rstrip()) from None
            raise self._error(error, timeout_s) from None

    def close(self, wait_s: float = 0.0) -> None:
        """Ends the session; the thread sees to the process's end by itself, and is waited for no longer than said."""
        portal, self._portal, self._client = self._portal, None, None
        if self._owner != os.getpid():
            return
        if portal is not None:
            with suppress(RuntimeError):  # it has ended
                portal.start_task_soon(portal.stop, True)
        if wait_s and threading.current_thread() is not self._thread:
            self._thread.join(wait_s)

    def _run(self, start_s: float) -> None:
        import anyio

        try:
            anyio.run(self._serve, start_s)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the session is told
            self._failed = error
        finally:
            self._client = self._portal = None
            self._opened.set()

    async def _serve(self, start_s: float) -> None:
        import anyio
        from anyio.from_thread import BlockingPortal
        from mcp import Client
        from mcp.types import Implementation

        async with BlockingPortal() as portal:
            self._portal = portal
            with anyio.fail_after(start_s) as scope:
                async with Client(
                    self._transport(start_s),
                    cache=None,
                    client_info=Implementation(name="tailorbird", version="0.1"),
                ) as client:
                    scope.deadline = math.inf
                    self._client = client
                    self._opened.set()
                    await portal.sleep_until_stopped()

    def _transport(self, timeout_s: float) -> Any:
        if self._server.is_remote:
            return over_http(self._server, self._room, timeout_s)
        return over_pipes(self._server, self._room)

    def _error(self, error: BaseException, seconds: float) -> TailorbirdError:
        """One of ours for whatever happened."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        where = self._server.shown
        if isinstance(error, TailorbirdError):
            return error
        if isinstance(error, FileNotFoundError | PermissionError):
            return NotFound(
                f"{where}: the command {self._server.place!r} can't be started ({error.strerror}). Install it, or "
                "correct the path."
            )
        return EndpointError(f"{where}: {self._reason(error, seconds)}".rstrip())

    def _reason(self, error: BaseException, seconds: float) -> str:
        if self._room.is_full:
            return f"it said more than {ANSWER_BYTES:,} bytes to one question."
        if self._room.refused:
            return self._room.refused
        if isinstance(error, TimeoutError | FutureTimeoutError):
            return f"it took longer than {seconds:g} s. Allow more by timeout_s. {self._said()}"
        if isinstance(error, CancelledError):
            return "the session was closed."
        told = self._room.without_secrets(str(getattr(getattr(error, "error", None), "message", error)))
        words = " ".join(told.split())[:300]
        last = self._said() if isinstance(error, Exception) and _is_closed(error) else ""
        return f"{words or type(error).__name__}. {last}"

    def _said(self) -> str:
        """The last lines that the process wrote to its error output."""
        last = self._room.last_words
        return f"Its last words: {last}" if last else ""


_LINES: weakref.WeakSet[_Line] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No process that was started for a session outlives this one, even one that hangs."""
    lines = list(_LINES)
    for line in lines:
        line.close()
    for line in lines:
        line.close(wait_s=STOP_S + GRACE_S)


async def _within(work: Work[T], client: Client, timeout_s: float) -> T:
    import anyio

    with anyio.fail_after(timeout_s):
        return await work(client)


def _is_closed(error: Exception) -> bool:
    import anyio
    from mcp.shared.exceptions import MCPError
    from mcp.types import CONNECTION_CLOSED

    if isinstance(error, MCPError):
        # The words are those by which the SDK says that a server has forgotten the session.
        return error.error.code == CONNECTION_CLOSED or error.error.message == "Session terminated"
    return isinstance(error, anyio.ClosedResourceError | anyio.BrokenResourceError)
