"""The HTTP API: OpenAI's models and chat completions over a workbench's models.

    GET  /healthz
    GET  /v1/models, /v1/models/{id}
    POST /v1/chat/completions

Every failure has OpenAI's error shape, and every answer an `x-request-id`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tailorbird.errors import InputError, TailorbirdError
from tailorbird.server.answering import ClientGone, answer, streamed, whole
from tailorbird.server.failures import failure_of, of_status
from tailorbird.server.front_door import FrontDoor, failure_response, read_body
from tailorbird.server.json_body import read_json
from tailorbird.server.opened import OpenedModels
from tailorbird.server.wire import read_chat
from tailorbird.server.wire_answers import model_object
from tailorbird.server.workers import Workers

if TYPE_CHECKING:
    from tailorbird.workbench import Workbench

logger = logging.getLogger("tailorbird.server")


@dataclass(frozen=True)
class _Service:
    """What the routes share. `keep_alive_s`: seconds of silence after which a stream says that it lives."""

    models: OpenedModels
    workers: Workers
    keep_alive_s: float


def create_app(
    workbench: Workbench,
    *,
    key: str | None = None,
    references: Sequence[str] = (),
    key_env: str | None = None,
    num_threads: int = 8,
    num_waiting: int = 64,
    keep_alive_s: float = 10.0,
) -> FastAPI:
    """The API over a workbench's models.

    Args:
        workbench: whose models are served; opened when first asked for.
        key: bearer key that every request but GET /healthz must carry; None: requests from this
            machine's own names only.
        references: MODEL references to serve besides those that the workbench lists.
        key_env: environment variable with the key of remote endpoints.
        num_threads: answers under way at a time.
        num_waiting: requests that may wait beyond those; more get HTTP 429.
        keep_alive_s: seconds of silence after which a stream sends a comment.

    Raises:
        InputError: the key is empty.
    """
    if key is not None and not key.strip():
        raise InputError(
            "key: got an empty one; expected a secret text. Leave it out to serve this machine only."
        )
    service = _Service(
        OpenedModels(workbench, references, key_env), Workers(num_threads, num_waiting), keep_alive_s
    )
    app = FastAPI(
        title="Tailorbird",
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.add_exception_handler(TailorbirdError, _on_failure)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(FrontDoor, key=key)
    app.add_api_route("/healthz", _health, methods=["GET"])
    app.add_api_route("/v1/models", _list_models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", _retrieve_model, methods=["GET"])
    app.add_api_route("/v1/chat/completions", _chat_completions, methods=["POST"])
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    yield
    app.state.service.workers.stop()


# -- routes -----------------------------------------------------------------------------------


async def _health() -> Response:
    return JSONResponse({"status": "ok"})


async def _list_models(request: Request) -> Response:
    listed = await asyncio.to_thread(_service(request).models.listed)
    return JSONResponse(
        {"object": "list", "data": [model_object(name, made) for name, made in listed.items()]}
    )


async def _retrieve_model(request: Request) -> Response:
    models, name = _service(request).models, request.path_params["name"]
    listed = await asyncio.to_thread(models.listed)
    if name not in listed:
        raise models.missing(name)
    return JSONResponse(model_object(name, listed[name]))


async def _chat_completions(request: Request) -> Response:
    service = _service(request)
    chat = read_chat(read_json(await read_body(request)))
    work = service.workers.start(partial(answer, service.models, chat))
    try:
        if chat.stream:
            return await streamed(request, chat, work, service.keep_alive_s)
        return await whole(request, chat, work)
    except BaseException as error:
        work.cancel()
        if isinstance(error, ClientGone):
            return Response(status_code=499)
        raise


def _service(request: Request) -> _Service:
    return request.app.state.service


# -- failures ---------------------------------------------------------------------------------


def _on_failure(request: Request, error: Exception) -> Response:
    failure = failure_of(error, request.state.request_id)
    if failure.status >= 500:
        logger.warning("%s %s: %s (%s)", request.method, request.url.path, error, request.state.request_id)
    return failure_response(failure)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = failure_response(of_status(error.status_code, request.method, request.url.path))
    response.headers.update(error.headers or {})
    return response
