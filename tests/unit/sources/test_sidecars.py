"""What stands beside an index: caught up, made again when it is lost or damaged, and never the truth."""

import json
import logging
import multiprocessing
import shutil
import sqlite3
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tailorbird.errors import EndpointError, InputError, NotFound, Unsupported
from tailorbird.records import Document, Reader, Scope
from tailorbird.sources import sidecars, snapshot, stores
from tailorbird.sources.exact_scan import ExactScan
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.scopes import Rules
from tailorbird.sources.stores import SearchSettings
from tailorbird.testing.sources import WordHash
from tailorbird.testing.stores import allowing, unit_vectors

pytest.importorskip("faiss")
pytest.importorskip("tantivy")

BESIDE = SearchSettings(store="faiss", words="tantivy")
CARD = Document("card.md", "You can freeze a lost card in the app.", title="Lost cards")


@dataclass
class Listing:
    items: list = field(default_factory=list)
    name: str = "listing"
    complete: bool = True

    def documents(self):
        return iter(self.items)


def subjects(count, word="Subject"):
    return [Document(f"{n}.md", f"{word} number{n} is here.") for n in range(count)]


def opened(tmp_path, settings=BESIDE, embedder=None):
    return KnowledgeIndex(tmp_path / "index.db", embedder or WordHash(), settings=settings)


@pytest.fixture
def filled(tmp_path):
    with opened(tmp_path) as index:
        index.sync(Listing([CARD, *subjects(30)]))
        yield index


def ids(passages):
    return [p.document for p in passages]


QUESTIONS = ("freeze a lost card", "number7", "subject number21 here", "nothing of it")


def last_change(tmp_path):
    with sqlite3.connect(tmp_path / "index.db") as connection:
        found = sidecars.last(connection, sidecars.VECTOR_CHANGES)
    connection.close()
    return found


def found_by(index):
    return [index.search(q, 5) for q in QUESTIONS] + [index.vector_search(q, 5) for q in QUESTIONS]


def test_a_sync_fills_what_stands_beside_and_finds_what_the_file_alone_finds(tmp_path, filled):
    assert {path.name for path in tmp_path.iterdir()} >= {"index.vectors", "index.words"}
    with opened(tmp_path, SearchSettings(store="numpy", words="fts5")) as alone:
        assert found_by(alone) == found_by(filled)
    assert not isinstance(filled._snapshot.store, ExactScan)
    assert filled.sync(Listing([CARD, *subjects(30)])).stores == ()


def test_a_copy_has_them_too_and_is_searched_by_them(tmp_path, filled, monkeypatch):
    filled.sync(Listing([CARD, *subjects(31)]))  # the store lags behind
    monkeypatch.setattr(
        "tailorbird.sources.faiss_store.FaissStore.fill", lambda *_: pytest.fail("filled anew")
    )
    filled.copy(tmp_path / "model" / "index.db")
    copy = KnowledgeIndex(tmp_path / "model" / "index.db", WordHash(), read_only=True, settings=BESIDE)
    with copy as copied:
        assert copied.catch_up() == []
        assert found_by(copied) == found_by(filled)
        assert copied._snapshot.store.count() == 31
        assert not isinstance(copied._snapshot.store, ExactScan)
        assert copied._words[1] is not None
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}
    with KnowledgeIndex(tmp_path / "model" / "index.db", WordHash(), read_only=True) as again:
        assert found_by(again) == found_by(filled)
    assert {path: path.read_bytes() for path in before} == before


def test_a_copy_takes_the_place_of_another_and_needs_no_package(tmp_path, filled, monkeypatch, caplog):
    filled.copy(tmp_path / "model" / "index.db")
    filled.sync(Listing(subjects(5)))
    filled.copy(tmp_path / "model" / "index.db")
    monkeypatch.setitem(sys.modules, "faiss", None)
    filled.copy(tmp_path / "other" / "index.db")
    assert "is not installed" in caplog.text
    for name in ("model", "other"):
        with KnowledgeIndex(tmp_path / name / "index.db", WordHash(), read_only=True) as copied:
            assert ids(copied.search("number3", 1)) == ["3.md"]
            assert "card.md" not in copied.document_names()


def test_a_copy_of_what_is_on_a_server_needs_none(tmp_path, filled):
    mark = tmp_path / "index.vectors" / "mark.json"
    facts = json.loads(mark.read_text())
    mark.write_text(json.dumps({**facts, "name": "pgvector", "place": "postgresql://127.0.0.1:1/x"}))
    filled.settings = SearchSettings(store="pgvector", place="postgresql://127.0.0.1:1/x", words="tantivy")
    filled.copy(tmp_path / "model" / "index.db")
    assert mark.exists()
    assert not (tmp_path / "model" / "index.vectors").exists()
    with KnowledgeIndex(tmp_path / "model" / "index.db", WordHash(), read_only=True) as copied:
        assert ids(copied.search("freeze a lost card", 1)) == ["card.md"]


def test_what_changed_since_is_found_before_the_store_is_filled_anew(tmp_path, filled, monkeypatch):
    filled.sync(Listing([*subjects(29), Document("29.md", "Passports prove who you are.")]))
    assert filled._stored.mark().sequence < last_change(tmp_path)
    assert ids(filled.search("passports", 1)) == ["29.md"]
    assert "card.md" not in ids(filled.search("freeze a lost card", 40))
    assert "card.md" not in ids(filled.vector_search("freeze a lost card", 40))
    with opened(tmp_path, SearchSettings(store="numpy", words="fts5")) as alone:
        assert found_by(alone) == found_by(filled)
    monkeypatch.setattr(sidecars, "LAG_LEAST", 0)
    report = filled.sync(Listing(subjects(20)))
    assert report.stores[-1] == "faiss: 20 passages."
    assert ids(filled.search("number7", 1)) == ["7.md"]
    assert len(filled._snapshot.tail.numbers) == 0


def test_vectors_in_memory_are_read_anew_only_once_many_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "RELOAD_LEAST", 3)
    with opened(tmp_path, SearchSettings()) as index:
        index.sync(Listing(subjects(10)))
        index.search("number3")
        held = index._snapshot.store
        index.sync(Listing([*subjects(9), CARD]))
        assert ids(index.search("lost card", 1)) == ["card.md"]
        assert index._snapshot.store is held
        index.sync(Listing(subjects(20, "Topic")))
        assert ids(index.search("topic number13", 1)) == ["13.md"]
        assert index._snapshot.store is not held


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


LOST = {
    "deleted": lambda folder: shutil.rmtree(folder / "index.vectors" / "faiss"),
    "cut short": lambda folder: damage(folder / "index.vectors" / "faiss" / "cells.faiss"),
    "overwritten": lambda folder: (folder / "index.vectors" / "faiss" / "facts.json").write_text("nonsense"),
}


@pytest.mark.parametrize("how", list(LOST))
def test_a_vector_store_that_is_lost_is_said_searched_without_and_made_again(tmp_path, filled, how, caplog):
    before = found_by(filled)
    LOST[how](tmp_path)
    with opened(tmp_path) as index:
        with caplog.at_level(logging.WARNING, "tailorbird.knowledge"):
            assert found_by(index) == before
        assert "faiss's vectors can't be opened" in caplog.text
        assert "compared in memory" in caplog.text
        report = index.sync(Listing([CARD, *subjects(30)]))
        assert report.stores == ("faiss: 31 passages, made again: faiss was missing or damaged.",)
        assert found_by(index) == before
        assert not isinstance(index._snapshot.store, ExactScan)


@pytest.mark.parametrize("how", ["deleted", "overwritten"])
def test_a_keyword_index_that_is_lost_is_said_searched_without_and_made_again(tmp_path, filled, how, caplog):
    before = [ids(filled.keyword_search(q)) for q in QUESTIONS]
    words = tmp_path / "index.words" / "tantivy"
    if how == "deleted":
        shutil.rmtree(words)
    else:
        (words / "meta.json").write_text("nonsense")
    with opened(tmp_path) as index:
        with caplog.at_level(logging.WARNING, "tailorbird.knowledge"):
            assert [ids(index.keyword_search(q)) for q in QUESTIONS] == before
        assert "keyword index can't be opened" in caplog.text
        report = index.sync(Listing([CARD, *subjects(30)]))
        assert report.stores == ("tantivy: 31 passages, made again: tantivy was missing or damaged.",)
        assert [ids(index.keyword_search(q)) for q in QUESTIONS] == before


def test_a_mark_that_is_damaged_counts_as_none(tmp_path, filled):
    (tmp_path / "index.vectors" / "mark.json").write_text('{"name": 3}')
    before = found_by(filled)
    with opened(tmp_path) as index:
        assert found_by(index) == before
        assert index.catch_up() == ["faiss: 31 passages."]


def test_a_store_of_another_embedder_or_another_file_is_not_asked_but_made_again(tmp_path, filled):
    filled.close()
    with opened(tmp_path, embedder=WordHash(32)) as other:
        report = other.sync(Listing([CARD, *subjects(30)]))
        assert report.stores == ("faiss: 31 passages.",)
        assert ids(other.search("freeze a lost card", 1)) == ["card.md"]
    for path in filter(Path.is_file, tmp_path.glob("index.db*")):
        path.unlink()
    with opened(tmp_path, embedder=WordHash(32)) as fresh:
        fresh.sync(Listing(subjects(40)))
        assert "card.md" not in ids(fresh.search("freeze a lost card", 50))
        assert len(fresh.vector_search("freeze a lost card", 50)) == 40


def test_another_choice_takes_the_place_of_what_was_there(tmp_path, filled):
    filled.close()
    with opened(tmp_path, SearchSettings(store="numpy", words="fts5")) as index:
        index.catch_up()
        assert not (tmp_path / "index.vectors" / "faiss").exists()
        assert not (tmp_path / "index.words" / "tantivy").exists()
        assert ids(index.search("freeze a lost card", 1)) == ["card.md"]


def test_what_is_there_stays_until_another_store_is_filled(tmp_path, filled):
    filled.close()
    elsewhere = SearchSettings(store="pgvector", place="postgresql://127.0.0.1:1/x", words="tantivy")
    with opened(tmp_path, elsewhere) as index, pytest.raises(EndpointError):
        index.catch_up()
    assert (tmp_path / "index.vectors" / "faiss").exists()
    with opened(tmp_path) as index:
        assert index.catch_up() == []
        assert ids(index.search("freeze a lost card", 1)) == ["card.md"]


def test_a_store_that_holds_less_than_its_mark_says_is_made_again(tmp_path, filled):
    filled.close()
    mark = tmp_path / "index.vectors" / "mark.json"
    facts = json.loads(mark.read_text())
    assert facts["count"] == 31
    mark.write_text(json.dumps({**facts, "count": 40}))
    with opened(tmp_path) as index:
        assert index.catch_up() == ["faiss: 31 passages, made again: faiss held 31 of 40."]
        assert index.catch_up() == []


@pytest.mark.parametrize("module", ["faiss", "tantivy"])
def test_without_its_package_the_file_answers(tmp_path, filled, monkeypatch, module, caplog):
    filled.close()
    monkeypatch.setitem(sys.modules, module, None)
    with opened(tmp_path) as index:
        assert ids(index.search("freeze a lost card", 1)) == ["card.md"]
    assert "is not installed" in caplog.text or "needs tantivy" in caplog.text


def test_a_server_that_is_gone_is_said_and_keeps_nobody_from_another_choice(tmp_path, filled, caplog):
    filled.close()
    mark = tmp_path / "index.vectors" / "mark.json"
    facts = json.loads(mark.read_text())
    mark.write_text(json.dumps({**facts, "name": "pgvector", "place": "postgresql://u:s3cret@127.0.0.1:1/x"}))
    with opened(tmp_path, SearchSettings(store="numpy")) as index:
        with caplog.at_level(logging.WARNING, "tailorbird.knowledge"):
            index.catch_up()
        assert "u@127.0.0.1:1/x: what pgvector holds of this index could not be removed" in caplog.text
        assert "s3cret" not in caplog.text
        assert not mark.exists()
        assert ids(index.search("freeze a lost card", 1)) == ["card.md"]


def test_what_is_chosen_goes_by_size_and_by_what_is_installed(monkeypatch):
    there = {"faiss", "lancedb", "tantivy"}
    monkeypatch.setattr(stores, "installed", lambda name: name in there)
    auto = SearchSettings()
    assert auto.vectors_in(50_000) is None
    assert auto.words_in(50_000) is None
    assert auto.vectors_in(1_000_000).name == "faiss"
    assert auto.words_in(50_001).name == "tantivy"
    assert auto.vectors_in(5_000_000).name == "lancedb"
    there.discard("lancedb")
    assert auto.vectors_in(5_000_000).name == "faiss"
    there.clear()
    assert auto.vectors_in(5_000_000) is None
    assert auto.words_in(5_000_000) is None
    assert SearchSettings(store="faiss").vectors_in(3).name == "faiss"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store": "fais"}, r"vector store 'fais' is unknown\. Known: auto, numpy, faiss"),
        ({"store": "qdrant"}, "say where its server is, with --place URL"),
        ({"store": "faiss", "place": "http://x"}, "vector store .faiss.: it has no place of its own"),
        ({"words": "bm25"}, "keyword index 'bm25' is unknown"),
    ],
    ids=["store", "place", "no_place", "words"],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SearchSettings(**settings).check()


MODULES = {"faiss": "faiss", "lancedb": "lancedb", "qdrant": "qdrant_client", "pgvector": "psycopg"}


@pytest.mark.parametrize("store", list(MODULES))
def test_a_store_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch, store):
    monkeypatch.setitem(sys.modules, MODULES[store], None)
    place = "http://localhost:1" if store in ("qdrant", "pgvector") else ""
    with opened(tmp_path, SearchSettings(store=store, place=place)) as index:
        with pytest.raises(
            Unsupported,
            match=rf"'{store}': the package {MODULES[store]} is not installed.*tailorbird\[{store}\]",
        ):
            index.sync(Listing([CARD]))
        assert ids(index.search("lost card")) == ["card.md"]


def test_tantivy_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with (
        opened(tmp_path, SearchSettings(words="tantivy")) as index,
        pytest.raises(
            Unsupported, match=r"package tantivy is not installed.*pip install 'tailorbird\[tantivy\]'"
        ),
    ):
        index.sync(Listing([CARD]))


def test_the_key_of_a_server_is_named_by_its_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    settings = SearchSettings(store="qdrant", place="http://localhost:1", key_env="NO_SUCH_KEY")
    with (
        opened(tmp_path, settings) as index,
        pytest.raises(NotFound, match="variable NO_SUCH_KEY is not set"),
    ):
        index.sync(Listing([CARD]))


def test_a_store_that_is_behind_shows_nothing_that_was_forbidden_since(tmp_path, filled):
    everyone = Scope(Reader())
    assert "card.md" in ids(filled.search("freeze a lost card", only=everyone))
    filled.sync(Listing([CARD, *subjects(30)]), rules=Rules(access=("boss",)))
    for search in (filled.search, filled.vector_search, filled.keyword_search):
        assert search("freeze a lost card", only=everyone) == []
        assert ids(search("freeze a lost card", 1, only=Scope(Reader("", ("boss",))))) == ["card.md"]


def test_weights_are_those_of_the_index(tmp_path, filled):
    words = ids(filled.keyword_search("freeze number7", 5))
    with opened(tmp_path) as index:
        index.ranking = Ranking("ranks", words_weight=1.0, meaning_weight=0.0, fusion_k=1)
        assert ids(index.search("freeze number7", len(words))) == words
        meaning = ids(filled.vector_search("freeze number7", 5))
        index.ranking = Ranking("ranks", words_weight=0.0, meaning_weight=1.0)
        assert ids(index.search("freeze number7", 5)) == meaning


def test_an_exact_scan_is_exact_whatever_is_allowed():
    numbers, vectors = np.arange(0, 400, 2), unit_vectors(200, 3)
    scan = ExactScan(numbers, vectors)
    for every in (2, 4, 50):
        some = numbers[numbers % every == 0]
        for question in unit_vectors(5, 4):
            found = scan.search(question, 7, allowing(some, numbers, ()))
            order = some[np.argsort(-(vectors[some // 2] @ question), kind="stable")]
            assert found.tolist() == order[:7].tolist()


# ---- several at once


def write(path, rounds):
    with KnowledgeIndex(path, WordHash(), settings=BESIDE) as index:
        for n in range(rounds):
            index.sync(Listing([CARD, *subjects(10 + n, f"Round{n}")]))


def test_three_readers_search_while_another_process_writes(tmp_path, filled, monkeypatch):
    writer = multiprocessing.get_context("spawn").Process(target=write, args=(tmp_path / "index.db", 4))
    writer.start()
    failures, stop = [], threading.Event()

    def read():
        with opened(tmp_path) as index:
            while not stop.is_set():
                try:
                    assert ids(index.search("freeze a lost card", 1)) == ["card.md"]
                    assert index.keyword_search("card", 1, only=Scope(Reader("acme"))) == []
                except Exception as error:  # noqa: BLE001
                    failures.append(error)
                    return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer.join()
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert writer.exitcode == 0
    assert ids(filled.search("round3 number12", 1)) == ["12.md"]
    assert filled.catch_up() == []


def test_a_fill_that_is_cut_off_leaves_what_was_there(tmp_path, filled, monkeypatch):
    mark = json.loads((tmp_path / "index.vectors" / "mark.json").read_text())
    monkeypatch.setattr(sidecars, "LAG_LEAST", 0)
    kept = type(filled._stored.opened(filled._stored.mark()))

    def cut(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "_filled", cut)
    with pytest.raises(KeyboardInterrupt):
        filled.sync(Listing([CARD, *subjects(60)]))
    assert json.loads((tmp_path / "index.vectors" / "mark.json").read_text()) == mark
    assert ids(filled.search("number55", 1)) == ["55.md"]
    monkeypatch.undo()
    monkeypatch.setattr(sidecars, "LAG_LEAST", 0)
    assert filled.catch_up() == ["faiss: 61 passages."]


def test_a_store_of_another_package_is_chosen_by_its_name(tmp_path, monkeypatch):
    made = []

    class Point:
        name = "shelf"

        def load(self):
            from tailorbird.sources.faiss_store import FaissStore

            def make(folder, dimensions, place):
                made.append((folder.name, dimensions, place))
                return FaissStore(folder, dimensions)

            return make

    monkeypatch.setattr(stores, "entry_points", lambda group: [Point()] if group == stores.GROUP else [])
    with opened(tmp_path, SearchSettings(store="shelf", place="there")) as index:
        assert index.sync(Listing([CARD])).stores == ("shelf: 1 passages.",)
        assert ids(index.search("lost card")) == ["card.md"]
    assert set(made) == {("shelf", 64, "there")}
    monkeypatch.setattr(stores, "entry_points", lambda group: [])
    with pytest.raises(NotFound, match="vector store 'shelf' is not installed"):
        stores.open_store(sidecars.Choice("shelf"), tmp_path, 1, 64)


def test_indexes_share_a_place_of_lancedbs_and_what_else_is_there_stays(tmp_path):
    pytest.importorskip("lancedb")
    place = tmp_path / "disk"
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    settings = SearchSettings(store="lancedb", place=str(place))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with opened(tmp_path / name, settings) as index:
            index.sync(Listing([CARD, *subjects(5, name)]))
    with opened(tmp_path / "two", SearchSettings(store="numpy", words="fts5")) as index:
        index.catch_up()
    with opened(tmp_path / "one", settings) as index:
        assert index.catch_up() == []
        assert ids(index.search("freeze a lost card", 1)) == ["card.md"]
    assert (place / "thesis.txt").read_text() == "mine"
