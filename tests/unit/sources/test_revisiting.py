"""Pages that are as they were: servers are asked by ETag and Last-Modified, and nothing is sent or parsed again."""

import json

import pytest
from website import Website

from tailorbird.sources.addresses import read_address
from tailorbird.sources.fetching import Fetched
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.notes import Noting, read_notes
from tailorbird.sources.revisiting import MAX_KEPT_LINKS, note_of, read_note
from tailorbird.sources.source import Unchanged
from tailorbird.sources.web_pages import WebPages
from tailorbird.sources.web_site import WebSite
from tailorbird.testing.sources import WordHash, check_versioned

OLD, DATE = "Mon, 02 Nov 2020 08:00:00 GMT", "Mon, 02 Nov 2020 09:00:00 GMT"


class Kept:
    """A page with an ETag or a date: asked by it, the server answers 304 without the page."""

    def __init__(self, text, *, by="ETag"):
        self.text, self.by, self.edition, self.sent = text, by, 1, 0

    def __call__(self, handler):
        value = f'"{self.edition}"' if self.by == "ETag" else OLD
        asked = handler.headers.get("If-None-Match" if self.by == "ETag" else "If-Modified-Since")
        if asked == value:
            handler.send_response(304)
            handler.end_headers()
            return
        self.sent += 1
        body = self.text.encode()
        handler.send_response_only(200)
        for name, said in {
            "Date": DATE,
            "Content-Type": "text/html",
            "Content-Length": len(body),
            self.by: value,
        }.items():
            handler.send_header(name, said)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def site():
    with Website().running() as website:
        yield website


@pytest.fixture
def index(tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        yield index


def pages(site, *paths):
    return WebPages(tuple(map(site.url, paths)), "list", (site.host,), pause_s=0)


def crawl(site):
    return WebSite(site.url("/"), allow_hosts=(site.host,), pause_s=0)


@pytest.mark.parametrize("by", ["ETag", "Last-Modified"])
def test_a_page_that_is_as_it_was_is_not_sent_again(site, index, by):
    page = site.pages["/card"] = Kept("<h1>Cards</h1><p>Freeze a lost card.", by=by)
    assert index.sync(pages(site, "/card")).added == 1
    for _ in range(2):
        assert index.sync(pages(site, "/card")).unchanged == 1
    assert (page.sent, len(site.asked)) == (1, 3)


def test_a_page_that_changed_is_read_anew(site, index):
    page = site.pages["/card"] = Kept("<p>Freeze a lost card.")
    index.sync(pages(site, "/card"))
    page.text, page.edition = "<p>Order a new card.", 2
    assert index.sync(pages(site, "/card")).changed == 1
    assert index.keyword_search("order")
    assert index.sync(pages(site, "/card")).unchanged == 1
    assert page.sent == 2


def test_markup_that_changed_is_a_page_that_is_as_it_was(site, index):
    page = site.pages["/card"] = Kept("<p>Freeze a lost card.")
    index.sync(pages(site, "/card"))
    page.text, page.edition = "<p>Freeze a lost card.<script>1</script>", 2
    assert index.sync(pages(site, "/card")).unchanged == 1
    assert index.sync(pages(site, "/card")).unchanged == 1
    assert page.sent == 2


def test_a_document_that_the_index_lost_is_asked_for_in_full(site, index):
    page = site.pages["/card"] = Kept("<p>Freeze a lost card.")
    index.sync(pages(site, "/card"))
    assert index.forget("web_pages:list") == 1
    assert index.sync(pages(site, "/card")).added == 1
    assert page.sent == 2


def test_passages_of_another_length_are_cut_from_pages_read_anew(site, index, tmp_path):
    page = site.pages["/card"] = Kept("<p>Freeze a lost card.")
    index.sync(pages(site, "/card"))
    with KnowledgeIndex(tmp_path / "index.db", WordHash(), max_chars=100) as shorter:
        assert shorter.sync(pages(site, "/card")).changed == 1
    assert page.sent == 2


def test_a_page_behind_a_redirect_is_asked_at_its_own_address(site, index):
    site.pages["/old"] = (301, {"Location": "/card"}, "")
    page = site.pages["/card"] = Kept("<p>Freeze a lost card.")
    for _ in range(2):
        index.sync(pages(site, "/old"))
    assert page.sent == 1
    conditions = [(path, "If-None-Match" in headers) for path, headers in site.asked]
    assert conditions == [("/old", False), ("/card", False), ("/old", False), ("/card", True)]


def test_a_server_that_answers_304_unasked_is_an_error(site, index):
    site.pages["/card"] = (304, {}, "")
    report = index.sync(pages(site, "/card"))
    assert [reason for _, reason in report.unreadable] == [
        "status 304: the page cannot be read now, or not by everyone. Try again later."
    ]


def test_a_site_is_walked_by_the_links_of_pages_that_were_not_sent(site, index):
    home = site.pages["/"] = Kept('<h1>Home</h1><p>Welcome.<a href="/a">A</a>')
    first = site.pages["/a"] = Kept('<p>All about cards.<a href="/b?x">B</a>')
    last = site.pages["/b?x"] = Kept('<p>All about rates.<link rel=canonical href="/b">')
    assert index.sync(crawl(site)).added == 3
    again = index.sync(crawl(site))
    assert (again.unchanged, again.removed, again.unreadable) == (3, 0, ())
    assert (home.sent, first.sent, last.sent) == (1, 1, 1)
    first.text, first.edition = "<p>All about cards, alone.", 2
    changed = index.sync(crawl(site))
    assert (changed.changed, changed.unchanged, changed.removed) == (1, 1, 1)
    assert (home.sent, first.sent, last.sent) == (1, 2, 1)


def test_notes_of_pages_that_are_gone_go(site, index):
    site.pages |= {"/a": Kept("<p>Cards."), "/b": Kept("<p>Rates.")}
    index.sync(pages(site, "/a", "/b"))
    connector = pages(site, "/a")
    index.sync(connector)
    assert isinstance(connector, Noting)
    assert list(connector.notes) == [site.url("/a")]
    index.forget("web_pages:list")
    with index._database.reading() as connection:
        assert read_notes(connection, "web_pages:list") == {}


def test_connectors_of_the_web_keep_the_contract_of_versions(site):
    site.pages |= {"/": Kept("<p>Welcome."), "/a": (200, {}, "<p>Cards.")}
    check_versioned(pages(site, "/", "/a"))
    check_versioned(crawl(site))


def answer(site, **headers):
    site.pages["/x"] = (200, headers, "<p>X")
    return pages(site, "/x"), site.url("/x")


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"ETag": '"a"'}, True),
        ({"ETag": "a" * 600}, False),
        ({"ETag": '"\xe9"'}, False),
        ({"Last-Modified": OLD}, True),
        ({"Last-Modified": "yesterday"}, False),
        ({"Last-Modified": "Mon, 02 Nov 2090 08:59:30 GMT"}, False),
        ({}, False),
    ],
    ids=["etag", "long", "not-ascii", "settled", "no-date", "too-young", "nothing"],
)
def test_what_is_no_firm_sign_is_not_remembered(site, headers, kept):
    connector, url = answer(site, **headers)
    [document] = connector.documents()
    assert (url in connector.notes) is kept
    if kept:
        assert json.loads(connector.notes[url])["version"] == document.version


def test_a_note_that_cannot_be_read_is_none():
    for text in (None, "", "{", "[]", '{"document": "a"}', '{"links": []}'):
        assert read_note(text, {"a": "1"}) is None


def test_a_page_of_very_many_links_is_read_anew(site):
    connector, url = answer(site, ETag='"a"')
    assert list(connector.documents())
    known = read_note(connector.notes[url], {url: json.loads(connector.notes[url])["version"]})
    assert known

    page = Fetched(read_address(url), 200, {"etag": '"a"'}, b"")
    assert note_of(page, url, "1", ["x"] * MAX_KEPT_LINKS)
    assert note_of(page, url, "1", ["x"] * (MAX_KEPT_LINKS + 1)) is None


def test_without_notes_unchanged_pages_are_told_all_the_same(site):
    connector, url = answer(site)
    [document] = connector.documents()
    assert list(connector.changes({url: document.version})) == [Unchanged(url)]
