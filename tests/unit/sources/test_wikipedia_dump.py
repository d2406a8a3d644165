"""MediaWiki exports: pages become documents, only changed ones are converted, hostile XML is refused."""

import bz2
import re

import pytest

from tailorbird.data import mediawiki_export
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import Limits
from tailorbird.errors import DocumentError, NotFound, RecipeError
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unchanged, Unreadable
from tailorbird.sources.wikipedia_dump import wikipedia_dump_at
from tailorbird.testing.sources import WordHash, check_connector, check_versioned

SITE = """<siteinfo><sitename>W</sitename><base>https://de.example.org/wiki/Hauptseite</base><namespaces>
<namespace key="0" case="first-letter" /><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>
</namespaces></siteinfo>"""


def page(title, text, revision=1, ns=0, more="", model="wikitext"):
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>7</id>{more}<revision><id>{revision}</id><parentid>3</parentid>"
        f"<contributor><username>u</username><id>99</id></contributor><model>{model}</model>"
        f'<text xml:space="preserve">{text}</text></revision></page>'
    )


def export(*pages, head=SITE):
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{head}{"".join(pages)}</mediawiki>'


PAGES = (
    page(
        "Zürich am See", "'''Zürich''' is [[Stadt|a city]].\n== Lage ==\nAm See.[[Datei:a.jpg|thumb|x]]", 11
    ),
    page("Zurich", "#REDIRECT [[Zürich]]", 12, more='<redirect title="Zürich am See" />'),
    page("Diskussion:Zürich", "talk", 13, ns=1),
    page("C++", "A language.[[Kategorie:X]]", 14),
    page("Only templates", "{{x}}", 15),
    page("Data", "{}", 16, model="json"),
)


@pytest.fixture
def make(tmp_path):
    def write(*pages, name="dewiki-20260101-pages-articles.xml.bz2", head=SITE):
        file = tmp_path / name
        data = export(*pages, head=head).encode()
        file.write_bytes(bz2.compress(data) if name.endswith("bz2") else data)
        return wikipedia_dump_at(str(file), processes=1)

    return write


def test_articles_become_documents_with_addresses_and_revisions(make):
    first, second, *others = make(*PAGES).documents()
    assert first == Document(
        "https://de.example.org/wiki/Z%C3%BCrich_am_See",
        "Zürich is a city.\n\n## Lage\n\nAm See.",
        "Zürich am See",
        "11",
    )
    assert (second.id, second.text, second.version) == (
        "https://de.example.org/wiki/C%2B%2B",
        "A language.",
        "14",
    )
    assert [item.reason for item in others] == [
        "holds no text. Delete it or add its text.",
        "is of the content model 'json'; expected 'wikitext'.",
    ]


def test_it_keeps_its_contract(make):
    dump = make(*PAGES)
    check_connector(dump)
    check_versioned(dump)


def test_other_namespaces_are_read_where_they_are_named(make):
    dump = make(*PAGES)
    both = wikipedia_dump_at(str(dump.file), namespaces=[0, 1])
    assert [item.id.rpartition("/")[2] for item in both.documents()][1] == "Diskussion:Z%C3%BCrich"
    assert len(list(wikipedia_dump_at(str(dump.file), namespaces=1).documents())) == 1


def test_namespaces_come_as_text_too_and_nothing_else_is_taken_for_them(make):
    dump = make(*PAGES)
    both = wikipedia_dump_at(str(dump.file), namespaces="0,1")
    assert both.namespaces == (0, 1)
    assert len(list(both.documents())) == len(list(dump.documents())) + 1
    for odd in ("articles", "0;4", ["0.5"], [1.5], [None]):
        with pytest.raises(RecipeError, match=r"got namespaces .*; expected whole numbers, such as 0,4"):
            wikipedia_dump_at(str(dump.file), namespaces=odd)


def test_plain_xml_and_many_streams_are_read_alike(make, tmp_path):
    whole = list(make(*PAGES).documents())
    assert list(make(*PAGES, name="plain.xml").documents()) == whole
    data = export(*PAGES).encode()
    parts = b"".join(bz2.compress(data[i : i + 300]) for i in range(0, len(data), 300))
    (tmp_path / "many.xml.bz2").write_bytes(parts)
    assert list(wikipedia_dump_at(str(tmp_path / "many.xml.bz2")).documents()) == whole


def test_a_second_sync_converts_only_what_changed(make, tmp_path, monkeypatch):
    converted, read = [], ParserProcess.read
    monkeypatch.setattr(
        ParserProcess, "read", lambda self, data, suffix: converted.append(data) or read(self, data, suffix)
    )
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        pages = [page(f"Page {n}", f"Text number {n}.", n) for n in range(1, 9)]
        assert index.sync(make(*pages)).added == 8
        assert len(converted) == 8
        pages[2] = page("Page 3", "Another text.", 33)
        again = make(*pages[:-1], name="dewiki-20260201-pages-articles.xml.bz2")
        report = index.sync(again)
        assert (report.changed, report.removed, report.unchanged) == (1, 1, 6)
        assert len(converted) == 9


def test_the_next_months_dump_has_the_same_name(make):
    names = {
        make(*PAGES, name=f"dewiki-{date}-pages-articles.xml.bz2").name for date in ("20260101", "latest")
    }
    assert names == {"wikipedia_dump:dewiki-pages-articles.xml"}


def test_a_page_that_is_there_twice_is_read_once(make):
    items = list(make(page("A", "first", 1), page("A", "second", 2)).documents())
    assert [item.text for item in items] == ["first"]


def test_without_the_wikis_address_titles_are_ids(make):
    assert [item.id for item in make(page("A b", "x"), head="").documents()] == ["A_b"]


def test_many_processes_give_the_same_in_the_same_order(make):
    pages = [page(f"Page {n}", f"Text {n}. " * (60 - n), n) for n in range(1, 40)]
    dump = make(*pages)
    several = wikipedia_dump_at(str(dump.file), processes=3)
    assert list(several.documents()) == list(dump.documents())


def test_a_page_that_costs_too_much_is_refused_and_the_others_read(make, monkeypatch):
    monkeypatch.setattr("tailorbird.sources.wikipedia_dump.PAGE_LIMITS", Limits(cpu_s=0.5))
    items = list(make(page("Bad", "&lt;b&gt;" * 100_000), page("Good", "Read.")).documents())
    assert isinstance(items[0], Unreadable)
    assert "of computing, the most that one file is given" in items[0].reason
    assert items[1].text == "Read."


def test_a_page_that_is_too_long_is_refused_without_being_kept(make, monkeypatch):
    monkeypatch.setattr(mediawiki_export, "MOST_CHARS", 1_000)
    items = list(make(page("Long", "x" * 5_000), page("Short", "y")).documents())
    assert items[0] == Unreadable(
        "https://de.example.org/wiki/Long", "has more than 4,000,000 characters of wikitext. Divide it."
    )
    assert items[1].text == "y"


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + export(page("A", "&b;")), r"declares a document type \('x'\)"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">' + export(), "declares a document type"),
        ("<html><body/></html>", r"got <html>, expected <mediawiki>"),
        ("", r"damaged or cut short \(no element found"),
        (export(*PAGES)[:-30], r"damaged or cut short \(no element found"),
        (export(page("A", "\x01")), r"damaged or cut short \(not well-formed"),
        (export(page("A" * 5_000, "x")), r"has a <title> of more than 4,096 characters"),
        (export("<x>" * 30 + "</x>" * 30), "nests deeper than 20 elements"),
        (export(page("A", "x", ns="first")), r"damaged or cut short \(invalid literal"),
    ],
    ids=["entities", "file", "html", "empty", "cut", "control", "title", "nested", "number"],
)
def test_what_is_no_export_is_refused(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DocumentError, match=f"^{re.escape(str(tmp_path))}/a.xml: .*{message}"):
        list(wikipedia_dump_at(str(tmp_path / "a.xml")).documents())


def test_a_cut_or_damaged_bzip2_file_is_refused_and_the_index_keeps_what_it_has(make, tmp_path):
    dump = make(*PAGES)
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(dump)
        data = dump.file.read_bytes()
        dump.file.write_bytes(data[:-20])
        with pytest.raises(DocumentError, match=r"cut short \(Compressed file ended"):
            index.sync(dump)
        dump.file.write_bytes(data[:200] + b"x" * 50 + data[250:])
        with pytest.raises(DocumentError, match="damaged or cut short"):
            index.sync(dump)
        assert index.keyword_search("Zürich")


def test_a_bomb_of_bzip2_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(mediawiki_export, "UNPACKED_BYTES", 2**20)
    (tmp_path / "bomb.xml.bz2").write_bytes(bz2.compress(export().encode()[:-12] + b" " * 30_000_000))
    with pytest.raises(DocumentError, match=r"looks like a bomb \(\d MB unpacked from 0\.0 MB\)"):
        list(wikipedia_dump_at(str(tmp_path / "bomb.xml.bz2")).documents())


def test_an_endless_tag_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(mediawiki_export, "TOKEN_BYTES", 2**20)
    (tmp_path / "a.xml").write_text(f'<mediawiki a="{"x" * 3_000_000}"></mediawiki>')
    with pytest.raises(DocumentError, match="holds a tag of more than 1 MB"):
        list(wikipedia_dump_at(str(tmp_path / "a.xml")).documents())


def test_reading_may_end_early(make):
    dump = make(*(page(f"Page {n}", "x", n) for n in range(1, 30)))
    items = dump.documents()
    assert next(items).version == "1"
    items.close()


def test_a_missing_file_and_odd_settings_are_errors(tmp_path):
    with pytest.raises(NotFound, match=r"nope\.xml: there is no such file\. Name a MediaWiki export"):
        list(wikipedia_dump_at(str(tmp_path / "nope.xml")).documents())
    with pytest.raises(RecipeError, match=r"got namespaces \[\] and processes 0"):
        wikipedia_dump_at("a.xml", namespaces=[])
    with pytest.raises(RecipeError, match="processes -1"):
        wikipedia_dump_at("a.xml", processes=-1)


def test_real_articles_are_read(shared_data):
    folder = shared_data / "wikipedia_dump"
    if not folder.is_dir():
        pytest.skip(f"no Wikipedia dump at {folder}")
    dump = wikipedia_dump_at(str(next(folder.glob("*table-markup*"))))
    documents = {document.title: document for document in dump.documents()}
    assert len(documents) == 5
    text = documents["Constructive vote of no confidence"].text
    assert text.startswith(
        "The constructive vote of no confidence (in German: konstruktives Misstrauensvotum,"
    )
    assert "| Date | Opposition candidate (party) | Chancellor (party) |" in text
    for document in documents.values():
        assert not re.search(r"\{\{|\}\}|\[\[|\]\]|</?ref", document.text)
    versions = {document.id: document.version for document in documents.values()}
    assert all(isinstance(item, Unchanged) for item in dump.changes(versions))
