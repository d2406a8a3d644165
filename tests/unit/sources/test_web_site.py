"""Whole websites, crawled on a real server on this machine."""

import gzip
import time
from dataclasses import replace

import pytest
from website import Website

from tailorbird.errors import DocumentError, EndpointError, RecipeError
from tailorbird.records import Document
from tailorbird.sources import web_site
from tailorbird.sources.fetching import Limits
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Removed, Unreadable
from tailorbird.sources.web_site import WebSite, web_site_at
from tailorbird.testing.sources import WordHash, check_connector


def linking(*places, text="text", head=""):
    return f"<head>{head}</head><p>{text}</p>" + "".join(f"<a href='{place}'>link</a>" for place in places)


def sitemap(site, *paths, kind="url"):
    root = {"url": "urlset", "sitemap": "sitemapindex"}[kind]
    places = "".join(f"<{kind}><loc>{site.url(path)}</loc></{kind}>" for path in paths)
    return 200, {"Content-Type": "application/xml"}, f"<{root}>{places}</{root}>"


def moved(place, status=301):
    return status, {"Location": place}, b""


ROBOTS = {"Content-Type": "text/plain"}


@pytest.fixture
def site():
    pages = {
        "/docs/": linking(
            "a", "b#part", "/docs/", "../other", "mailto:x@y.example", "http://elsewhere.example/docs/"
        ),
        "/docs/a": linking("b", "c?x=1", text="a"),
        "/docs/b": linking("a", "deep/d", text="b"),
        "/docs/c?x=1": linking(text="c"),
        "/docs/deep/d": linking("../a", text="d"),
        "/other": linking(),
    }
    with Website(pages).running() as website:
        yield website


def crawl(site, start="/docs/", **settings):
    return WebSite(site.url(start), allow_hosts=(site.host,), **{"pause_s": 0, **settings})


def read(connector, site):
    """What a connector gave by path: texts, and for the rest the records; its own note under its name."""
    found = {}
    for item in connector.documents():
        name = item.id.removeprefix(site.url(""))
        assert name not in found
        found[name] = item.text if isinstance(item, Document) else item
    return found


def test_pages_beneath_the_start_are_found_by_their_links_each_once(site):
    connector = crawl(site)
    assert not connector.complete
    found = read(connector, site)
    assert list(found) == ["/docs/", "/docs/a", "/docs/b", "/docs/c?x=1", "/docs/deep/d"]
    assert [text.split()[0] for text in found.values()] == ["text", "a", "b", "c", "d"]
    assert connector.complete
    assert site.paths == ["/robots.txt", "/sitemap.xml", *found]


def test_the_name_lasts(site):
    assert crawl(site).name == f"web_site:{site.url('/docs/')}"
    assert crawl(site, label="help").name == "web_site:help"
    assert crawl(site) == crawl(site)


def test_the_base_of_a_page_and_its_fragments_are_minded(site):
    site.pages["/docs/"] = linking("a#1", "a#2", "./a", head="<base href='/docs/deep/'>")
    site.pages["/docs/deep/a"] = "<p>inner</p>"
    assert list(read(crawl(site), site)) == ["/docs/", "/docs/deep/a"]


def test_depth_and_number_of_pages_are_limited_and_said(site):
    connector = crawl(site, max_depth=1)
    found = read(connector, site)
    note = found.pop(connector.name)
    assert list(found) == ["/docs/", "/docs/a", "/docs/b"]
    assert note.reason == "Links deeper than 1 were not followed; raise max_depth."
    assert not connector.complete
    connector = crawl(site, max_pages=2)
    found = read(connector, site)
    assert list(found) == ["/docs/", "/docs/a", connector.name]
    assert found[connector.name].reason == "More than 2 pages; raise max_pages to read them all."
    assert not connector.complete
    connector = crawl(site, max_bytes=100)
    assert "More than 100 bytes; raise max_bytes" in read(connector, site)[connector.name].reason
    assert not connector.complete


def test_a_trap_of_endless_links_ends(site):
    def endless(handler):
        deeper = handler.path + "x/"
        handler.server.pages[deeper] = endless
        body = linking("x/", text=handler.path).encode()
        handler.answer(200, {}, body)

    site.pages["/docs/"] = endless
    connector = crawl(site, max_depth=20)
    assert len(read(connector, site)) == 22
    assert not connector.complete


def test_what_is_excluded_or_closed_by_robots_is_not_asked_for(site):
    site.pages["/robots.txt"] = (
        200,
        ROBOTS,
        "User-agent: tailorbird\nDisallow: /docs/*x=\nUser-agent: *\nDisallow: /\n",
    )
    connector = crawl(site, exclude=("/docs/deep/",))
    assert list(read(connector, site)) == ["/docs/", "/docs/a", "/docs/b"]
    assert connector.complete
    assert not {"/docs/c?x=1", "/docs/deep/d"} & set(site.paths)


@pytest.mark.parametrize(
    ("robots", "error", "message"),
    [
        (
            (200, ROBOTS, "User-agent: *\nDisallow: /docs"),
            DocumentError,
            r"/docs/: robots.txt closes it to programs\. Ask",
        ),
        (
            (200, ROBOTS, "User-agent: *\nCrawl-delay: 99"),
            DocumentError,
            r"asks for 99 s between two pages; at most 60 s",
        ),
        (
            (500, {}, b""),
            EndpointError,
            r"robots.txt: status 500, so which pages may be read is not known\. Try",
        ),
    ],
)
def test_a_site_that_may_not_be_read_is_not(site, robots, error, message):
    site.pages["/robots.txt"] = robots
    with pytest.raises(error, match=message):
        list(crawl(site).documents())
    assert set(site.paths) <= {"/robots.txt", "/sitemap.xml"}


def test_the_crawl_delay_is_kept_to(site):
    site.pages["/robots.txt"] = (200, ROBOTS, "User-agent: *\nCrawl-delay: 0.1")
    site.pages["/docs/"] = "<p>alone</p>"
    began = time.monotonic()
    assert list(read(crawl(site), site)) == ["/docs/"]
    assert 0.2 <= time.monotonic() - began < 20


def test_sitemaps_are_followed_instead_of_links(site):
    site.pages["/robots.txt"] = (200, ROBOTS, f"Sitemap: {site.url('/index.xml')}\nSitemap: /index.xml\n")
    site.pages["/index.xml"] = sitemap(site, "/one.xml", "/two.xml.gz", "/index.xml", kind="sitemap")
    site.pages["/one.xml"] = sitemap(site, "/docs/a", "/docs/b", "/other", "/docs/a#x")
    status, _, two = sitemap(site, "/docs/deep/d")
    site.pages["/two.xml.gz"] = (status, {"Content-Type": "application/gzip"}, gzip.compress(two.encode()))
    connector = crawl(site)
    assert list(read(connector, site)) == ["/docs/a", "/docs/b", "/docs/deep/d"]
    assert connector.complete
    assert site.paths.count("/index.xml") == site.paths.count("/one.xml") == 1
    assert "/docs/" not in site.paths
    assert next(iter(read(crawl(site, sitemaps=False), site))) == "/docs/"


@pytest.mark.parametrize(
    "answer", [(404, {}, b""), (200, {}, b"<p>no such page</p>"), (301, {"Location": "/other"}, b"")]
)
def test_a_sitemap_that_was_only_guessed_may_be_missing(site, answer):
    site.pages["/sitemap.xml"] = answer
    connector = crawl(site)
    assert len(read(connector, site)) == 5
    assert connector.complete


BOMB = gzip.compress(b"<urlset>" + b" " * 10**7)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, {}, b""), "/one.xml answered with status 500"),
        ((404, {}, b""), "/one.xml answered with status 404"),
        ((200, {}, b"<urlset><url>"), "/one.xml was not read: is no sitemap"),
        ((200, {}, BOMB), "larger than 50,000 bytes"),
        ((200, {"Content-Encoding": "gzip"}, BOMB), "larger than 50,000 bytes"),
        (
            (200, {}, b"<urlset><url><loc>ftp://x/</loc></url></urlset>"),
            "names what is no address: 'ftp://x/'",
        ),
        ((301, {"Location": "http://10.0.0.1/"}, b""), "is not on the public internet"),
    ],
)
def test_a_sitemap_that_fails_leaves_the_site_incomplete(site, answer, told):
    site.pages["/robots.txt"] = (200, ROBOTS, f"Sitemap: {site.url('/one.xml')}\n")
    site.pages["/one.xml"] = answer
    connector = crawl(site, limits=Limits(size_bytes=50_000))
    found = read(connector, site)
    assert told in found[connector.name].reason
    assert not connector.complete
    assert "/docs/a" in found


def test_an_endless_row_of_sitemaps_ends(site):
    def index(handler):
        following = f"/{handler.path.count('x') + 1}" + "x" * (handler.path.count("x") + 1)
        handler.server.pages[following] = index
        handler.answer(
            *sitemap(site, following, kind="sitemap")[:2],
            sitemap(site, following, kind="sitemap")[2].encode(),
        )

    site.pages["/sitemap.xml"] = index
    connector = crawl(site)
    assert "More than 50 sitemaps" in read(connector, site)[connector.name].reason
    assert not connector.complete


def test_redirects_inside_the_site_give_each_page_once_under_its_own_address(site):
    site.pages.update({"/docs/": linking("old", "older", "a", "loop"), "/docs/old": moved("/docs/a")})
    site.pages.update(
        {"/docs/older": moved("new"), "/docs/new": "<p>new</p>", "/docs/loop": moved("/docs/loop")}
    )
    connector = crawl(site)
    found = read(connector, site)
    assert found["/docs/new"] == "new"
    assert {"/docs/old", "/docs/older"} & set(found) == set()
    assert "redirects more than 5 times" in found["/docs/loop"].reason
    assert not connector.complete


def test_redirects_out_of_the_site_are_said(site):
    site.pages["/docs/"] = linking("a", "away", "private")
    site.pages["/docs/away"] = moved("/other")
    site.pages["/docs/private"] = moved("http://192.168.1.1/admin")
    connector = crawl(site)
    found = read(connector, site)
    assert (
        found["/docs/away"].reason
        == f"redirects to {site.url('/other')}, which is no part of the site. Start there."
    )
    assert "'192.168.1.1' is not on the public internet" in found["/docs/private"].reason
    site.pages["/docs/"] = moved("/other")
    with pytest.raises(DocumentError, match=r"which is no part of the site\. Start there"):
        list(crawl(site).documents())


def test_a_redirect_that_holds_only_for_now_never_looks_like_deletion(site, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(crawl(site)).added == 5
        saved = dict(site.pages)
        site.pages.update(
            dict.fromkeys(saved, moved("/docs/sorry", 302)) | {"/docs/sorry": "<p>Back soon</p>"}
        )
        report = index.sync(crawl(site))
        assert report.removed == 0
        told = dict(report.unreadable)
        assert (
            "for now, so what else is gone can't be told. Start there, or exclude it"
            in told[site.url("/docs/")]
        )


def test_a_page_that_names_its_address_without_the_query_comes_once(site):
    canonical = "<link rel=canonical href='/docs/p'>"
    site.pages.update({"/docs/": linking("p?session=1", "p?session=2", "p/", "home")})
    site.pages.update(
        dict.fromkeys(["/docs/p?session=1", "/docs/p?session=2", "/docs/p/"], linking(head=canonical))
    )
    site.pages["/docs/home"] = linking(head="<link rel=canonical href='/docs/'>")
    assert list(read(crawl(site), site)) == ["/docs/", "/docs/p", "/docs/home"]


def test_what_is_missing_or_of_another_kind_is_said_and_harmless(site):
    site.pages["/docs/"] = linking("missing", "gone", "picture", "broken.pdf", "a")
    site.pages["/docs/gone"] = (410, {}, b"")
    site.pages["/docs/picture"] = (200, {"Content-Type": "image/png"}, b"\x89PNG")
    site.pages["/docs/broken.pdf"] = (200, {"Content-Type": "application/pdf"}, b"%PDF-1.7 broken")
    connector = crawl(site)
    found = read(connector, site)
    assert "status 404: there is no such page" in found["/docs/missing"].reason
    assert found["/docs/gone"] == Removed(site.url("/docs/gone"))
    assert "of the kind image/png" in found["/docs/picture"].reason
    assert "damaged" in found["/docs/broken.pdf"].reason
    assert connector.complete


@pytest.mark.parametrize(
    "answer", [(503, {"Retry-After": "0"}, b""), (403, {}, b""), (200, {}, b"x" * 60_000)]
)
def test_an_outage_of_a_part_deletes_nothing(site, tmp_path, answer):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(crawl(site))
        site.pages["/docs/b"] = answer
        report = index.sync(crawl(site, limits=Limits(size_bytes=50_000)))
        assert (report.removed, len(index)) == (0, 5)
        assert [name for name, _ in report.unreadable] == [site.url("/docs/b"), crawl(site).name]


@pytest.mark.parametrize(
    "answer", [(503, {"Retry-After": "0"}, b""), (404, {}, b""), (200, {"Content-Type": "image/png"}, b"x")]
)
def test_an_outage_of_the_whole_is_an_error_and_deletes_nothing(site, tmp_path, answer):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(crawl(site))
        site.pages.update(dict.fromkeys(site.pages, answer))
        with pytest.raises((EndpointError, DocumentError), match=r"status|kind"):
            index.sync(crawl(site))
        assert len(index) == 5


def test_a_site_that_goes_down_is_left_alone(site, monkeypatch):
    monkeypatch.setattr(web_site, "MAX_FAILURES", 3)
    site.pages = {"/docs/": linking(*(f"p{n}" for n in range(20)))}
    site.pages.update({f"/docs/p{n}": (500, {}, b"") for n in range(20)})
    connector = crawl(site)
    found = read(connector, site)
    assert len(site.asked) == 6
    assert (
        "3 pages in a row failed, so the rest was not asked for. Try again later."
        in found[connector.name].reason
    )
    assert not connector.complete


def test_many_doubts_are_told_shortly(site):
    site.pages = {"/docs/": linking(*(f"p{n}" for n in range(8)))}
    site.pages.update({f"/docs/p{n}": (500, {}, b"") for n in range(8)})
    connector = crawl(site)
    assert read(connector, site)[connector.name].reason.endswith(
        f"{site.url('/docs/p4')} failed. And 3 more."
    )


def test_a_page_that_is_deleted_is_gone_after_the_next_sync(site, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(crawl(site))
        site.pages["/docs/a"] = linking("b", text="changed")
        del site.pages["/docs/c?x=1"]
        report = index.sync(crawl(site))
        assert (report.changed, report.removed, report.unchanged) == (1, 1, 3)


def test_more_addresses_than_can_be_kept_are_left_and_said(site, monkeypatch):
    monkeypatch.setattr(web_site, "MAX_PLACES", 3)
    connector = crawl(site)
    found = read(connector, site)
    assert list(found) == ["/docs/", "/docs/a", "/docs/b", connector.name]
    assert "More than 3 addresses; take a part of the site as start" in found[connector.name].reason
    site.pages["/sitemap.xml"] = sitemap(site, "/docs/a", "/docs/b", "/docs/deep/d")
    assert "list 3 addresses or more, so not all were read" in read(connector, site)[connector.name].reason
    monkeypatch.setattr(web_site, "MAX_PLACES", 50)
    monkeypatch.setattr(web_site, "MAX_LINKS", 2)
    assert "A page has more than 2 links" in read(crawl(site, sitemaps=False), site)[connector.name].reason


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"start": "example.com"}, DocumentError, "is no web address"),
        ({"allow_hosts": ("a/b",)}, DocumentError, "names no valid host"),
        ({"max_pages": 0}, RecipeError, r"web_site: got max_pages 0, .*; expected at least 1, 0, 1 and 0\."),
        ({"max_depth": -1}, RecipeError, "max_depth -1"),
        ({"max_bytes": 0}, RecipeError, "max_bytes 0"),
        ({"pause_s": -1}, RecipeError, "pause_s -1"),
    ],
)
def test_settings_are_checked_at_once(settings, error, message):
    with pytest.raises(error, match=message):
        WebSite(**{"start": "http://a.example/", **settings})


def test_a_private_site_is_not_read_unless_it_is_allowed(site):
    with pytest.raises(DocumentError, match="is not on the public internet"):
        list(replace(crawl(site), allow_hosts=()).documents())
    assert site.asked == []


def test_it_keeps_the_contract_of_connectors(site):
    site.pages["/docs/"] = linking("a", "b", "missing", "picture")
    site.pages["/docs/picture"] = (200, {"Content-Type": "image/png"}, b"\x89PNG")
    check_connector(crawl(site))
    site.pages["/sitemap.xml"] = sitemap(site, "/docs/a", "/docs/deep/d")
    check_connector(crawl(site))
    assert all(isinstance(item, Document | Removed | Unreadable) for item in crawl(site).documents())


def test_a_site_is_made_of_text():
    made = web_site_at(
        "https://a.example/", allow_hosts="a.example, b.example:8080", exclude="/old/", max_pages=5
    )
    assert made == WebSite(
        "https://a.example/", allow_hosts=("a.example", "b.example:8080"), exclude=("/old/",), max_pages=5
    )
