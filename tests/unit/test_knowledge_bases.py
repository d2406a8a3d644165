import re

import pytest

from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.knowledge_bases import KnowledgeBases, connector_of
from tailorbird.sources.knowledge_base import KnowledgeBase
from tailorbird.sources.sync import SyncProgress
from tailorbird.testing.sources import WordHash


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.fixture
def knowledge(tmp_path):
    return KnowledgeBases(tmp_path / "state")


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "card.md").write_text("# Cards\n\nYou can freeze a lost card in the app.")
    (folder / "rates.md").write_text("Exchange rates are updated every day.")
    return folder


def test_what_is_added_is_synced_and_found(knowledge, docs):
    base = knowledge.add("desk", str(docs), max_chars=300)
    assert (base.max_chars, base.synced) == (300, 0)
    told = []
    (found,) = knowledge.sync("desk", on_progress=lambda *progress: told.append(progress))
    assert (found.origin, found.report.added, found.report.passages) == (f"folder:{docs}", 2, 2)
    assert (found.origin, SyncProgress("embed", 2, 2)) in told
    assert knowledge.search("desk", "lost card", 1)[0].document == "card.md"
    (info,) = knowledge.list()
    assert (info.documents, info.passages, info.without_vector) == ({found.origin: 2}, 2, 0)
    assert info.base.synced > 0


def test_a_dry_run_changes_nothing(knowledge, docs):
    knowledge.add("desk", str(docs))
    (found,) = knowledge.sync("desk", dry_run=True)
    assert (found.report.added, found.report.dry_run) == (2, True)
    (info,) = knowledge.list()
    assert (info.passages, info.base.synced) == (0, 0)


def test_several_places_fill_one_and_what_is_removed_goes_with_the_next_sync(knowledge, docs, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    (more / "fees.md").write_text("A transfer costs two euros.")
    knowledge.add("desk", str(docs))
    knowledge.add("desk", str(more))
    assert [r.report.added for r in knowledge.sync("desk")] == [2, 1]
    assert knowledge.search("desk", "transfer costs", 1)[0].document == "fees.md"
    left = knowledge.remove("desk", str(docs))
    assert [o.place for o in left.origins] == [str(more)]
    dry = knowledge.sync("desk", dry_run=True)
    assert (dry[0].origin, dry[0].forgotten) == (f"folder:{docs}", 2)
    gone, kept = knowledge.sync("desk")
    assert (gone.report, gone.forgotten, kept.report.passages) == (None, 2, 1)
    assert knowledge.remove("desk") is None
    assert knowledge.list() == []


def test_two_places_with_a_document_of_the_same_name_are_refused(knowledge, docs, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    (more / "card.md").write_text("Another card.")
    knowledge.add("desk", str(docs))
    knowledge.add("desk", str(more))
    first, second = knowledge.sync("desk")
    assert (first.report.added, first.failed) == (2, "")
    assert re.search(r"'card.md' of .* is already in the index, from", second.failed)
    assert knowledge.search("desk", "lost card", 1)[0].text.endswith("in the app.")


def test_a_place_that_is_gone_is_an_error_and_what_was_known_is_kept(knowledge, docs):
    knowledge.add("desk", str(docs))
    knowledge.sync("desk")
    more = docs.with_name("more")
    more.mkdir()
    (more / "fees.md").write_text("A transfer costs two euros.")
    knowledge.add("desk", str(more))
    docs.rename(docs.with_name("moved"))
    gone, other = knowledge.sync("desk")
    assert "there is no such folder" in gone.failed
    assert (gone.report, other.report.added) == (None, 1)
    assert len(knowledge.search("desk", "lost card", 5)) == 3


def test_a_name_stands_for_its_folder_where_there_is_no_folder_of_that_name(
    knowledge, docs, tmp_path, monkeypatch
):
    from pathlib import Path

    knowledge.add("desk", str(docs))
    assert knowledge.folder(Path("desk"), tmp_path) == knowledge.state / "knowledge" / "desk"
    assert knowledge.folder(Path("other"), tmp_path) == Path("other")
    assert knowledge.folder(None, tmp_path) is None
    assert knowledge.folder(tmp_path / "desk", tmp_path) == knowledge.state / "knowledge" / "desk"
    assert knowledge.folder(Path("elsewhere/desk"), tmp_path) == Path("elsewhere/desk")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk").mkdir()
    assert knowledge.folder(Path("desk"), tmp_path) == Path("desk")


def test_what_makes_no_sense_is_refused(knowledge, docs):
    with pytest.raises(NotFound, match=r"knowledge 'desk': nothing of that name was added here. Known: none"):
        knowledge.read("desk")
    with pytest.raises(InputError, match=r"say with --kind which connector reads it. Known: folder"):
        knowledge.add("desk", "http://example.org")
    with pytest.raises(NotFound, match="connector 'moon' is unknown"):
        knowledge.add("desk", str(docs), kind="moon")
    with pytest.raises(NotFound, match="there is no such folder"):
        knowledge.add("desk", str(docs / "absent"))
    with pytest.raises(
        RecipeError, match=r"connector 'folder': .*'color'. Check the settings' names and values"
    ):
        connector_of("folder", str(docs), {"color": 1})
    with pytest.raises(RecipeError, match=r"connector 'web_site': pause_s is 'soon'; expected float"):
        connector_of("web_site", "https://a.example/", {"pause_s": "soon"})
    with pytest.raises(InputError, match="max_chars is 10; expected 50 or more"):
        knowledge.add("desk", str(docs), max_chars=10)
    assert knowledge.list() == []
    knowledge.add("desk", str(docs), max_chars=200)
    with pytest.raises(InputError, match="its passages have up to 200 characters, not 300"):
        knowledge.add("desk", str(docs), max_chars=300)
    with pytest.raises(NotFound, match=r"knowledge 'desk': it has no origin '/absent'. It has: "):
        knowledge.remove("desk", "/absent")
    with pytest.raises(NotFound, match=r"Known: desk\."):
        knowledge.read("../desk")


def test_a_place_that_is_added_while_another_is_synced_is_kept_with_its_documents(
    knowledge, docs, tmp_path, monkeypatch
):
    more = tmp_path / "more"
    more.mkdir()
    (more / "fees.md").write_text("A transfer costs two euros.")
    knowledge.add("desk", str(docs))

    opened, index = [], KnowledgeBase.index

    def opened_late(base):
        if not opened:
            opened.append(base)
            knowledge.add("desk", str(more))
            knowledge.sync("desk")
        return index(base)

    monkeypatch.setattr(KnowledgeBase, "index", opened_late)
    found = knowledge.sync("desk")
    assert [report.origin for report in found] == [f"folder:{docs}"]
    (info,) = knowledge.list()
    assert [origin.place for origin in info.base.origins] == [str(docs), str(more)]
    assert info.documents == {f"folder:{docs}": 2, f"folder:{more}": 1}
