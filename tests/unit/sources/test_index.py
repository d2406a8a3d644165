import json
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.data.documents import Unreadable
from tailorbird.errors import DocumentError, InputError, IntegrityError, NotFound, Unsupported
from tailorbird.records import Document
from tailorbird.sources import sync as sync_module
from tailorbird.sources.index import MADE_WHEN_ASKED, KnowledgeIndex, SyncProgress
from tailorbird.sources.source import Removed
from tailorbird.testing.sources import ODD_QUERIES, WordHash

CARD = Document("card.md", "You can freeze a lost card in the app.", title="Lost cards")
RATE = Document("rate.md", "Exchange rates are updated every day.", title="Rates")
FEES = Document("fees.md", "A transfer abroad costs two euros.", title="Fees")


@dataclass
class Listing:
    """A connector of whatever it is given."""

    items: list = field(default_factory=list)
    name: str = "listing"
    complete: bool = True

    def documents(self):
        return iter(list(self.items))


@dataclass
class Counting:
    """An embedder that counts the texts it embeds, and can be told to fail."""

    inner: WordHash = field(default_factory=WordHash)
    count: int = 0
    fail_after: int | None = None

    @property
    def name(self):
        return self.inner.name

    @property
    def dimensions(self):
        return self.inner.dimensions

    def embed(self, texts):
        if self.fail_after is not None and self.count >= self.fail_after:
            raise RuntimeError("power cut")
        self.count += len(texts)
        return self.inner.embed(texts)


@pytest.fixture
def embedder():
    return Counting()


@pytest.fixture
def index(tmp_path, embedder):
    with KnowledgeIndex(tmp_path / "index.db", embedder) as index:
        yield index


@pytest.fixture
def filled(index):
    index.sync(Listing([CARD, RATE, FEES]))
    return index


def ids(passages):
    return [passage.document for passage in passages]


# ---- syncing


def test_the_first_sync_adds_everything(index):
    report = index.sync(Listing([CARD, RATE]))
    assert (report.added, report.changed, report.removed, report.unchanged) == (2, 0, 0, 0)
    assert report.passages == len(index) == 2
    assert report.embedded == 2


def test_a_second_sync_finds_everything_unchanged_and_embeds_nothing(filled, embedder):
    before, fingerprint = embedder.count, filled.fingerprint()
    report = filled.sync(Listing([FEES, RATE, CARD]))
    assert (report.added, report.changed, report.removed, report.unchanged) == (0, 0, 0, 3)
    assert embedder.count == before
    assert filled.fingerprint() == fingerprint


def test_a_changed_document_replaces_the_old_one_everywhere(filled):
    report = filled.sync(Listing([replace(CARD, text="Order a new card by phone."), RATE, FEES]))
    assert (report.changed, report.unchanged, report.embedded) == (1, 2, 1)
    assert filled.keyword_search("freeze") == []
    assert ids(filled.keyword_search("phone")) == ["card.md"]
    assert "phone" in filled.vector_search("new card by phone", 1)[0].text


def test_only_new_passages_of_a_changed_document_are_embedded(index, embedder):
    paragraphs = [f"Paragraph {n} speaks of subject {n} at some length. " * 12 for n in range(12)]
    index.sync(Listing([Document("long.md", "\n\n".join(paragraphs))]))
    before = embedder.count
    index.sync(Listing([Document("long.md", "\n\n".join(["A new beginning.", *paragraphs]))]))
    assert before >= 12
    assert embedder.count - before <= 2


def test_equal_texts_share_one_vector(index, embedder):
    index.sync(Listing([replace(CARD, id=f"{n}.md") for n in range(5)]))
    assert len(index) == 5
    assert embedder.count == 1


def test_a_document_that_is_gone_leaves_nothing_behind(filled, tmp_path):
    report = filled.sync(Listing([RATE, FEES]))
    assert report.removed == 1
    assert "card.md" not in ids(filled.search("freeze a lost card", 10))
    with sqlite3.connect(tmp_path / "index.db") as connection:
        left = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("documents", "passages", "passages_fts_docsize", "embeddings")
        ]
    connection.close()
    assert left == [2, 2, 2, 2]


def test_a_connector_of_changes_removes_only_what_it_names(filled):
    assert filled.sync(Listing([], complete=False)).removed == 0
    assert filled.sync(Listing([Removed("card.md"), Removed("unknown.md")], complete=False)).removed == 1
    assert len(filled) == 2


def test_what_cannot_be_read_is_reported_and_what_was_known_of_it_is_kept(filled):
    report = filled.sync(Listing([Unreadable("card.md", "encrypted"), RATE, FEES]))
    assert report.unreadable == (("card.md", "encrypted"),)
    assert (report.removed, report.unchanged) == (0, 2)
    assert ids(filled.keyword_search("freeze")) == ["card.md"]


def test_a_name_that_is_no_utf8_is_reported(index):
    report = index.sync(Listing([replace(CARD, id="caf\udce9.md")]))
    assert report.unreadable == (("caf\\udce9.md", "its name is not valid UTF-8"),)


def test_text_with_broken_escapes_is_kept_with_its_offsets(index):
    index.sync(Listing([replace(CARD, text="Freeze \ud83d the card.")]))
    [passage] = index.search("freeze", 1)
    assert passage.text == "Freeze ? the card."
    assert (passage.start, passage.end) == (0, 18)


def test_connectors_own_their_documents(index):
    index.sync(Listing([CARD], name="one"))
    index.sync(Listing([RATE, FEES], name="two"))
    assert index.connectors() == {"one": 1, "two": 2}
    index.sync(Listing([], name="one"))
    assert index.connectors() == {"two": 2}


def test_a_document_of_another_connector_is_refused(filled):
    with pytest.raises(DocumentError, match=r"'card.md' of 'other' is already in the index, from 'listing'"):
        filled.sync(Listing([CARD], name="other"))
    assert len(filled) == 3


def test_an_id_given_twice_is_refused(index):
    with pytest.raises(DocumentError, match=r"'listing' gave 'card.md' twice\. Ids must differ"):
        index.sync(Listing([CARD, CARD]))
    assert len(index) == 0


def test_a_connector_can_be_forgotten(filled):
    assert filled.forget("nobody") == 0
    assert filled.forget("listing") == 3
    assert len(filled) == 0
    assert filled.search("card") == []


def test_passages_keep_what_is_known_of_them(index):
    text = "# Cards\n\nAll about cards.\n\n## Lost\n\nFreeze it."
    index.sync(Listing([Document("a.md", text, title="Help", version="v1", page_starts=(0, 27))]))
    passage = index.keyword_search("freeze", 1)[0]
    assert (passage.document, passage.title, passage.version, passage.page) == ("a.md", "Help", "v1", 2)
    assert passage.headings == ("Cards", "Lost")
    assert text[passage.start : passage.end] == passage.text


# ---- crashes


def subjects(count):
    return [Document(f"{n}.md", f"Subject number{n} is here.") for n in range(count)]


def test_a_sync_that_fails_while_it_embeds_is_searchable_by_words_and_loses_no_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "EMBED_BATCH", 10)
    embedder = Counting()
    with KnowledgeIndex(tmp_path / "index.db", embedder) as index:
        index.sync(Listing([CARD]))
        embedder.count, embedder.fail_after = 0, 20
        with pytest.raises(RuntimeError, match="power cut"):
            index.sync(Listing(subjects(35)))
        embedder.fail_after = None
        assert ids(index.search("number33", 1)) == ["33.md"]
        assert set(ids(index.keyword_search("number12 number34", 5))) == {"12.md", "34.md"}
        asked = embedder.count - 20
        report = index.sync(Listing(subjects(35)))
    assert (report.unchanged, report.embedded) == (35, 15)
    assert embedder.count == 35 + asked


def test_before_there_are_vectors_those_that_share_words_get_theirs_when_asked(tmp_path, monkeypatch):
    embedder = Counting(fail_after=0)
    documents = [*subjects(40), CARD, RATE, FEES]
    with KnowledgeIndex(tmp_path / "index.db", embedder) as index:
        with pytest.raises(RuntimeError):
            index.sync(Listing(documents))
        embedder.fail_after = None
        found = index.search("How do I freeze a lost card?", 3)
        first = embedder.count
        again = index.search("How do I freeze a lost card?", 3)
        assert embedder.count == first + 1  # the question
        assert first <= 1 + MADE_WHEN_ASKED
        assert [p.id for p in found] == [p.id for p in again]
        assert found[0].document == "card.md"
        index.sync(Listing(documents))
        whole = index.search("How do I freeze a lost card?", 3)
    assert found[0].score == pytest.approx(whole[0].score, abs=1e-3)  # stored in half precision
    with KnowledgeIndex(tmp_path / "other.db", Counting()) as fresh:
        fresh.sync(Listing(documents))
        assert fresh.search("How do I freeze a lost card?", 3) == whole


def test_new_vectors_are_shown_now_and_then_while_others_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "EMBED_BATCH", 5)
    monkeypatch.setattr(sync_module, "SHOWN_EVERY_S", 0)
    seen = []

    @dataclass
    class Searching(Counting):
        def embed(self, texts):
            if len(texts) == 5:
                with sqlite3.connect(tmp_path / "index.db") as connection:
                    seen.append(connection.execute("SELECT value FROM counters").fetchone()[0])
                connection.close()
            return super().embed(texts)

    with KnowledgeIndex(tmp_path / "index.db", Searching()) as index:
        index.sync(Listing(subjects(15)))
    assert len(set(seen)) == 3


def test_a_dry_run_tells_what_a_sync_does_and_changes_nothing(filled, embedder):
    before = filled.fingerprint()
    changes = Listing(
        [replace(CARD, text="You can freeze it."), RATE, *subjects(3), Unreadable("x.pdf", "damaged")]
    )
    told = filled.sync(changes, dry_run=True)
    assert (told.dry_run, told.added, told.changed, told.removed, told.unchanged) == (True, 3, 1, 1, 1)
    assert filled.fingerprint() == before
    embedded = embedder.count
    done = filled.sync(changes)
    assert embedder.count - embedded == done.embedded == told.embedded == 4
    timing = {"searchable_s": 0.0, "seconds": 0.0, "dry_run": True}
    assert replace(done, **timing) == told
    assert 0 < done.searchable_s <= done.seconds
    assert done.documents == 5
    assert filled.sync(changes, dry_run=True).embedded == 0


def test_how_far_a_sync_is_is_told(index, monkeypatch):
    monkeypatch.setattr(sync_module, "EMBED_BATCH", 2)
    told = []
    index.sync(Listing(subjects(3)), on_progress=told.append)
    assert told == [
        *(SyncProgress("read", n) for n in (1, 2, 3)),
        SyncProgress("embed", 2, 3),
        SyncProgress("embed", 3, 3),
    ]


def test_texts_that_others_remove_while_they_are_embedded_leave_no_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "EMBED_BATCH", 5)
    other = KnowledgeIndex(tmp_path / "index.db", Counting())
    elsewhere = threading.Thread(target=lambda: other.sync(Listing([CARD])))

    @dataclass
    class Slow(Counting):
        def embed(self, texts):
            if self.count == 5:
                elsewhere.start()
                while len(other) != 1:
                    time.sleep(0.01)
            return super().embed(texts)

    with KnowledgeIndex(tmp_path / "index.db", Slow()) as index:
        index.sync(Listing(subjects(10)))
        elsewhere.join()
        assert len(index) == 1
    with sqlite3.connect(tmp_path / "index.db") as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone()[0] == 1
    connection.close()
    other.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from tailorbird.records import Document
from tailorbird.sources import sync
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

class Listing:
    name, complete = "listing", True
    def documents(self):
        return (Document(f"{n}.md", f"New subject number{n} is here.") for n in range(50))

def dying(function, calls):
    left = [calls]
    def die(*args):
        function(*args)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    return die

sync.EMBED_BATCH = 10
setattr(sync, sys.argv[2], dying(getattr(sync, sys.argv[2]), int(sys.argv[3])))
KnowledgeIndex(Path(sys.argv[1]), WordHash()).sync(Listing())
"""


def killed(tmp_path, function, calls):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "index.db"), function, str(calls)]
    return subprocess.run(command, check=False).returncode


def test_killing_the_process_before_the_last_commit_leaves_the_old_state(filled, tmp_path):
    before = filled.fingerprint()
    assert killed(tmp_path, "finish", 1) == -9
    assert filled.fingerprint() == before
    assert filled.search("lost card", 1)[0].document == "card.md"
    documents = [Document(f"{n}.md", f"New subject number{n} is here.") for n in range(50)]
    report = filled.sync(Listing(documents))
    assert (report.added, report.removed, report.embedded) == (50, 3, 50)


def test_killing_the_process_while_it_embeds_leaves_the_new_state_and_the_vectors_made(filled, tmp_path):
    assert killed(tmp_path, "_store", 3) == -9  # the third batch is not committed
    assert len(filled) == 50
    assert filled.search("number7", 1)[0].document == "7.md"
    documents = [Document(f"{n}.md", f"New subject number{n} is here.") for n in range(50)]
    report = filled.sync(Listing(documents))
    assert (report.added, report.unchanged, report.embedded) == (0, 50, 30)


def test_an_index_whose_parts_disagree_is_left_as_it_was(filled, tmp_path):
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("DELETE FROM passages_fts_docsize WHERE id = 1")
    connection.close()
    with pytest.raises(IntegrityError, match=r"holds 4 passages, 3 of them with their words"):
        filled.sync(Listing([CARD, RATE, FEES, replace(CARD, id="new.md")]))
    assert len(filled) == 3


# ---- searching


def test_search_finds_by_words_and_scores_by_similarity(filled, embedder):
    best = filled.search("freeze my lost card", 1)[0]
    assert best.document == "card.md"
    query = embedder.embed(["freeze my lost card"])[0]
    stored = embedder.embed([f"{CARD.title}\n{CARD.text}"])[0]
    assert best.score == pytest.approx(float(query @ stored), abs=1e-3)


def test_words_are_found_in_any_inflection_and_without_accents(index):
    index.sync(Listing([Document("a", "He was transferring café money.")]))
    for query in ("transfers", "TRANSFERRED", "cafe", "monies money"):
        assert ids(index.keyword_search(query)) == ["a"]


def test_a_word_in_the_title_counts_more(index):
    filler = [Document(f"{n}", f"Nothing about subject {n}.", title=f"Subject {n}") for n in range(6)]
    body, title = (
        Document("body", "A refund comes soon.", title="Money"),
        Document("title", "It comes soon.", title="Refund"),
    )
    index.sync(Listing([body, title, *filler]))
    assert ids(index.keyword_search("refund")) == ["title", "body"]


@pytest.mark.parametrize("k", [0, -1])
def test_no_passages_are_found_when_none_are_wanted(filled, k):
    assert (
        filled.search("card", k) == filled.keyword_search("card", k) == filled.vector_search("card", k) == []
    )


def test_at_most_k_passages_are_found_and_all_if_k_exceeds_them(filled):
    assert len(filled.search("card", 2)) == 2
    assert len(filled.search("card", 1000)) == 3
    assert len(filled.vector_search("card", 1000)) == 3


def test_an_empty_index_finds_nothing(index):
    assert index.search("card") == index.vector_search("card") == index.keyword_search("card") == []


def test_equal_passages_stand_in_the_order_of_their_ids(index):
    index.sync(Listing([replace(CARD, id=f"{n}.md") for n in range(120)]))
    for search in (index.search, index.keyword_search, index.vector_search):
        found = [passage.id for passage in search("lost card", 20)]
        assert found == sorted(found)
    assert len(index.search("lost card", 20)) == 20


def test_answers_do_not_depend_on_the_order_in_which_documents_came(tmp_path):
    documents = [Document(f"{n}.md", f"Card number{n % 7} and rate{n % 3}.") for n in range(40)]
    found = []
    for order in (documents, documents[::-1]):
        with KnowledgeIndex(tmp_path / f"{order[0].id}.db", WordHash()) as index:
            for part in (order[:13], order):
                index.sync(Listing(part))
            found.append((index.fingerprint(), index.search("card number3 rate1", 10)))
    assert found[0] == found[1]


def test_a_batch_finds_what_its_queries_find_alone(filled):
    queries = ["lost card", "", "exchange rates", *ODD_QUERIES, "lost card"]
    assert filled.search_batch(queries, 3) == [filled.search(query, 3) for query in queries]
    assert filled.search_batch([], 3) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(query=st.text(alphabet=st.characters(), max_size=80), k=st.integers(0, 5))
def test_any_text_is_a_query(filled, query, k):
    for search in (filled.search, filled.keyword_search, filled.vector_search):
        assert len(search(query, k)) <= k


def test_a_search_sees_what_another_process_synced(filled, tmp_path, embedder):
    assert filled.search("passport", 1)[0].document != "id.md"
    with KnowledgeIndex(tmp_path / "index.db", embedder) as other:
        other.sync(Listing([CARD, RATE, FEES, Document("id.md", "A passport proves who you are.")]))
    assert filled.search("passport", 1)[0].document == "id.md"


def test_vectors_are_read_once_for_many_searches(filled, monkeypatch):
    filled.search("card")

    def fail(*_args):
        raise AssertionError("read again")

    monkeypatch.setattr(KnowledgeIndex, "_read_vectors", fail)
    filled.search("rates")


def test_many_threads_search_while_one_syncs(filled):
    failures, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                assert "rate.md" in ids(filled.search("exchange rates", 3))
            except Exception as error:  # noqa: BLE001
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    for n in range(8):
        filled.sync(Listing([RATE, *(Document(f"{i}.md", f"Round {n} number {i}.") for i in range(n))]))
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


# ---- files


def test_an_index_filled_with_another_embedder_says_so_until_it_is_synced(filled, tmp_path):
    with KnowledgeIndex(tmp_path / "index.db", WordHash(32)) as other:
        with pytest.raises(InputError, match=r"without vectors of 'word-hash-32'.*Sync the documents again"):
            other.search("card")
        report = other.sync(Listing([CARD, RATE, FEES]))
        assert (report.unchanged, report.embedded) == (3, 3)
        assert other.search("lost card", 1)[0].document == "card.md"
        assert other.fingerprint() != filled.fingerprint()


def test_another_passage_length_cuts_the_documents_anew(filled, tmp_path, embedder):
    with KnowledgeIndex(tmp_path / "index.db", embedder, max_chars=100) as shorter:
        assert shorter.sync(Listing([CARD, RATE, FEES])).changed == 3


def test_a_copy_finds_the_same_and_keeps_its_bytes(filled, tmp_path, embedder):
    filled.copy(tmp_path / "model" / "index.db")
    before = (tmp_path / "model" / "index.db").read_bytes()
    for read_only in (True, False):
        with KnowledgeIndex(tmp_path / "model" / "index.db", embedder, read_only=read_only) as copied:
            assert copied.fingerprint() == filled.fingerprint()
            assert copied.search("lost card") == filled.search("lost card")
            copied.copy(tmp_path / "again.db")
            with KnowledgeIndex(tmp_path / "again.db", embedder) as again:
                assert again.fingerprint() == filled.fingerprint()
    assert (tmp_path / "model" / "index.db").read_bytes() == before
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["index.db"]


def test_a_read_only_index_cannot_be_synced(filled, tmp_path, embedder):
    filled.copy(tmp_path / "copy.db")
    with KnowledgeIndex(tmp_path / "copy.db", embedder, read_only=True) as copied:
        assert copied.sync(Listing([CARD]), dry_run=True).removed == 2
        with pytest.raises(Unsupported, match="open read-only"):
            copied.sync(Listing([CARD]))
    assert not (tmp_path / "copy.db-turns").exists()


def test_a_missing_index_cannot_be_opened_read_only(tmp_path, embedder):
    with pytest.raises(NotFound, match=r"no knowledge index at .*absent\.db"):
        KnowledgeIndex(tmp_path / "absent.db", embedder, read_only=True)


def test_a_file_that_is_no_index_is_refused_and_left_alone(tmp_path, embedder):
    (tmp_path / "notes.db").write_text("these are my notes " * 100)
    with pytest.raises(IntegrityError, match=r"notes\.db .*not a database"):
        KnowledgeIndex(tmp_path / "notes.db", embedder)
    assert (tmp_path / "notes.db").read_text().startswith("these are my notes")


def test_an_index_of_another_version_is_refused(filled, tmp_path, embedder):
    filled.copy(tmp_path / "old.db")
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(IntegrityError, match="of version 99; this program reads version 2"):
        KnowledgeIndex(tmp_path / "old.db", embedder)


def test_a_closed_index_says_so(filled):
    filled.close()
    filled.close()
    with pytest.raises(InputError, match=r"is closed\. Open it again"):
        filled.search("card")


def test_vectors_are_stored_in_half_precision(filled, tmp_path, embedder):
    with sqlite3.connect(tmp_path / "index.db") as connection:
        blobs = [blob for (blob,) in connection.execute("SELECT vector FROM embeddings")]
    connection.close()
    assert {len(blob) for blob in blobs} == {2 * embedder.dimensions}
    assert np.isfinite(np.frombuffer(b"".join(blobs), dtype=np.float16)).all()


def test_a_sync_report_can_be_written_as_json(index):
    report = index.sync(Listing([CARD, Unreadable("b", "damaged")]))
    assert json.loads(json.dumps(vars(report)))["unreadable"] == [["b", "damaged"]]


def test_passages_whose_keys_are_of_an_earlier_way_are_embedded_and_end(filled, tmp_path, embedder):
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("UPDATE passages SET text_key = 'old' || text_key")
    connection.close()
    assert filled.sync(Listing([CARD, RATE, FEES])).embedded == 3
    assert filled.num_without_vector() == 0
