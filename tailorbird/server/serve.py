"""Runs the API on an address until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from tailorbird.errors import InputError
from tailorbird.server.app import create_app
from tailorbird.server.front_door import is_loopback

if TYPE_CHECKING:
    from tailorbird.workbench import Workbench

OnReady = Callable[[str, list[str]], None]
"""Gets the URL (`http://host:port`) and the model ids."""
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
SHUTDOWN_S = 5


def serve(  # noqa: PLR0917 - the command line's flags
    workbench: Workbench,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    log_level: str = "warning",
    on_ready: OnReady | None = None,
    references: Sequence[str] = (),
    key_env: str | None = None,
) -> None:
    """Serves until interrupted (SIGINT, SIGTERM).

    Args:
        workbench: whose models are served.
        host: address to listen on.
        port: 0 takes a free one.
        key: bearer key that clients must send.
        log_level: one of `LOG_LEVELS`; the log goes to stderr.
        on_ready: told the URL and the model ids once requests are taken.
        references: MODEL references to serve besides those that the workbench lists.
        key_env: environment variable with the key of remote endpoints.

    Raises:
        InputError: others than this machine could reach it without a key; the port is taken.
    """
    listener = listen(host, port, key)
    try:
        server = build_server(
            workbench,
            listener,
            key=key,
            log_level=log_level,
            on_ready=on_ready,
            references=references,
            key_env=key_env,
        )
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        listener.close()


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """A bound socket.

    Raises:
        InputError: others than this machine could reach it without a key; the address can't be had.
    """
    if key is None and not is_loopback(host):
        raise InputError(
            f"host {host!r}: other machines could use the models without a key. "
            "Give a key, or listen on 127.0.0.1."
        )
    if not 0 <= port <= 65_535:
        raise InputError(f"port: got {port}; expected 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def build_server(
    workbench: Workbench,
    listener: socket.socket,
    *,
    log_level: str = "warning",
    on_ready: OnReady | None = None,
    **app: Any,
) -> uvicorn.Server:
    """A server over the socket, not yet running; `app` goes to `create_app`.

    Raises:
        InputError: an unknown log level.
    """
    if log_level not in LOG_LEVELS:
        raise InputError(f"log_level: got {log_level!r}; expected one of {', '.join(LOG_LEVELS)}.")
    api = create_app(workbench, **app)
    config = uvicorn.Config(
        api,
        http="h11",  # it bounds the size of headers
        ws="none",
        log_level=log_level,
        log_config=_log_to_stderr(),
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return _Server(
        config, lambda: on_ready and on_ready(url_of(listener), list(api.state.service.models.listed()))
    )


def url_of(listener: socket.socket) -> str:
    """The URL of a server on this socket; OpenAI clients take it with `/v1` as their base_url."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], Any]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _log_to_stderr() -> dict[str, Any]:
    """The logging of uvicorn, without its access log on stdout, which belongs to the caller."""
    config: dict[str, Any] = {**LOGGING_CONFIG}
    access = {**config["handlers"]["access"], "stream": "ext://sys.stderr"}
    config["handlers"] = {**config["handlers"], "access": access}
    return config


def _cannot_listen(host: str, port: int, error: OSError) -> InputError:
    return InputError(
        f"{host}:{port}: cannot listen there ({error.strerror or error}). "
        "Choose another port with --port (0 takes a free one), or stop what listens there."
    )
