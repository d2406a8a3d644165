"""A list of web pages, read from a real website on this machine."""

import time
from dataclasses import replace

import pytest
from website import Website

from tailorbird.errors import DocumentError, NotFound, RecipeError
from tailorbird.records import Document
from tailorbird.sources.fetching import Limits
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable
from tailorbird.sources.web_pages import WebPages, web_pages_at
from tailorbird.testing.sources import WordHash, check_connector

CARD = "<title>Cards</title><nav>Menu</nav><h1>Lost cards</h1><p>Freeze a lost card.<b hidden>Obey.</b></p>"
PDF = b"%PDF-1.7 broken"


@pytest.fixture
def site():
    with Website(
        {"/card": CARD, "/rate": (200, {"Content-Type": "text/plain"}, "Rates.")}
    ).running() as website:
        yield website


def pages(site, *paths, **settings):
    urls = tuple(path if "://" in path else site.url(path) for path in paths)
    return WebPages(urls, "list", (site.host,), pause_s=0, **settings)


def by_id(connector):
    items = list(connector.documents())
    found = {item.id: item for item in items}
    assert len(found) == len(items)
    return found


def test_pages_are_read_by_their_kinds(site):
    site.pages["/notes.md"] = (
        200,
        {"Content-Type": "text/plain; charset=utf-8"},
        "---\ntitle: Notes\n---\nx<!-- y -->",
    )
    site.pages["/latin"] = (
        200,
        {"Content-Type": "text/html; charset=iso-8859-2"},
        "<p>\xb1</p>".encode("latin-1"),
    )
    site.pages["/odd"] = (200, {"Content-Type": "text/plain; charset=none-such"}, "odd")
    found = by_id(pages(site, "/card", "/rate", "/notes.md", "/latin", "/odd"))
    card = found[site.url("/card")]
    assert (card.title, card.text) == ("Cards", "# Lost cards\n\nFreeze a lost card.")
    assert found[site.url("/rate")].text == "Rates."
    assert (found[site.url("/notes.md")].title, found[site.url("/notes.md")].text) == ("Notes", "x")
    assert found[site.url("/latin")].text == "ą"
    assert found[site.url("/odd")].text == "odd"


def test_a_version_changes_with_the_text_and_not_with_the_markup(site):
    [first] = pages(site, "/card").documents()
    site.pages["/card"] = CARD + "<script>nonce()</script>"
    assert list(pages(site, "/card").documents()) == [first]
    site.pages["/card"] = CARD + "<p>More.</p>"
    [later] = pages(site, "/card").documents()
    assert later.version != first.version


def test_one_page_under_many_addresses_comes_once(site):
    host = site.host.upper()
    found = by_id(pages(site, "/card", "/card#top", "/x/../card", f"HTTP://{host}/%63ard"))
    assert list(found) == [site.url("/card")]
    assert site.paths == ["/card"]


def test_a_redirect_keeps_the_listed_address_and_never_gives_a_page_twice(site):
    for path, place in {"/old": "/new", "/older": "/new", "/short": "/card"}.items():
        site.pages[path] = (301, {"Location": place}, b"")
    site.pages["/new"] = "<p>New</p>"
    found = by_id(pages(site, "/old", "/older", "/short", "/card"))
    assert found[site.url("/old")].text == "New"
    assert (
        found[site.url("/older")].reason
        == f"redirects to {site.url('/new')}, which is there already. Remove the address."
    )
    assert isinstance(found[site.url("/short")], Unreadable)
    assert isinstance(found[site.url("/card")], Document)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b""), "status 404: there is no such page. Correct the address, or remove"),
        ((410, {}, b""), "status 410: there is no such page"),
        ((403, {}, b""), "status 403: the page cannot be read now, or not by everyone. Try again later"),
        ((500, {}, b""), "status 500: the page cannot be read now"),
        (
            (200, {"Content-Type": "image/png"}, b"\x89PNG"),
            "is of the kind image/png. Expected application/pdf",
        ),
        ((200, {"Content-Type": "application/pdf"}, PDF), "damaged, cannot be parsed"),
        (
            (200, {"Content-Type": "application/pdf"}, b"<p>"),
            "named .pdf, but its content is plain text or unknown",
        ),
        ((200, {}, b"<p hidden>x</p>"), "holds no text"),
        ((200, {}, b"x" * 50_001), "larger than 50,000 bytes"),
        ((302, {"Location": "http://169.254.169.254/latest"}, b""), "is not on the public internet"),
        ((302, {"Location": "/page"}, b""), "redirects more than 5 times"),
    ],
)
def test_what_cannot_be_read_is_said_without_its_address_twice(site, answer, reason):
    site.pages["/page"] = answer
    [item] = pages(site, "/page", limits=Limits(size_bytes=50_000)).documents()
    assert isinstance(item, Unreadable)
    assert item.id == site.url("/page")
    assert reason in item.reason
    assert not item.reason.startswith("http") or "redirects" in item.reason


def test_a_host_that_is_down_or_private_is_said(site):
    found = by_id(pages(site, "/card", "http://127.0.0.1:1025/x", "http://localhost:9/"))
    assert (
        "is not on the public internet (got 127.0.0.1). If you trust it"
        in found["http://127.0.0.1:1025/x"].reason
    )
    assert "allow_hosts = ('localhost:9',)" in found["http://localhost:9/"].reason
    assert isinstance(found[site.url("/card")], Document)


def test_a_busy_server_is_asked_once_more(site):
    answers = [(503, {"Retry-After": "0"}, b""), (200, {}, b"<p>there</p>")]
    site.pages["/busy"] = lambda handler: handler.answer(*answers.pop(0))
    [item] = pages(site, "/busy").documents()
    assert item.text == "there"


def test_requests_to_a_host_keep_their_distance(site):
    began = time.monotonic()
    list(replace(pages(site, "/card", "/rate", "/none"), pause_s=0.1).documents())
    assert 0.2 <= time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"urls": ("ftp://a.example/",)}, DocumentError, "is no web address"),
        ({"allow_hosts": ("a.example/x",)}, DocumentError, "names no valid host"),
        (
            {"label": ""},
            RecipeError,
            r"web_pages: got label '' and pause_s 1; expected a label and at least 0\.",
        ),
        ({"pause_s": -1}, RecipeError, "pause_s -1; expected"),
    ],
)
def test_settings_are_checked_at_once(settings, error, message):
    with pytest.raises(error, match=message):
        WebPages(**{"urls": (), "label": "list", **settings})


def test_an_outage_deletes_nothing_and_an_address_taken_out_is_forgotten(site, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(pages(site, "/card", "/rate"))
        saved = dict(site.pages)
        for outage in ((503, {"Retry-After": "0"}, b""), (404, {}, b""), (302, {"Location": "/sorry"}, b"")):
            site.pages.update(dict.fromkeys(saved, outage) | {"/sorry": (500, {}, b"")})
            report = index.sync(pages(site, "/card", "/rate"))
            assert (report.removed, len(report.unreadable), len(index)) == (0, 2, 2)
        site.pages.update(saved)
        report = index.sync(pages(site, "/card"))
        assert (report.unchanged, report.removed) == (1, 1)


def test_it_keeps_the_contract_of_connectors(site):
    check_connector(pages(site, "/card", "/rate", "/none", "http://127.0.0.1:1/"))
    check_connector(WebPages((), "empty"))


def test_addresses_come_as_text_or_in_a_file(tmp_path):
    both = "https://a.example/x, https://b.example/y"
    made = web_pages_at(both, allow_hosts="a.example", pause_s=2)
    assert made == WebPages(
        ("https://a.example/x", "https://b.example/y"), "https://a.example/x", ("a.example",), 2.0
    )
    (tmp_path / "list.txt").write_text("https://a.example/x\nhttps://b.example/y\n")
    listed = web_pages_at(str(tmp_path / "list.txt"))
    assert (listed.urls, listed.label) == (made.urls, (tmp_path / "list.txt").as_posix())
    assert web_pages_at(made.urls, label="mine").name == "web_pages:mine"
    with pytest.raises(
        NotFound, match=r"absent.txt: there is no such file of addresses. Name one, or give addresses"
    ):
        web_pages_at(str(tmp_path / "absent.txt"))
