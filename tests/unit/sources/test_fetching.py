"""The one fetcher against real sockets: no address that others name leads into the user's network."""

import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from dataclasses import replace
from functools import partial

import httpcore
import pytest
from website import Trap, Website

from tailorbird.errors import DocumentError, EndpointError
from tailorbird.sources import fetching
from tailorbird.sources.fetching import MAX_HEADER_BYTES, Fetcher, Limits, system_addresses

QUICK = Limits(total_s=2, read_s=1, size_bytes=10_000, num_redirects=3)

gzipped = partial(gzip.compress, mtime=0)  # the same bytes whenever tests are collected


@pytest.fixture
def site():
    with Website().running() as website:
        yield website


@pytest.fixture(scope="module")
def trap():
    trap = Trap()
    yield trap
    trap.close()


@pytest.fixture(scope="module")
def redirecting():
    with Website().running() as website:
        yield website


@pytest.fixture
def fetcher(site):
    """Reads the website as a host that the user allowed by name; knows no other."""
    return Fetcher((site.host,), QUICK, resolve=known({}))


def known(hosts):
    """A resolver of these hosts and of numbers, which is never asked for anything on the network."""

    def resolve(host, port):
        if host in hosts:
            return hosts[host]
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            raise socket.gaierror("unknown in this test") from None
        return [entry[4][0] for entry in found]

    return resolve


# -- addresses that are refused --------------------------------------------------------------------

PRIVATE_NAMES = {
    "loop.example": ["127.0.0.1"],
    "loop6.example": ["::1"],
    "mixed.example": ["8.8.8.8", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "router.example": ["192.168.1.1"],
    "tunnel.example": ["2002:7f00:1::"],
    "zone.example": ["fe80::1%lo"],
    "intranet": ["127.0.0.1"],
    "xn--mnchen-3ya.example": ["127.0.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "odd.example": ["no address"],
}

HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7F.0x0.0x0.0x1:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.0.0.01:{port}/",
    "http://00127.0.0.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::]:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::1]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fe80::1%25eth0]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://a.localhost:{port}/",
    "http://printer.local:{port}/",
    "http://metadata.google.internal:{port}/",
    "http://router.home.arpa:{port}/",
    "http://loop.example:{port}/",
    "http://LOOP.example.:{port}/",
    "http://loop6.example:{port}/",
    "http://mixed.example:{port}/",
    "http://mapped.example:{port}/",
    "http://metadata.example:{port}/",
    "http://router.example:{port}/",
    "http://tunnel.example:{port}/",
    "http://zone.example:{port}/",
    "http://odd.example:{port}/",
    "http://intranet:{port}/",
    "http://münchen.example:{port}/",
    "http://127.0.0.1.nip.example:{port}/",
    "https://127.0.0.1:{port}/",
    "https://loop.example:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://100.64.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://user@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://example.com#@127.0.0.1:{port}/",
    "http://exam\tple.com/",
    "\nhttp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: example.com",
    "http://127.0.0.1:+{port}/",
    "http://127.0.0.1: {port}/",
    "http://127.0.0.1:{port}:80/",
    "http://8.8.8.8:22/",
    "http://8.8.8.8:25/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "data:text/html,hello",
    "jar:http://127.0.0.1:{port}/!/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "ws://127.0.0.1:{port}/",
    "http://",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_an_address_into_the_users_network_is_refused_and_nothing_is_connected(url, trap):
    fetcher = Fetcher((), QUICK, resolve=known(PRIVATE_NAMES))
    began = time.monotonic()
    with pytest.raises((DocumentError, EndpointError)):
        fetcher.fetch(url.format(port=trap.port))
    assert time.monotonic() - began < 10 * QUICK.total_s
    assert trap.count == 0


def test_there_are_enough_hostile_addresses_and_the_trap_would_notice():
    assert len(set(HOSTILE)) >= 90
    trap = Trap()
    socket.create_connection(("127.0.0.1", trap.port)).close()
    assert trap.count == 1
    trap.close()


@pytest.mark.parametrize("url", HOSTILE)
def test_a_redirect_to_one_is_refused_too(url, redirecting, trap):
    if not url or "\n" in url or "\r" in url:
        return  # no header can hold it
    location = url.format(port=trap.port).encode().decode("latin-1")
    redirecting.pages["/"] = (302, {"Location": location}, b"")
    fetcher = Fetcher((redirecting.host,), QUICK, resolve=known(PRIVATE_NAMES))
    with contextlib.suppress(
        DocumentError, EndpointError
    ):  # some mean a page of the same site, read by a path
        assert fetcher.fetch(redirecting.url()).address.authority == redirecting.host
    assert trap.count == 0


def test_a_refusal_says_what_was_got_and_how_to_allow_it():
    fetcher = Fetcher((), QUICK, resolve=known(PRIVATE_NAMES))
    expected = (
        r"^http://loop\.example/x: the host 'loop\.example' is not on the public internet \(got 127\.0\.0\.1\)\. "
        r"If you trust it, allow it by name: allow_hosts = \('loop\.example:80',\)\.$"
    )
    with pytest.raises(DocumentError, match=expected):
        fetcher.fetch("http://loop.example/x")
    with pytest.raises(DocumentError, match=r"\(got a name for local hosts\).*'localhost:8000'"):
        fetcher.fetch("http://localhost:8000/")
    with pytest.raises(DocumentError, match=r"'\[::1\]:80'"):
        fetcher.fetch("http://[::1]/")
    with pytest.raises(
        DocumentError, match=r"port 25 belongs to another service than the web. Expected 80, 443"
    ):
        fetcher.fetch("http://8.8.8.8:25/")


# -- what is allowed -------------------------------------------------------------------------------


def test_a_page_comes_with_its_status_kind_and_address(site, fetcher):
    site.pages["/a?b=1"] = (200, {"Content-Type": "Text/HTML; charset='ISO-8859-1'"}, b"hello")
    answer = fetcher.fetch(site.url("/a?b=1#c"), {"text/html"})
    assert (answer.status, answer.body, answer.kind, answer.charset) == (
        200,
        b"hello",
        "text/html",
        "iso-8859-1",
    )
    assert answer.address.url == site.url("/a?b=1")


def test_the_fetcher_says_who_it_is_and_nothing_of_the_user(site, fetcher, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    site.pages["/"] = (200, {"Set-Cookie": "a=b"}, b"")
    fetcher.fetch(site.url())
    fetcher.fetch(site.url())
    assert site.asked[1][1] == {
        "Host": site.host,
        "User-Agent": "tailorbird/0.1",
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
    }


def test_a_header_that_can_not_be_sent_is_not_repeated(site, fetcher):
    for headers in ({"X-Key": "s3cret\n"}, {"X-Key": "s3cret "}, {"s3cret key": "x"}):
        with pytest.raises(EndpointError, match=r"a header can't be sent\. Correct its name") as caught:
            fetcher.fetch(site.url("/"), headers=headers)
        shown = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in str(caught.value)
        assert "Illegal header" not in shown
    assert site.asked == []


@pytest.mark.parametrize("status", [204, 404, 429, 500, 503])
def test_a_status_is_an_answer_without_the_body_of_a_failure(site, fetcher, status):
    site.pages["/"] = (status, {"Retry-After": "7", "Content-Length": None if status == 204 else "5"}, b"")
    answer = fetcher.fetch(site.url(), {"text/html"} if status != 204 else None)
    assert (answer.status, answer.body, answer.retry_after_s) == (status, b"", 7)


def test_an_allowed_host_is_allowed_for_its_port_only(site, trap, fetcher):
    with pytest.raises(DocumentError, match="not on the public internet"):
        fetcher.fetch(f"http://127.0.0.1:{trap.port}/")
    with pytest.raises(DocumentError, match="not on the public internet"):
        Fetcher(("127.0.0.1",), QUICK).fetch(site.url())
    assert (trap.count, site.asked) == (0, [])


def test_an_allowed_name_leads_to_a_private_network_but_not_to_the_clouds_credentials(site):
    fetcher = Fetcher(
        (f"Wiki.Example:{site.server_port}",), QUICK, resolve=known({"wiki.example": ["127.0.0.1"]})
    )
    assert fetcher.fetch(f"http://wiki.example:{site.server_port}/").status == 404
    assert site.asked[0][1]["Host"] == f"wiki.example:{site.server_port}"
    fetcher = replace(fetcher, resolve=known({"wiki.example": ["169.254.169.254"]}))
    with pytest.raises(DocumentError, match=r"not on the public internet \(got 169\.254\.169\.254\)"):
        fetcher.fetch(f"http://wiki.example:{site.server_port}/")


def test_an_allowed_host_that_is_none_is_refused_at_once():
    with pytest.raises(DocumentError, match="names no valid host"):
        Fetcher(("wiki.example/path",))


def test_the_systems_resolver_gives_addresses_as_numbers():
    assert "127.0.0.1" in system_addresses("localhost", 80) or "::1" in system_addresses("localhost", 80)
    with pytest.raises(OSError, match=r".+"):
        system_addresses("no.such.host.invalid", 80)


# -- the judged address is the one that is connected -----------------------------------------------


class Dialled:
    """In place of what opens sockets: notes the address and leads to the website instead."""

    def __init__(self, site):
        self.site, self.addresses = site, []

    def __call__(self):
        return self

    def connect_tcp(self, host, port, timeout, _local, _options):
        self.addresses.append((host, port))
        if host == "8.8.4.4":
            raise httpcore.ConnectError("refused")
        return REAL_BACKEND().connect_tcp("127.0.0.1", self.site.server_port, timeout)


REAL_BACKEND = httpcore.SyncBackend


@pytest.fixture
def dialled(site, monkeypatch):
    dialled = Dialled(site)
    monkeypatch.setattr(fetching.httpcore, "SyncBackend", dialled)

    def never(*_args, **_kwargs):
        raise AssertionError("something else asked the resolver")

    monkeypatch.setattr(socket, "gethostbyname", never)
    return dialled


def test_a_name_that_changes_its_address_after_it_was_judged_gains_nothing(site, dialled):
    answers = [["8.8.8.8"], ["127.0.0.1"], ["127.0.0.1"]]
    fetcher = Fetcher((), QUICK, resolve=lambda _host, _port: answers.pop(0))
    assert fetcher.fetch("http://rebind.example/").status == 404
    assert dialled.addresses == [("8.8.8.8", 80)]
    assert len(answers) == 2
    assert site.asked[0][1]["Host"] == "rebind.example"


def test_a_name_is_judged_anew_at_every_redirect_and_every_fetch(site, dialled):
    site.pages["/"] = (302, {"Location": "/next"}, b"")
    answers = [["8.8.8.8"], ["10.0.0.1"], ["127.0.0.1"]]
    fetcher = Fetcher((), QUICK, resolve=lambda _host, _port: answers.pop(0))
    redirected = r"^http://rebind.example/ redirects to http://rebind.example/next: .*\(got 10\.0\.0\.1\)"
    with pytest.raises(DocumentError, match=redirected):
        fetcher.fetch("http://rebind.example/")
    with pytest.raises(DocumentError, match=r"\(got 127\.0\.0\.1\)"):
        fetcher.fetch("http://rebind.example/")
    assert dialled.addresses == [("8.8.8.8", 80)]


def test_the_next_address_is_tried_where_one_does_not_answer(dialled):
    fetcher = Fetcher(
        (), QUICK, resolve=known({"two.example": ["8.8.4.4", "8.8.8.8"], "one.example": ["8.8.4.4"]})
    )
    assert fetcher.fetch("http://two.example/").status == 404
    assert dialled.addresses == [("8.8.4.4", 80), ("8.8.8.8", 80)]
    with pytest.raises(
        EndpointError, match=r"^http://one.example/: cannot be read \(refused\)\. Check the address"
    ):
        fetcher.fetch("http://one.example/")


def test_an_unknown_host_is_said(fetcher):
    with pytest.raises(EndpointError, match=r"the host 'no.example' is not known \(unknown in this test\)"):
        fetcher.fetch("http://no.example/")
    with pytest.raises(EndpointError, match=r"'no.example' has no network address"):
        replace(fetcher, resolve=lambda _host, _port: []).fetch("http://no.example/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for pages.example, which signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=pages.example", "-addext", "subjectAltName=DNS:pages.example"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*new, *names, "-days", "2", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_verifies_the_name_though_the_address_is_pinned(site, certificate, dialled, monkeypatch):
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(*certificate)
    named = []
    served.sni_callback = lambda _socket, name, _context: named.append(name)
    site.socket = served.wrap_socket(site.socket, server_side=True)
    site.pages["/"] = "secret page"
    monkeypatch.setattr(fetching, "_tls", lambda: ssl.create_default_context(cafile=certificate[0]))
    fetcher = Fetcher((), QUICK, resolve=lambda _host, _port: ["8.8.8.8"])
    assert fetcher.fetch("https://pages.example/").body == b"secret page"
    assert dialled.addresses == [("8.8.8.8", 443)]
    assert named == ["pages.example"]
    with pytest.raises(
        EndpointError, match=r"cannot be read .*certificate verify failed.*not valid for 'other.example'"
    ):
        fetcher.fetch("https://other.example/")
    assert site.paths == ["/"]


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site, fetcher, status):
    site.pages.update({"/": (status, {"Location": "next#part"}, b""), "/next": "there"})
    answer = fetcher.fetch(site.url())
    assert (answer.body, answer.address.url) == (b"there", site.url("/next"))


def test_redirects_end_at_the_limit(site, fetcher):
    site.pages.update({"/": (302, {"Location": "/b"}, b""), "/b": (302, {"Location": "/"}, b"")})
    with pytest.raises(DocumentError, match=r"redirects more than 3 times, last to .*Give the address"):
        fetcher.fetch(site.url())
    assert len(site.asked) == 4
    site.pages["/b"] = "there"
    assert fetcher.fetch(site.url()).body == b"there"
    with pytest.raises(DocumentError, match="redirects more than 0 times"):
        replace(fetcher, limits=replace(QUICK, num_redirects=0)).fetch(site.url())


def test_a_redirect_from_an_allowed_host_to_a_private_one_is_refused(site, trap, fetcher):
    site.pages["/"] = (302, {"Location": f"http://127.0.0.1:{trap.port}/admin"}, b"")
    with pytest.raises(
        DocumentError, match=r"redirects to .*/admin: the host '127.0.0.1' is not on the public"
    ):
        fetcher.fetch(site.url())
    site.pages["/"] = (302, {"Location": "file:///etc/passwd"}, b"")
    with pytest.raises(DocumentError, match=r"redirects elsewhere: 'file:///etc/passwd' is no web address"):
        fetcher.fetch(site.url())
    assert trap.count == 0


def test_a_redirect_without_a_place_is_an_answer(site, fetcher):
    site.pages["/"] = (302, {}, b"")
    assert fetcher.fetch(site.url()).status == 302


# -- limits ----------------------------------------------------------------------------------------


def test_an_answer_as_large_as_allowed_is_read_and_one_larger_is_not(site, fetcher):
    site.pages.update({"/ok": "x" * 10_000, "/more": "x" * 10_001})
    assert len(fetcher.fetch(site.url("/ok")).body) == 10_000
    with pytest.raises(DocumentError, match=r"/more: larger than 10,000 bytes, which is the most"):
        fetcher.fetch(site.url("/more"))


def unending(head, chunk, pause_s=0.0):
    """Sends `head`, then `chunk` again and again until nobody listens."""

    def page(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(head)
            while True:
                handler.wfile.write(chunk)
                handler.wfile.flush()
                time.sleep(pause_s)

    return page


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (OK + b"\r\n", b"x" * 9999),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nxxxxx\r\n" * 999),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzipped(b"x" * 9999), gzipped(b"")),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 9999 + b"\r\nx\r\n"),
        (OK, b"X-Header: " + b"x" * 9999 + b"\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99),
        (b"", b"x" * 9999),
    ],
)
def test_an_answer_without_an_end_is_left(site, fetcher, head, chunk):
    site.pages["/"] = unending(head, chunk)
    limits = replace(QUICK, total_s=10)
    began = time.monotonic()
    with pytest.raises((DocumentError, EndpointError)):
        replace(fetcher, limits=limits).fetch(site.url())
    assert time.monotonic() - began < 9  # it ends by its size, long before the deadline
    assert MAX_HEADER_BYTES < 2**20


@pytest.mark.parametrize(
    "head",
    [b"", OK, OK + b"Content-Type: text/html\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK],
)
def test_an_answer_that_drips_ends_at_the_deadline(site, fetcher, head):
    site.pages["/"] = unending(head, b"x" if head.endswith(b"\r\n\r\n") or not head else b"X: x\r\n", 0.02)
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"took longer than 0\.3 s\. Try again later"):
        replace(fetcher, limits=replace(QUICK, total_s=0.3)).fetch(site.url())
    assert time.monotonic() - began < 10


def test_redirects_share_one_deadline(site, fetcher):
    def slow(handler):
        time.sleep(0.12)
        handler.answer(302, {"Location": "/"}, b"")

    site.pages["/"] = slow
    with pytest.raises(EndpointError, match=r"redirects to .*took longer than 0\.3 s"):
        replace(fetcher, limits=replace(QUICK, total_s=0.3, num_redirects=20)).fetch(site.url())
    assert len(site.asked) < 5


def test_silence_and_a_slow_resolver_end_too(site, fetcher):
    silent = threading.Event()
    site.pages["/"] = lambda _handler: silent.wait(5)
    with pytest.raises(EndpointError, match=r"too slow, or there is none\. Try again later"):
        replace(fetcher, limits=replace(QUICK, read_s=0.1)).fetch(site.url())
    limits = replace(QUICK, total_s=0.1)
    with pytest.raises(EndpointError, match=r"took longer than 0\.1 s"):
        Fetcher((), limits, resolve=lambda _host, _port: [str(silent.wait(5))]).fetch("http://a.example/")
    silent.set()


def test_an_answer_that_breaks_off_is_an_error(site, fetcher):
    site.pages["/"] = (200, {"Content-Length": "100"}, b"half")
    with pytest.raises(EndpointError, match="cannot be read"):
        fetcher.fetch(site.url())


def test_a_host_that_does_not_listen_is_an_error(fetcher):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(EndpointError, match=r"cannot be read .*Check the address and the network"):
        replace(fetcher, allow_hosts=(host,)).fetch(f"http://{host}/")


# -- kinds and packing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("image/png", "is of the kind image/png. Expected text/html, text/plain"),
        (None, "kind that nobody names"),
    ],
)
def test_other_kinds_are_refused_before_they_are_read(site, fetcher, kind, message):
    site.pages["/"] = (200, {"Content-Type": kind, "Content-Length": "99"}, b"")
    with pytest.raises(DocumentError, match=message):
        fetcher.fetch(site.url(), {"text/plain", "text/html"})


def packed(data, encoding="gzip"):
    return 200, {"Content-Encoding": encoding}, data


def test_packed_answers_are_unpacked(site, fetcher):
    site.pages["/"] = packed(gzipped(b"one ") + gzipped(b"two"))
    assert fetcher.fetch(site.url()).body == b"one two"
    site.pages["/"] = packed(b"", "gzip")
    assert fetcher.fetch(site.url()).body == b""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (packed(gzipped(b"x" * 10_001)), "larger than 10,000 bytes"),
        (packed(gzipped(gzipped(bytes(10**8)))), "larger than 10,000 bytes"),
        (packed(gzipped(b"") * 101), "larger than 10,000 bytes"),
        (packed(b"no gzip"), "packed by gzip but damaged"),
        (packed(gzipped(b"x" * 999)[:-4]), "ends early. Try again later"),
        (packed(b"x", "br"), r"is packed as 'br', which was not asked for\. Expected gzip"),
        (packed(gzipped(gzipped(b"x")), "gzip, gzip"), "is packed as 'gzip, gzip'"),
    ],
)
def test_bombs_and_damaged_packing_are_refused(site, fetcher, answer, message):
    site.pages["/"] = answer
    with pytest.raises(DocumentError, match=message):
        fetcher.fetch(site.url())


# -- what is sent ----------------------------------------------------------------------------------


def test_what_is_sent_arrives_and_the_answer_has_its_body_whatever_the_status(site, fetcher):
    site.pages["/ask"] = (400, {"Content-Type": "application/json"}, b'{"error": 1}')
    answer = fetcher.send(site.url("/ask"), b"{}", {"content-type": "application/json", "X-Key": "k\u00e9y"})
    assert (answer.status, answer.body, site.bodies) == (400, b'{"error": 1}', [b"{}"])
    headers = site.asked[0][1]
    assert (headers["Content-Type"], headers["Content-Length"]) == ("application/json", "2")


def test_no_header_takes_the_place_of_the_fetchers_own(site, fetcher):
    own = {
        "host": "evil.example",
        "content-length": "99",
        "Transfer-Encoding": "chunked",
        "accept-encoding": "br",
    }
    fetcher.send(site.url("/"), b"", own)
    headers = site.asked[0][1]
    assert (headers["Host"], headers["Content-Length"], headers["Accept-Encoding"]) == (
        site.host,
        "0",
        "gzip",
    )
    assert "Transfer-Encoding" not in headers


def test_a_redirect_of_what_is_sent_is_an_answer(site, fetcher, trap):
    site.pages["/ask"] = (307, {"Location": f"http://127.0.0.1:{trap.port}/"}, b"")
    assert fetcher.send(site.url("/ask"), b"{}", {}).status == 307
    assert trap.count == 0


def test_what_is_sent_goes_to_no_private_host_and_is_read_within_limits(site, fetcher, trap):
    with pytest.raises(DocumentError, match="not on the public internet"):
        fetcher.send(f"http://127.0.0.1:{trap.port}/", b"{}", {})
    assert trap.count == 0
    site.pages["/ask"] = (500, {}, b"x" * 20_000)
    with pytest.raises(DocumentError, match="larger than 10,000 bytes"):
        fetcher.send(site.url("/ask"), b"{}", {})


def test_headers_stay_with_the_host_that_they_were_given_for(site, fetcher):
    with Website({"/there": "text"}).running() as other:
        both = replace(fetcher, allow_hosts=(site.host, other.host))
        site.pages |= {
            "/near": (302, {"Location": "/far"}, b""),
            "/far": (302, {"Location": other.url("/there")}, b""),
        }
        assert both.fetch(site.url("/near"), headers={"X-Key": "secret"}).body == b"text"
    assert [headers.get("X-Key") for _, headers in site.asked] == ["secret", "secret"]
    assert "X-Key" not in other.asked[0][1]
