import pytest

from tailorbird.errors import NotFound
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
