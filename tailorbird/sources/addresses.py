"""Web addresses, read strictly, and which network addresses are on the public internet.

An address has one form here, so that nothing reads it otherwise than the guard did: RFC 3986 for its
parts, UTS 46 for hosts in other scripts, and no forms that only some programs know (hosts as one number,
in octal or hexadecimal, with credentials, a zone or a backslash).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from tailorbird.errors import DocumentError

MAX_CHARS = 8_192
PORTS = {"http": 80, "https": 443}
LOWEST_OTHER_PORT = 1_024
"""Ports below are those of other services than the web, but for 80 and 443."""

_PARTS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_LOCAL_ENDINGS = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain", "test")
"""Names that the public domain name system never knows: RFC 6761, RFC 6762, RFC 8375 and custom."""

_THIS_HOST = ipaddress.IPv4Network("0.0.0.0/8")
_V4_KEPT_OUT = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
_V6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_V6_KEPT_OUT = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address without its fragment, in its one form.

    `host` is in ASCII and lower case, an IPv6 address without brackets; `target` is path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """Host and port as the header Host has them: without the port that the scheme implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what is meant for one origin is told to no other."""
        return self.scheme, self.host, self.port

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def read_address(url: str) -> Address:
    """The address in its one form: `HTTP://Example.com:80/a/../b#c` is `http://example.com/b`.

    Raises:
        DocumentError: It is no http(s) address, or one that programs read in different ways.
    """
    if len(url) > MAX_CHARS:
        raise DocumentError(f"{url[:60]!r}… has {len(url):,} characters; expected at most {MAX_CHARS:,}.")
    if _FORBIDDEN.search(url):
        raise DocumentError(f"{url!r} holds a control character or a backslash. Write it percent-encoded.")
    found = _PARTS.fullmatch(url)
    if found is None:
        raise DocumentError(f"{url!r} is no web address. Expected http:// or https:// and a host.")
    scheme, authority, path, query = found.groups()
    if "@" in authority:
        raise DocumentError(
            f"{_hidden(url)!r} holds credentials. Expected an address without 'user:password@'."
        )
    host, port = _host_and_port(authority, url)
    target = _without_dots(_encoded(path)) + (f"?{_encoded(query)}" if query else "")
    return Address(scheme.lower(), host, port or PORTS[scheme.lower()], target)


def joined(address: Address, reference: str) -> Address:
    """The address that a page at `address` means by `reference`, for example by the link `../fees`.

    Raises:
        DocumentError: It is no http(s) address.
    """
    try:
        return read_address(urljoin(address.url, reference))
    except ValueError as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{reference!r} is no web address ({error}).") from None


def read_allowed(entry: str) -> tuple[str, int | None]:
    """Host and port of an entry such as `wiki.example`, `wiki.example:8080` or `[fd00::1]:80`.

    Raises:
        DocumentError: It is neither a host nor a host with a port.
    """
    return _host_and_port(entry, entry)


def is_local_name(host: str) -> bool:
    """Whether the public domain name system never knows a host of this name."""
    return any(host == ending or host.endswith(f".{ending}") for ending in _LOCAL_ENDINGS)


def is_public(address: str) -> bool:
    """Whether a network address, as a resolver gives it, is on the public internet.

    IPv4 addresses inside IPv6 ones are judged themselves; tunnels that hide one (6to4, Teredo) are not public.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if inner := _inner_v4(ip):
            return is_public(str(inner))
        return (
            ip.scope_id is None
            and ip in _V6_PUBLIC
            and ip.is_global
            and not any(ip in network for network in _V6_KEPT_OUT)
        )
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _V4_KEPT_OUT)


def is_reachable(address: str) -> bool:
    """Whether a host that the user allowed by name may be at this address: on a private network too.

    Never a link-local one, where clouds keep the machine's credentials, nor one that means many machines or none.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _inner_v4(ip)):
        return is_reachable(str(inner))
    if ip.is_loopback:
        return True
    return not (
        ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved or ip in _THIS_HOST
    )


def check_name(address: Address) -> None:
    """Refuses what needs no resolver to be refused, for a question to one tells others what is asked.

    Raises:
        DocumentError: The name is one of local hosts, or the port another service's.
    """
    if is_local_name(address.host):
        raise not_public(address.host, address.port, "a name for local hosts")
    if address.port not in PORTS.values() and address.port < LOWEST_OTHER_PORT:
        raise DocumentError(
            f"port {address.port} belongs to another service than the web. "
            f"Expected 80, 443 or one from {LOWEST_OTHER_PORT}."
        )


def not_public(host: str, port: int, got: str) -> DocumentError:
    """The error of a host that only this network, or none, has at `got`."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return DocumentError(
        f"the host {host!r} is not on the public internet (got {got}). "
        f"If you trust it, allow it by name: allow_hosts = ({shown!r},)."
    )


def _inner_v4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped (::ffff:a.b.c.d) or translated (64:ff9b::a.b.c.d) one leads to."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped


def _host_and_port(authority: str, url: str) -> tuple[str, int | None]:
    found = _AUTHORITY.fullmatch(authority)
    port = int(found[2]) if found and found[2] else None
    if found is None or (port is not None and not 0 < port < 65_536):
        raise DocumentError(f"{url!r} names no host with a port from 1 to 65535. Check the address.")
    return _host(found[1], url), port


def _host(text: str, url: str) -> str:
    if text.startswith("["):
        return _v6(text[1:-1], url)
    host = _ascii(text, url).removesuffix(".")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise DocumentError(
            f"{url!r} names no valid host: got {text!r}, expected a name such as 'example.com'."
        )
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return _v4(host, url)
    return host


def _ascii(text: str, url: str) -> str:
    if text.isascii():
        return text.lower()
    import idna

    try:
        return idna.encode(text, uts46=True).decode()
    except idna.IDNAError as error:
        raise DocumentError(f"{url!r} names no valid host: {text!r} ({error}).") from None


def _v4(host: str, url: str) -> str:
    """Dotted decimal only: `127.1`, `0x7f000001`, `017700000001` mean different hosts to different programs."""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise DocumentError(
            f"{url!r} writes its host as {host!r}. Expected a name, or four decimal numbers such as 192.0.2.1."
        ) from None


def _v6(text: str, url: str) -> str:
    try:
        if "%" in text:
            raise ValueError("it names a zone")  # noqa: TRY301  -- refused as what is no address at all
        return str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise DocumentError(f"{url!r} holds no valid IPv6 address: {error}.") from None


def _encoded(text: str) -> str:
    """Percent-encoded as little as may be, with the digits in upper case: equal addresses become one."""

    def normal(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    whole = re.sub(r"%(?![0-9a-fA-F]{2})", "%25", text)
    return quote(re.sub(r"%([0-9a-fA-F]{2})", normal, whole), safe="%/:@!$&'()*+,;=~-._?")


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4: `/a/./b/../c` is `/a/c`; an empty path is `/`."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if parts and parts[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _hidden(url: str) -> str:
    """The address without its credentials, for a message that may be logged."""
    return re.sub(r"//[^/?#]*@", "//…@", url)
