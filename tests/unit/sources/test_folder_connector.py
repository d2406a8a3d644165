import os

import pytest

from tailorbird.data.documents import reading_version
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document
from tailorbird.sources.folder import Folder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.source import Unreadable
from tailorbird.testing.sources import WordHash


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    (folder / "inner").mkdir(parents=True)
    (folder / "card.md").write_text("# Lost cards\n\nYou can freeze a lost card in the app.\n")
    (folder / "inner" / "rate.txt").write_text("Exchange rates are updated every day.\n")
    return folder


def test_documents_are_named_by_their_paths_in_the_folder(documents):
    assert [item.id for item in Folder(documents).documents()] == ["card.md", "inner/rate.txt"]


def test_what_cannot_be_read_is_given_as_unreadable(documents):
    (documents / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    items = {item.id: item for item in Folder(documents).documents()}
    assert isinstance(items["broken.pdf"], Unreadable)
    assert isinstance(items["card.md"], Document)


def test_the_name_is_the_full_path_or_the_label(documents, monkeypatch):
    monkeypatch.chdir(documents.parent)
    assert Folder(documents).name == Folder(documents.relative_to(documents.parent)).name
    assert Folder(documents, label="help").name == "help"


def test_a_missing_folder_is_an_error_and_forgets_nothing(documents, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(documents))
        documents.rename(tmp_path / "elsewhere")
        with pytest.raises(NotFound, match="no such folder"):
            index.sync(Folder(documents))
        assert len(index) == 2


def test_a_deleted_file_is_gone_after_the_next_sync(documents, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(documents))
        (documents / "card.md").unlink()
        assert index.sync(Folder(documents)).removed == 1
        assert index.keyword_search("freeze") == []


@pytest.fixture
def parsed(monkeypatch):
    """The kinds of the files that are parsed, one by one."""
    found, read = [], ParserProcess.read
    monkeypatch.setattr(
        ParserProcess, "read", lambda self, data, kind: found.append(kind) or read(self, data, kind)
    )
    return found


def test_a_second_sync_parses_only_what_changed(tmp_path, parsed):
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("card", "rate", "fee"):
        (docs / f"{name}.html").write_text(f"<p>What there is to know of a {name}.</p>")
    (docs / "broken.pdf").write_text("%PDF-1.7 not really")
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        assert index.sync(Folder(docs)).added == 3
        parsed.clear()
        again = index.sync(Folder(docs))
        assert (again.unchanged, again.passages, parsed) == (3, 3, [".pdf"])
        (docs / "rate.html").write_text("<p>Rates change.</p>")
        (docs / "fee.html").unlink()
        parsed.clear()
        told = index.sync(Folder(docs), dry_run=True)
        done = index.sync(Folder(docs))
        assert [(r.added, r.changed, r.removed, r.unchanged) for r in (told, done)] == [(0, 1, 1, 1)] * 2
        assert parsed.count(".html") == 2
        assert index.search("rates change", 1)[0].document == "rate.html"


def test_all_is_read_anew_where_files_are_read_or_cut_otherwise(tmp_path, parsed, monkeypatch):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "card.html").write_text("<p>Freeze it.</p>")
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(docs))
        monkeypatch.setattr("tailorbird.sources.folder.reading_version", lambda: "another")
        parsed.clear()
        assert (index.sync(Folder(docs)).unchanged, parsed) == (1, [".html"])
        parsed.clear()
        assert (index.sync(Folder(docs)).unchanged, parsed) == (1, [])
    with KnowledgeIndex(tmp_path / "index.db", WordHash(), max_chars=60) as shorter:
        assert (shorter.sync(Folder(docs)).changed, parsed) == (1, [".html"])


def test_the_same_file_under_another_label_is_another_connectors(tmp_path, parsed):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "card.html").write_text("<p>Freeze it.</p>")
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(docs, "a"))
        index.forget("a")
        parsed.clear()
        assert (index.sync(Folder(docs, "b")).added, parsed) == (1, [".html"])
        index.forget("b")
        assert index.sync(Folder(docs, "b")).added == 1


def test_the_way_of_reading_has_a_version():
    assert reading_version() == reading_version()
    assert len(reading_version()) == 16


def test_what_can_not_be_read_in_the_new_way_is_tried_again_and_not_taken_for_unchanged(
    tmp_path, parsed, monkeypatch
):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "card.html").write_text("<p>Freeze it.</p>")
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(docs))
        monkeypatch.setattr("tailorbird.sources.folder.reading_version", lambda: "another")
        with monkeypatch.context() as broken:
            broken.setattr(
                ParserProcess, "read", lambda *_: (_ for _ in ()).throw(DocumentError("too costly"))
            )
            assert index.sync(Folder(docs)).unreadable == (("card.html", "too costly"),)
        parsed.clear()
        assert (index.sync(Folder(docs)).unchanged, parsed) == (1, [".html"])
        assert index.search("freeze", 1)[0].document == "card.html"


def test_a_folder_that_cannot_be_listed_keeps_what_the_index_has(tmp_path, monkeypatch):
    (tmp_path / "docs" / "inner").mkdir(parents=True)
    (tmp_path / "docs" / "inner" / "a.md").write_text("Cards are frozen in the app.")
    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Folder(tmp_path / "docs"))
        real = os.scandir

        def scandir(place):
            if str(place).endswith("inner"):
                raise PermissionError(13, "Permission denied")
            return real(place)

        monkeypatch.setattr("tailorbird.data.documents.os.scandir", scandir)
        with pytest.raises(
            DocumentError, match=r"inner: cannot be listed \(Permission denied\). Check its perm"
        ):
            index.sync(Folder(tmp_path / "docs"))
        monkeypatch.undo()
        assert index.document_names() == {"inner/a.md"}


def test_a_file_that_became_a_link_or_a_folder_is_not_taken_for_the_one_that_is_known(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    for name in ("a.md", "b.md"):
        (root / name).write_text("Cards are frozen in the app.")
    known = {document.id: document.version for document in Folder(root).documents()}
    (root / "a.md").rename(tmp_path / "a.md")
    (root / "a.md").symlink_to(tmp_path / "a.md")
    (root / "b.md").unlink()
    (root / "b.md").mkdir()
    [found] = Folder(root).changes(known)
    assert (found.id, found.reason[:12]) == ("a.md", "lies outside")
