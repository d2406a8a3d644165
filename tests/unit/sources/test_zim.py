"""ZIM archives: HTML pages become documents; damaged archives are refused, and missing libzim is said."""

import re

import pytest

from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, NotFound, Unsupported
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable
from tailorbird.sources.zim import zim_at
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

writer = pytest.importorskip("libzim.writer")

PAGES = {
    "card.html": ("Lost cards", "<title>x</title><h1>Lost cards</h1><p>Freeze the card in the app.</p>"),
    "inner/rate.html": ("Rates", "<p>Rates change <b>daily</b>.</p><script>alert(1)</script>"),
    "empty.html": ("Empty", "<p></p>"),
    "style.css": ("", "p {color: red}"),
}


class Page(writer.Item):
    def __init__(self, path, title, text):
        super().__init__()
        self.path, self.title, self.text = path, title, text

    def get_path(self):
        return self.path

    def get_title(self):
        return self.title

    def get_mimetype(self):
        return "text/css" if self.path.endswith("css") else "text/html"

    def get_contentprovider(self):
        return writer.StringProvider(self.text)

    def get_hints(self):
        return {writer.Hint.FRONT_ARTICLE: True}


@pytest.fixture
def make(tmp_path):
    def write(pages=None, name="shop_en_2026-01.zim"):
        file = tmp_path / name
        file.unlink(missing_ok=True)
        with writer.Creator(file).config_indexing(False, "en") as creator:
            creator.set_mainpath("card.html")
            for path, (title, text) in (PAGES if pages is None else pages).items():
                creator.add_item(Page(path, title, text))
            creator.add_redirection("lost.html", "Lost", "card.html", {})
        return zim_at(str(file))

    return write


def test_html_pages_become_documents(make):
    card, empty, rate = make().documents()
    assert (card.id, card.title) == ("shop_en/card.html", "Lost cards")
    assert card.text == "# Lost cards\n\nFreeze the card in the app."
    assert empty == Unreadable("shop_en/empty.html", "holds no text. Delete it or add its text.")
    assert (rate.id, rate.text) == ("shop_en/inner/rate.html", "Rates change daily.")


def test_it_keeps_its_contract(make):
    archive = make()
    check_connector(archive)
    check_versioned(archive)


def test_a_newer_edition_takes_the_place_of_the_older_one_and_only_changed_pages_are_parsed(
    make, tmp_path, monkeypatch
):
    parsed, read = [], ParserProcess.read
    monkeypatch.setattr(ParserProcess, "read", lambda self, *a: parsed.append(a) or read(self, *a))
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        pages = {name: page for name, page in PAGES.items() if name != "empty.html"}
        assert index.sync(make(pages)).added == 2
        parsed.clear()
        pages["card.html"] = ("Lost cards", "<p>Call us.</p>")
        report = index.sync(make(pages, "shop_en_2026-02.zim"))
        assert (report.changed, report.unchanged, report.removed) == (1, 1, 0)
        assert len(parsed) == 1


def test_damaged_archives_are_refused_and_the_index_keeps_what_it_has(make, tmp_path):
    archive = make()
    whole = archive.file.read_bytes()
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(archive)
        for data in (b"", b"PK\x03\x04" + b"x" * 200, whole[:100], whole[:-200], b"\0" * len(whole)):
            archive.file.write_bytes(data)
            with pytest.raises(DocumentError, match=rf"^{re.escape(str(archive.file))}: .*\."):
                index.sync(archive)
        for at in (90, 2_117, 2_214):  # in the header, and where its entries are told
            archive.file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            try:
                items = list(archive.documents())
            except DocumentError as error:
                assert str(error).startswith(str(archive.file))  # noqa: PT017
            else:
                assert all(isinstance(item, Document | Unreadable) for item in items)
        assert index.keyword_search("freeze")


def test_a_page_that_is_too_large_is_refused_by_its_size(make, monkeypatch):
    archive = make({**PAGES, "large.html": ("Large", "<p>" + "large " * 9_000_000)})
    items = {item.id: item for item in archive.documents()}
    assert items["shop_en/large.html"].reason == "51 MB; at most 50 MB are read. Divide it."
    assert isinstance(items["shop_en/card.html"], Document)


def test_a_missing_file_and_a_missing_package_are_said(tmp_path, monkeypatch):
    with pytest.raises(NotFound, match=r"a\.zim: there is no such file\. Name a ZIM archive"):
        list(zim_at(str(tmp_path / "a.zim")).documents())
    monkeypatch.setattr("tailorbird.sources.optional.find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"zim: the package libzim is not installed.*'tailorbird\[zim\]'"):
        zim_at("a.zim")


@pytest.mark.parametrize(
    ("file", "count"), [("nons_wikibooks_be_all_nopic_2017-02", 66), ("withns_small", 1)]
)
def test_real_archives_of_both_forms_are_read(shared_data, file, count):
    path = shared_data / "zim" / f"data_{file}.zim"
    if not path.is_file():
        pytest.skip(f"no ZIM archive at {path}")
    documents = list(zim_at(str(path)).documents())
    assert len(documents) == count
    assert all(isinstance(document, Document) for document in documents)
    assert documents[0].title in {"Індыйская кухня", "Test ZIM file"}
