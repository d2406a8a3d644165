"""The one way by which this package reads what documents, lists of addresses and web pages name.

An address may come from somebody else, and this machine may reach what its sender can't: routers, databases,
the cloud's credentials. So the name is resolved here, every address that it has must be public, and the
connection goes to just the address that was judged; nothing resolves the name again (DNS rebinding). A
redirect is a new address. TLS and the header Host keep the name. Proxies of the environment are not used,
for they would resolve names themselves. Each fetch has its own connection: what was judged is not kept.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import httpcore

from tailorbird.errors import DocumentError, EndpointError, KindError
from tailorbird.sources.addresses import (
    PORTS,
    Address,
    check_name,
    is_public,
    is_reachable,
    joined,
    not_public,
    read_address,
    read_allowed,
)
from tailorbird.sources.unpacking import counted, too_large, unpack

if TYPE_CHECKING:
    import ssl

USER_AGENT = "tailorbird/0.1"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FOR_GOOD = frozenset({301, 308})
MAX_HEADER_BYTES = 256 * 1024
CONNECT_S = 5.0
_NOTHING: Mapping[str, str] = {}
_UNCONDITIONAL: Mapping[str, Mapping[str, str]] = {}

Resolve = Callable[[str, int], list[str]]
"""The network addresses of a host, as text, for a port."""


def system_addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says; may take as long as it likes.

    Raises:
        OSError: It knows no such host.
    """
    import socket

    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True)
class Limits:
    """What one fetch may take, with all its redirects.

    `total_s` and `read_s` are seconds: of the whole, and without a byte. `size_bytes` counts the answer's
    body as it comes and as it is unpacked. `num_redirects` may be 0.
    """

    total_s: float = 30.0
    read_s: float = 10.0
    size_bytes: int = 10 * 2**20
    num_redirects: int = 5


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer. `address` is where it came from, after redirects; `headers` have names in lower case.

    `body` is unpacked, and empty where the status is no success. `moved_for_good` is False where a redirect on
    the way holds only for now.
    """

    address: Address
    status: int
    headers: Mapping[str, str]
    body: bytes
    moved_for_good: bool = True

    @property
    def kind(self) -> str:
        """The content type without parameters, in lower case, such as `text/html`; empty if it is not said."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The character set that the server names; empty if it names none."""
        _, _, rest = self.headers.get("content-type", "").lower().partition("charset=")
        return rest.partition(";")[0].strip(" \"'")

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the server wants to be asked again, if it says."""
        wait = self.headers.get("retry-after", "")
        return float(wait) if wait.isascii() and wait.isdigit() else None


@dataclass(frozen=True)
class Fetcher:
    """Reads web addresses that nobody vouches for.

    Args:
        allow_hosts: hosts that may be on a private network, such as `wiki.example` (on the ports 80 and 443)
            or `wiki.example:8080`.
        limits: what one fetch may take.
        user_agent: how the fetcher introduces itself.
        resolve: finds a host's network addresses.

    Raises:
        DocumentError: An entry of `allow_hosts` is no host.
    """

    allow_hosts: tuple[str, ...] = ()
    limits: Limits = Limits()
    user_agent: str = USER_AGENT
    resolve: Resolve = field(default=system_addresses, compare=False, repr=False)

    def __post_init__(self) -> None:
        for entry in self.allow_hosts:
            read_allowed(entry)

    def fetch(
        self,
        url: str,
        kinds: Collection[str] | None = None,
        headers: Mapping[str, str] = _NOTHING,
        conditions: Mapping[str, Mapping[str, str]] = _UNCONDITIONAL,
    ) -> Fetched:
        """The answer to a GET, after redirects. Statuses such as 404 are answers.

        Args:
            url: an http or https address.
            kinds: content types, in lower case, that are read; None reads any.
            headers: further ones. They may hold keys, and so go to this address's own host alone.
            conditions: headers such as `If-None-Match`, for the one address, after redirects, that they are of.

        Raises:
            DocumentError: The address is refused, or what is there is too large; a KindError if of another kind.
            EndpointError: The host cannot be reached, is too slow, or breaks off.
        """
        deadline = _Deadline(self.limits.total_s)
        address = start = read_address(url)
        for_good = True
        for hop in range(self.limits.num_redirects + 1):
            own = headers if address.origin == start.origin else _NOTHING
            asking = _Asking("GET", {**own, **conditions.get(address.url, _NOTHING)})
            with _told(f"{start.url} redirects to {address.url}" if hop else address.url, deadline):
                answer = self._hop(address, deadline, asking, kinds)
            location = answer.headers.get("location", "").strip()
            if answer.status not in REDIRECTS or not location:
                return replace(answer, moved_for_good=for_good)
            for_good = for_good and answer.status in FOR_GOOD
            with _told(f"{start.url} redirects elsewhere", deadline):
                address = joined(address, location)
        raise DocumentError(
            f"{start.url}: redirects more than {self.limits.num_redirects} times, last to {address.url}. "
            "Give the address that it should lead to."
        )

    def send(self, url: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> Fetched:
        """The answer to what is sent, with its body whatever the status. Redirects are answers too.

        Raises:
            DocumentError: The address is refused, or the answer is too large.
            EndpointError: The host cannot be reached, is too slow, or breaks off.
        """
        deadline = _Deadline(self.limits.total_s)
        address = read_address(url)
        with _told(address.url, deadline):
            return self._hop(address, deadline, _Asking(method, headers, body))

    def _hop(
        self,
        address: Address,
        deadline: _Deadline,
        asking: _Asking,
        kinds: Collection[str] | None = None,
    ) -> Fetched:
        allowed = self.allows(address)
        if not allowed:
            check_name(address)
        backend = _Pinning(self.resolve, is_reachable if allowed else is_public, deadline, self.limits)
        headers: dict[bytes | str, bytes | str] = {
            "Host": address.authority,
            "User-Agent": self.user_agent,
            "Accept": ", ".join(sorted(kinds)) if kinds else "*/*",
            "Accept-Encoding": "gzip",
            **_as_sent(asking),
        }
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), self.limits.read_s)
        with _pool(backend) as pool:
            target = httpcore.URL(
                scheme=address.scheme.encode(),
                host=address.host.encode(),
                port=address.port,
                target=address.target.encode(),
            )
            with pool.stream(
                asking.method, target, headers=headers, content=asking.body, extensions={"timeout": timeout}
            ) as response:
                if asking.body is None and not 200 <= response.status < 300:
                    return _without_body(address, response)
                return _read(address, response, kinds, self.limits.size_bytes)

    def allows(self, address: Address) -> bool:
        """Whether the user named this host, with this port or, without one, for the web's own ports."""
        for host, port in map(read_allowed, self.allow_hosts):
            if host == address.host and address.port in ({port} if port else set(PORTS.values())):
                return True
        return False


@dataclass(frozen=True)
class _Asking:
    """What is asked at one address. Without a `body` the answer's own is read of a success only."""

    method: str
    headers: Mapping[str, str]
    body: bytes | None = None


class _Deadline:
    """A moment by which a fetch has ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, more than 0.

        Raises:
            EndpointError: There are none.
        """
        if self.is_past:
            raise self.passed()
        return max(self._end - time.monotonic(), 0.001)

    @property
    def is_past(self) -> bool:
        return time.monotonic() >= self._end

    def passed(self) -> EndpointError:
        """The error of a fetch that has not ended by then."""
        return EndpointError(f"took longer than {self.seconds:g} s. Try again later, or allow more seconds.")


class _Pinning(httpcore.NetworkBackend):
    """Opens connections to addresses that were judged, and to nothing else."""

    def __init__(
        self, resolve: Resolve, fits: Callable[[str], bool], deadline: _Deadline, limits: Limits
    ) -> None:
        self._resolve, self._fits, self._deadline, self._limits = resolve, fits, deadline, limits

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del timeout, local_address  # the deadline rules, and the system chooses from where
        failed: Exception | None = None
        for address in self._judged(host, port):
            seconds = min(CONNECT_S, self._limits.read_s, self._deadline.left_s())
            try:
                stream = httpcore.SyncBackend().connect_tcp(address, port, seconds, None, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _Timed(stream, self._deadline, self._limits)
        assert failed is not None
        raise failed

    def connect_unix_socket(self, *_args: Any, **_kwargs: Any) -> httpcore.NetworkStream:
        raise AssertionError("unreachable")

    def _judged(self, host: str, port: int) -> list[str]:
        """All addresses of the host; one that does not fit condemns them all."""
        addresses = _within(lambda: self._resolve(host, port), self._deadline, host)
        if not addresses:
            raise EndpointError(f"the host {host!r} has no network address. Check the address.")
        for address in addresses:
            if not self._fits(address):
                raise not_public(host, port, address)
        return addresses


class _Timed(httpcore.NetworkStream):
    """A connection that keeps to the deadline and to the number of bytes, whoever reads from it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline, limits: Limits) -> None:
        self._stream, self._deadline, self._limits = stream, deadline, limits
        self._num_bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        data = self._stream.read(max_bytes, min(self._limits.read_s, self._deadline.left_s()))
        self._num_bytes += len(data)
        if self._num_bytes > self._limits.size_bytes + MAX_HEADER_BYTES:
            raise too_large(self._limits.size_bytes)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, min(self._limits.read_s, self._deadline.left_s()))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        seconds = min(self._limits.read_s, self._deadline.left_s())
        stream = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return _Timed(stream, self._deadline, self._limits)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _pool(backend: httpcore.NetworkBackend) -> httpcore.ConnectionPool:
    return httpcore.ConnectionPool(
        ssl_context=_tls(), max_connections=1, max_keepalive_connections=0, network_backend=backend
    )


@cache
def _tls() -> ssl.SSLContext:
    """The authorities that are trusted; SSL_CERT_FILE names others."""
    import httpx

    return httpx.create_ssl_context()


def _within(resolve: Callable[[], list[str]], deadline: _Deadline, host: str) -> list[str]:
    """What `resolve` gives before the deadline: the system's resolver can't be told to hurry, only be left."""
    found: list[list[str] | Exception] = []

    def work() -> None:
        try:
            found.append(resolve())
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=work, name=f"resolve {host}", daemon=True)
    thread.start()
    thread.join(deadline.left_s())
    if not found:
        raise deadline.passed()
    if isinstance(found[0], Exception):
        raise EndpointError(
            f"the host {host!r} is not known ({found[0]}). Check the address and the network."
        ) from None
    return found[0]


@contextlib.contextmanager
def _told(where: str, deadline: _Deadline) -> Generator[None]:
    """Makes every error one of ours that says where it happened."""
    try:
        yield
    except (DocumentError, EndpointError) as error:
        raise type(error)(f"{where}: {error}") from error
    except (httpcore.TimeoutException, TimeoutError) as error:
        late = deadline.passed() if deadline.is_past else "too slow, or there is none. Try again later."
        raise EndpointError(f"{where}: {late}") from error
    except httpcore.LocalProtocolError:
        # What it says repeats the header, which may hold a key; so does the error that this one would follow from.
        raise EndpointError(f"{where}: a header can't be sent. Correct its name and its value.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise EndpointError(
            f"{where}: cannot be read ({_words(error)}). Check the address and the network."
        ) from error


def _text(value: bytes) -> str:
    """A header's value: mostly ASCII, often UTF-8, once ISO 8859-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _as_sent(asking: _Asking) -> dict[bytes | str, bytes | str]:
    """The headers of a request that are its own; none takes the place of Host or says how long the body is."""
    own = {name.title(): value for name, value in asking.headers.items()}
    for name in ("Host", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Connection"):
        own.pop(name, None)
    if asking.body is not None:
        own["Content-Length"] = str(len(asking.body))
    return {name: value.encode("utf-8", "replace") for name, value in own.items()}


def _without_body(address: Address, response: httpcore.Response) -> Fetched:
    headers = {name.decode("latin-1").lower(): _text(value) for name, value in response.headers}
    return Fetched(address, response.status, headers, b"")


def _read(
    address: Address, response: httpcore.Response, kinds: Collection[str] | None, size_bytes: int
) -> Fetched:
    answer = _without_body(address, response)
    headers = answer.headers
    if kinds is not None and answer.kind not in kinds:
        raise KindError(
            f"is of the kind {answer.kind or 'that nobody names'}. Expected {', '.join(sorted(kinds))}."
        )
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > size_bytes:
        raise too_large(size_bytes)
    return Fetched(address, response.status, headers, _body(response, headers, size_bytes))


def _body(response: httpcore.Response, headers: Mapping[str, str], size_bytes: int) -> bytes:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise DocumentError(f"is packed as {encoding!r}, which was not asked for. Expected gzip or nothing.")
    chunks = response.iter_stream()
    if encoding.endswith("gzip"):
        return b"".join(unpack(chunks, size_bytes))
    return b"".join(counted(chunks, size_bytes))
