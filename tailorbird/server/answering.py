"""Answering a chat request: the model's side in a worker thread, the client's side on the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tailorbird.errors import TailorbirdError
from tailorbird.records import Completion
from tailorbird.server import wire_answers as answers
from tailorbird.server.failures import failure_of
from tailorbird.server.opened import OpenedModels
from tailorbird.server.wire import ChatRequest
from tailorbird.server.workers import Work

logger = logging.getLogger("tailorbird.server")


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an answer and its record; None where the model's stream left none."""

    completion: Completion | None


Step = answers.Head | str | Ending
"""What answering yields: the head once the model is open, pieces of text if streaming, the ending."""


class ClientGone(Exception):  # noqa: N818 - not a failure of anybody
    """The client has closed the connection: nobody waits for the answer."""


# -- in a worker thread -----------------------------------------------------------------------


def answer(models: OpenedModels, chat: ChatRequest) -> Generator[Step, None, None]:
    """Opens the model and asks it."""
    opened = models.open(chat.model)
    request = chat.ask(opened)
    yield answers.Head.of(opened, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))
    if chat.stream and request.choices is None:
        yield Ending((yield from _pieces(opened.model.stream(request))))
        return
    completion = opened.model.answer([request])[0]
    if chat.stream:
        yield answers.answer_text(completion, chat.closed_set)
    yield Ending(completion)


def _pieces(stream: Iterator[str]) -> Generator[str, None, Completion | None]:
    """A model's stream; the record is what its generator returns, if it returns one."""
    try:
        while True:
            try:
                yield next(stream)
            except StopIteration as end:
                return end.value if isinstance(end.value, Completion) else None
    finally:
        if isinstance(stream, Generator):
            stream.close()


# -- on the event loop ------------------------------------------------------------------------


async def whole(request: Request, chat: ChatRequest, work: Work[Step]) -> Response:
    """The answer as one JSON object.

    Raises:
        ClientGone: nobody waits for it any more.
    """
    await _next_for(request, work)
    head = work.take()
    await _next_for(request, work)
    ending = work.take()
    assert isinstance(head, answers.Head)
    assert isinstance(ending, Ending)
    assert ending.completion is not None
    return JSONResponse(answers.chat_completion(head, ending.completion, chat.closed_set))


async def streamed(request: Request, chat: ChatRequest, work: Work[Step], keep_alive_s: float) -> Response:
    """The answer as server-sent events.

    What fails before the first piece is still a plain error answer, unless that takes so long that the
    client needs a sign of life first.

    Raises:
        ClientGone: nobody waits for it any more.
    """
    early: list[Step | None] = []
    end_s = time.monotonic() + keep_alive_s
    while len(early) < 2 and await _next_for(request, work, max(0.0, end_s - time.monotonic())):
        early.append(work.take())
    return _EventStream(_events(request, chat, _steps(early, work, keep_alive_s)), work)


class _EventStream(StreamingResponse):
    """Server-sent events that stop the work behind them when they end, however they end."""

    def __init__(self, events: AsyncGenerator[bytes, None], work: Work[Step]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self.headers["x-accel-buffering"] = "no"
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._work.cancel()


async def _events(
    request: Request, chat: ChatRequest, steps: AsyncGenerator[Step | None, None]
) -> AsyncGenerator[bytes, None]:
    try:
        head: answers.Head | None = None
        async for step in steps:
            if step is None:
                yield answers.KEEP_ALIVE
            elif isinstance(step, answers.Head):
                head = step
                yield answers.event(answers.role_chunk(head))
            else:
                assert head is not None, "the head comes first"
                for chunk in _chunks(head, step, include_usage=chat.include_usage):
                    yield answers.event(chunk)
        yield answers.DONE
    except Exception as error:  # the status is sent: only an event can still tell
        request_id = request.state.request_id
        trace = None if isinstance(error, TailorbirdError) else error
        logger.warning("a stream broke off: %s (%s)", error, request_id, exc_info=trace)
        yield answers.event(failure_of(error, request_id).body)


def _chunks(head: answers.Head, step: str | Ending, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    if isinstance(step, Ending):
        yield answers.final_chunk(head, step.completion)
        if include_usage:
            yield answers.usage_chunk(head, step.completion)
    elif step:
        yield answers.content_chunk(head, step)


async def _steps(
    early: list[Step | None], work: Work[Step], keep_alive_s: float
) -> AsyncGenerator[Step | None, None]:
    """The steps of an answer to its ending, and None whenever there has been none for a while."""
    for step in early:
        yield step
    step = early[-1] if early else None
    while not isinstance(step, Ending):
        arrived = asyncio.ensure_future(work.arrived())
        try:
            await asyncio.wait({arrived}, timeout=keep_alive_s)
            step = work.take() if arrived.done() else None
        finally:
            arrived.cancel()
        yield step


async def _next_for(request: Request, work: Work[Step], timeout_s: float | None = None) -> bool:
    """Waits for the next step as long as the client does; whether it came in time.

    Raises:
        ClientGone: the client has not waited.
    """
    arrived, gone = asyncio.ensure_future(work.arrived()), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({arrived, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not arrived.done():
            raise ClientGone
        return arrived.done()
    finally:
        arrived.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
