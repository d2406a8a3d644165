"""Blocking work for the event loop: a bounded number of threads, a bounded queue before them.

One answer is produced by one thread from beginning to end: an engine holds a lock and a thread-local
mode between two pieces of a stream, and only the thread that took them may let go of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from tailorbird.server.failures import SERVER, Refusal

T = TypeVar("T")


class _End:
    """Nothing follows."""


class Work(Generic[T]):
    """Work under way in a thread, seen from the event loop: its results, then its failure or end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._results: deque[T | BaseException | _End] = deque()
        self._arrived = asyncio.Event()
        self._cancelled = threading.Event()
        self.future: Future[None] | None = None

    async def arrived(self) -> None:
        """Waits until there is something to take. Giving up the wait loses nothing."""
        await self._arrived.wait()

    def take(self) -> T | None:
        """The next result, which has arrived; None after the last.

        Raises:
            Exception: what the work raised.
        """
        result = self._results.popleft()
        if not self._results:
            self._arrived.clear()
        if isinstance(result, BaseException):
            raise result
        return None if isinstance(result, _End) else result

    def cancel(self) -> None:
        """Stops the work at its next result, or before it has begun. To be called when it has ended, too."""
        self._cancelled.set()
        if self.future is not None:
            self.future.cancel()

    def fail(self, error: Exception) -> None:
        """Cancels, and tells whoever waits for the next result why."""
        self.cancel()
        self._send(error)

    def run(self, produce: Callable[[], Generator[T, None, None]]) -> None:
        """Runs in the thread: takes every result from the generator, and closes it here."""
        try:
            results = produce()
            try:
                for result in results:
                    if self._cancelled.is_set():
                        return
                    self._send(result)
            finally:
                results.close()
            self._send(_End())
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
            self._send(error)

    def _send(self, result: T | BaseException | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped, nobody waits
            self._loop.call_soon_threadsafe(self._put, result)

    def _put(self, result: T | BaseException | _End) -> None:
        self._results.append(result)
        self._arrived.set()


class Workers:
    """Threads that work for the event loop.

    Args:
        num_threads: how much is worked on at a time.
        num_waiting: how much may wait beyond that.
    """

    def __init__(self, num_threads: int, num_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tailorbird-server")
        self._most = num_threads + num_waiting
        self._lock = threading.Lock()
        self._under_way: set[Work[Any]] = set()

    @property
    def num_under_way(self) -> int:
        """How much is being worked on or waits."""
        return len(self._under_way)

    def start(self, produce: Callable[[], Generator[T, None, None]]) -> Work[T]:
        """Starts work, or queues it.

        Raises:
            Refusal: the queue is full (HTTP 429).
        """
        work: Work[T] = Work()
        with self._lock:
            if len(self._under_way) >= self._most:
                raise Refusal(
                    f"The server is busy: {self._most} requests are under way or wait already. "
                    "Try again soon.",
                    status=429,
                    type="rate_limit_error",
                    code="queue_full",
                    headers={"retry-after": "1"},
                )
            self._under_way.add(work)
        work.future = self._pool.submit(work.run, produce)
        work.future.add_done_callback(lambda _: self._finished(work))
        return work

    def stop(self) -> None:
        """Cancels everything; threads end at their next result."""
        with self._lock:
            under_way = list(self._under_way)
        for work in under_way:
            work.fail(Refusal("The server is stopping.", status=503, type=SERVER, code="stopping"))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _finished(self, work: Work[Any]) -> None:
        with self._lock:
            self._under_way.discard(work)
