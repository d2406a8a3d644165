"""Who may read a knowledge base's documents, while its record changes, its places fail and other processes sync."""

import json

import pytest

from tailorbird.errors import EndpointError
from tailorbird.knowledge_bases import KnowledgeBases
from tailorbird.records import Reader, Scope
from tailorbird.sources.stores import SearchSettings
from tailorbird.testing.sources import WordHash

ANYONE = Scope(Reader())


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.fixture
def knowledge(tmp_path):
    return KnowledgeBases(tmp_path / "state")


@pytest.fixture
def places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.md").write_text(f"The lamp of place {name} costs forty euros.")
    return tmp_path / "a", tmp_path / "b"


def read_by_anyone(knowledge):
    return {p.document for p in knowledge.search("desk", "lamp costs", 9, only=ANYONE)}


def test_a_sync_under_way_does_not_open_what_was_closed_meanwhile(knowledge, places):
    a, b = places
    knowledge.add("desk", str(a))
    knowledge.add("desk", str(b))
    knowledge.sync("desk")
    closed = []

    def close_b(origin, progress):
        if not closed:
            closed.append(origin)
            knowledge.add("desk", str(b), access=["hr"])

    knowledge.sync("desk", on_progress=close_b)
    assert closed
    assert read_by_anyone(knowledge) == {"a.md"}
    assert {o.place: o.rules.access for o in knowledge.read("desk").origins} == {str(a): (), str(b): ("hr",)}


def test_a_place_that_was_taken_out_meanwhile_is_not_filled_again(knowledge, places):
    a, b = places
    knowledge.add("desk", str(a))
    knowledge.add("desk", str(b))
    knowledge.sync("desk", on_progress=lambda *_: remove_once(knowledge, b))
    assert {p.document for p in knowledge.search("desk", "lamp costs", 9)} == {"a.md"}


def remove_once(knowledge, place):
    if any(o.place == str(place) for o in knowledge.read("desk").origins):
        knowledge.remove("desk", str(place))


def test_rules_are_put_in_force_where_the_place_can_not_be_read(knowledge, places):
    a, _ = places
    knowledge.add("desk", str(a))
    knowledge.sync("desk")
    knowledge.add("desk", str(a), access=["hr"])
    a.rename(a.with_name("moved"))
    (report,) = knowledge.sync("desk")
    assert "there is no such folder" in report.failed
    assert read_by_anyone(knowledge) == set()
    assert [p.document for p in knowledge.search("desk", "lamp costs", 9)] == ["a.md"]


def test_other_rules_leave_a_places_settings_as_they_are(knowledge, places):
    a, _ = places
    knowledge.add("desk", str(a), settings={"label": "lamps"})
    base = knowledge.add("desk", str(a), access=["hr"])
    assert [(o.name, o.settings, o.rules.access) for o in base.origins] == [
        ("lamps", {"label": "lamps"}, ("hr",))
    ]
    assert knowledge.add("desk", str(a), settings={}).origins[-1].settings == {}


def test_what_another_process_records_while_a_store_is_filled_stays(knowledge, places, monkeypatch):
    from tailorbird.sources.index import KnowledgeIndex

    a, b = places
    knowledge.add("desk", str(a))

    def add_b(index):
        knowledge.add("desk", str(b), access=["hr"])
        return []

    monkeypatch.setattr(KnowledgeIndex, "catch_up", add_b)
    knowledge.set_search("desk", words="fts5")
    base = knowledge.read("desk")
    assert [o.place for o in base.origins] == [str(a), str(b)]
    assert base.search.words == "fts5"


def test_a_store_whose_package_was_taken_away_locks_nothing(knowledge, places):
    a, _ = places
    folder = knowledge.add("desk", str(a)).folder
    knowledge.sync("desk")
    record = folder / "knowledge.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "search": {"store": "acme"}}))
    assert [info.base.name for info in knowledge.list()] == ["desk"]
    assert knowledge.search("desk", "lamp", 1)
    knowledge.set_search("desk", store="auto")
    assert knowledge.read("desk").search == SearchSettings()


def test_what_can_not_be_forgotten_in_a_store_stops_no_place(knowledge, places, monkeypatch):
    from tailorbird.sources.index import KnowledgeIndex

    a, b = places
    knowledge.add("desk", str(a))
    knowledge.sync("desk")
    knowledge.remove("desk", str(a))
    knowledge.add("desk", str(b))

    def down(index, name):
        raise EndpointError("the store is down. Try again later.")

    monkeypatch.setattr(KnowledgeIndex, "forget", down)
    gone, other = knowledge.sync("desk")
    assert (gone.failed, other.report.added) == ("the store is down. Try again later.", 1)
