"""Every failure as an HTTP answer in OpenAI's error shape.

    {"error": {"message": …, "type": …, "param": …, "code": …}}

The official client tries 408, 409, 429 and every 5xx again by itself; `x-should-retry: false` tells it
where another attempt would fail the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailorbird.errors import (
    ContextTooLong,
    EndpointError,
    InputError,
    RequestError,
    TailorbirdError,
    Unsupported,
)

INVALID = "invalid_request_error"
SERVER = "server_error"
TRANSIENT = frozenset({0, 408, 409, 429, 500, 502, 503, 504})
"""Statuses of a remote endpoint (0: no answer at all) that may be different the next time."""


class Refusal(RequestError):  # noqa: N818 - it is no failure of ours
    """A request that the API refuses, with the HTTP answer that says so.

    Args:
        message: what is wrong, what was expected and what to do.
        param: the field of the request that is at fault.
        code: OpenAI's code.
        status: HTTP status.
        type: OpenAI's error type.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = "invalid_value",
        status: int = 400,
        type: str = INVALID,  # noqa: A002 - the wire's word
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(status, message, type, param, code, _with_retry(status, headers or {}))


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP answer that reports a failure."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def failure_of(error: BaseException, request_id: str) -> Failure:
    """How an exception is answered; what was not raised on purpose says nothing of the inside."""
    if isinstance(error, Refusal):
        return error.failure
    if isinstance(error, TailorbirdError):
        return _on_purpose(error)
    message = f"The server failed on this request. Its log tells more under {request_id}."
    return Failure(500, message, SERVER, code="internal_error")


def of_status(status: int, method: str, path: str) -> Failure:
    """The answer to a request that no route takes."""
    if status == 404:
        message = (
            f"There is nothing at {path}. This server has /v1/models, /v1/chat/completions and /healthz."
        )
        return Failure(404, message, code="not_found", headers=_with_retry(404, {}))
    if status == 405:
        message = f"{path} does not take {method}. See the Allow header."
        return Failure(405, message, code="method_not_allowed", headers=_with_retry(405, {}))
    return Failure(status, f"{method} {path}: HTTP {status}.", INVALID if status < 500 else SERVER)


def _on_purpose(error: TailorbirdError) -> Failure:
    message = str(error)
    final = _with_retry(400, {})
    match error:
        case ContextTooLong():
            return Failure(400, message, param="messages", code="context_length_exceeded", headers=final)
        case Unsupported():
            return Failure(400, message, code="unsupported", headers=final)
        case InputError():
            return Failure(400, message, code="invalid_value", headers=final)
        case EndpointError():
            headers = {} if error.status in TRANSIENT else final
            return Failure(502, message, SERVER, code="endpoint_error", headers=headers)
        case _:
            return Failure(500, message, SERVER, code="engine_error", headers=final)


def _with_retry(status: int, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, and a word against retries unless waiting helps."""
    return dict(headers) if status in TRANSIENT else {"x-should-retry": "false", **headers}
