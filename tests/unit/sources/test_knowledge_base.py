import json
from dataclasses import replace

import pytest

from tailorbird.errors import DataError, IntegrityError
from tailorbird.sources.folder import Folder, folder_at
from tailorbird.sources.knowledge_base import (
    RECORD,
    KnowledgeBase,
    Origin,
    is_knowledge_base,
    read_knowledge_base,
)
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.relevance import documents_hash, synced_index
from tailorbird.sources.scopes import Rules
from tailorbird.sources.stores import SearchSettings
from tailorbird.testing.sources import WordHash

ORIGIN = Origin("folder", "/docs", "folder:/docs", {"label": "x"})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


def test_what_is_recorded_is_read_back(tmp_path):
    base = KnowledgeBase(tmp_path / "desk", (ORIGIN,), 300, 1234)
    assert not is_knowledge_base(base.folder)
    base.save()
    assert is_knowledge_base(base.folder)
    assert read_knowledge_base(base.folder) == base
    assert base.name == "desk"


def test_an_origin_that_is_added_again_takes_the_new_settings(tmp_path):
    other = Origin("folder", "/docs", "folder:/docs", {"label": "y"})
    third = Origin("folder", "/more", "folder:/more")
    base = KnowledgeBase(tmp_path, (ORIGIN, third))
    assert base.with_origin(other).origins == (third, other)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "Expecting property name"),
        (json.dumps({"format": 2}), "format 2, expected 1"),
        (json.dumps({"format": 1}), "'origins'"),
        (json.dumps({"format": 1, "origins": [{"x": 1}]}), "unexpected keyword argument 'x'"),
    ],
)
def test_a_damaged_record_is_said_with_what_to_do(tmp_path, content, found):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(IntegrityError, match=f"no record of a knowledge base .*{found}.*Remove the folder"):
        read_knowledge_base(tmp_path)


def test_it_stands_where_a_folder_of_documents_stands_as_it_was_last_synced(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "card.md").write_text("You can freeze a lost card.")
    base = KnowledgeBase(tmp_path / "desk", (), 200)
    base.save()
    with pytest.raises(DataError, match=r"knowledge 'desk': it holds no passages. Sync it first"):
        synced_index(base.folder, 600)
    with base.index() as index:
        index.sync(Folder(tmp_path / "docs"))
    before = documents_hash(base.folder)
    (tmp_path / "docs" / "card.md").write_text("Something else.")
    with synced_index(base.folder, 600) as index:
        assert index.max_chars == 200
        assert [p.text for p in index.search("lost card")] == ["You can freeze a lost card."]
        assert documents_hash(base.folder) == before
        index.sync(Folder(tmp_path / "docs"))
    assert documents_hash(base.folder) != before


def test_a_folder_is_made_of_the_text_of_its_path(tmp_path):
    assert folder_at(str(tmp_path)) == Folder(tmp_path)
    assert folder_at(str(tmp_path), label="docs").name == "docs"


def test_a_record_comes_back_as_it_was_and_one_from_before_there_were_rules_is_read(tmp_path):
    rules = Rules("acme", ("staff", "boss"), (("kind", "faq"),))
    search = SearchSettings(store="lancedb", place="s3://bucket", words="tantivy")
    origin = Origin("folder", "/docs", "folder:/docs", {}, rules)
    base = KnowledgeBase(tmp_path, (origin,), search=search, ranking=Ranking(words_weight=2.0, rerank=10))
    base.save()
    assert read_knowledge_base(tmp_path) == base
    record = tmp_path / "knowledge.json"
    facts = json.loads(record.read_text())
    del facts["search"], facts["ranking"], facts["origins"][0]["rules"]
    record.write_text(json.dumps(facts))
    assert read_knowledge_base(tmp_path) == KnowledgeBase(tmp_path, (replace(origin, rules=Rules()),))
