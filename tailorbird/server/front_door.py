"""What every request passes first: its id, whose it is, how large it may be, and the last catch."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import uuid
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tailorbird.server.failures import Failure, Refusal, failure_of

MOST_BODY_BYTES = 2_000_000
DRAINED_BODY_BYTES = 16_000_000
"""Of a body that is too large this much is read and thrown away: a client that is still sending would
otherwise see a broken connection in place of the answer."""
BODY_TIMEOUT_S = 60.0
OPEN_PATHS = frozenset({"/healthz"})

logger = logging.getLogger("tailorbird.server")


class FrontDoor:
    """ASGI middleware: an `x-request-id` on every answer, the key, the host, and the last catch.

    Args:
        app: what comes behind.
        key: the bearer key; None lets everybody on this machine in.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {
                    **message,
                    "headers": [*message["headers"], (b"x-request-id", request_id.encode())],
                }
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # it left before its request was complete: nobody to answer
        except Exception as error:
            if not isinstance(error, Refusal):
                logger.exception("%s %s failed (%s)", scope["method"], scope["path"], request_id)
            if started:
                raise  # too late for an answer: the server cuts the connection, which the client notices
            await failure_response(failure_of(error, request_id))(scope, receive, send_with_id)

    def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._key is None:
            _check_host(headers)
        elif scope["path"] not in OPEN_PATHS:
            _check_key(headers, self._key)


def failure_response(failure: Failure) -> JSONResponse:
    """The HTTP answer that reports a failure."""
    return JSONResponse(failure.body, failure.status, dict(failure.headers))


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """A request's JSON body as bytes.

    Raises:
        Refusal: it is too large, comes too slowly, or is not declared as JSON.
    """
    # A web page may send any other type to a server on this machine without asking the browser's leave.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(
            f"content-type: got {kind[:80]!r}; expected 'application/json'. "
            "Send that header with the JSON body.",
            code="invalid_content_type",
        )
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_at_most(request)
    except TimeoutError as error:
        raise Refusal(
            f"body: not complete after {BODY_TIMEOUT_S:.0f} seconds. Send it again, faster.",
            status=408,
            code="timeout",
        ) from error


async def _read_at_most(request: Request) -> bytes:
    body = bytearray()
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MOST_BODY_BYTES:
            body += piece
        elif size > DRAINED_BODY_BYTES:
            break
    if size > MOST_BODY_BYTES:
        raise Refusal(
            f"body: more than {MOST_BODY_BYTES} bytes; expected at most that. "
            "Send fewer or shorter messages.",
            status=413,
            code="request_too_large",
        )
    return bytes(body)


def _check_key(headers: Mapping[bytes, bytes], key: bytes) -> None:
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        given = b""
    if not hmac.compare_digest(given.strip(), key):
        what = "Incorrect API key" if given else "No API key"
        raise Refusal(
            f"{what}. Send the key that this server was started with as 'Authorization: Bearer KEY'.",
            status=401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _check_host(headers: Mapping[bytes, bytes]) -> None:
    """Without a key only pages of this machine may come: a web page could point its own name at 127.0.0.1."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if not is_loopback(name.strip("[]")):
        raise Refusal(
            f"host: got {json.dumps(host[:100])}; without a key this server answers to localhost only. "
            "Ask http://127.0.0.1, or start the server with a key.",
            status=403,
            type="permission_error",
            code="host_not_allowed",
        )
