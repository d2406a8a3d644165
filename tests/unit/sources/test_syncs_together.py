"""Several syncs of one index at once, and syncs of more documents than memory should hold."""

import contextlib
import errno
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from tailorbird.errors import DocumentError, InputError, IntegrityError
from tailorbird.records import Document
from tailorbird.sources import sync as sync_module
from tailorbird.sources.index import KnowledgeIndex, SyncProgress
from tailorbird.sources.turns import turn
from tailorbird.testing.sources import WordHash

TEXT = "Subject {} is spoken of here, at some length. "

PROCESS = """
import json, sys
from pathlib import Path
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

class Listing:
    complete = True
    def __init__(self, name):
        self.name = name
    def documents(self):
        return (Document(f"{self.name}/{n}.md", f"Of {self.name}, subject number{n}.") for n in range(40))

sys.stdin.readline()
reports = []
with KnowledgeIndex(Path(sys.argv[1]), WordHash(), max_chars=int(sys.argv[3])) as index:
    for _ in range(int(sys.argv[4])):
        reports.append(vars(index.sync(Listing(sys.argv[2]))))
print(json.dumps(reports))
"""


class Listing:
    """The documents that a process of `PROCESS` gives."""

    complete = True

    def __init__(self, name, count=40):
        self.name, self.count = name, count

    def documents(self):
        return (
            Document(f"{self.name}/{n}.md", f"Of {self.name}, subject number{n}.") for n in range(self.count)
        )


def run_together(path, processes):
    """What processes report that sync at once, each given as (name, max_chars, rounds)."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path), name, str(max_chars), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, max_chars, rounds in processes
    ]
    reports = []
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    return reports


def check_reconciled(path, names):
    """Nothing is lost, nothing doubled: as an index that one process filled."""
    with KnowledgeIndex(path, WordHash()) as index:
        reports = [index.sync(Listing(name)) for name in names]
        assert [report.listed for report in reports] == [40] * len(names)
        assert index.connectors() == dict.fromkeys(sorted(names), 40)
        last = reports[-1]
        assert last.passages == last.with_words == last.with_vectors == 40 * len(names)
        found = index.fingerprint()
    with KnowledgeIndex(path.with_name("alone.db"), WordHash()) as alone:
        for name in names:
            alone.sync(Listing(name))
        assert alone.fingerprint() == found


def test_three_processes_fill_one_index_from_two_places_and_none_makes_a_vector_twice(tmp_path):
    path = tmp_path / "index.db"
    reports = run_together(path, [("one", 800, 2), ("one", 800, 2), ("two", 800, 2)])
    assert sum(report["embedded"] for told in reports for report in told) == 80
    assert all(told[-1]["with_words"] == told[-1]["passages"] for told in reports)
    check_reconciled(path, ["one", "two"])


def test_a_sync_waits_for_another_one_of_the_same_connector_and_says_so(tmp_path):
    told, reading = [], threading.Event()

    class Slow(Listing):
        def documents(self):
            reading.set()
            time.sleep(0.3)
            return super().documents()

    path = tmp_path / "index.db"
    with KnowledgeIndex(path, WordHash()) as index, KnowledgeIndex(path, WordHash()) as other:
        first = threading.Thread(target=lambda: index.sync(Slow("one")))
        first.start()
        reading.wait()
        report = other.sync(Listing("one"), on_progress=told.append)
        first.join()
    assert (report.added, report.unchanged) == (0, 40)
    assert told[0] == SyncProgress("wait", 0)


def test_a_sync_that_waits_too_long_says_so_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "TURN_WAIT_S", 0.1)
    path = tmp_path / "index.db"
    with KnowledgeIndex(path, WordHash()) as index:
        index.sync(Listing("one", 3))
        expected = r"index\.db: another sync is at 'one', and still is after 0\.1 s\. Nothing was changed\. Let it end"
        with turn(path, "'one'", 1):
            for refused in (lambda: index.sync(Listing("one")), lambda: index.forget("one")):
                with pytest.raises(InputError, match=expected):
                    refused()
            assert index.sync(Listing("two", 2)).added == 2
            assert index.sync(Listing("one", 5), dry_run=True).added == 2
        assert index.connectors() == {"one": 3, "two": 2}


def test_another_process_that_makes_no_vectors_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "STALLED_S", 0.2)
    monkeypatch.setattr(sync_module, "LOOK_EVERY_S", 0.05)
    path, told = tmp_path / "index.db", []
    with (
        KnowledgeIndex(path, WordHash()) as index,
        turn(path, f"embedding by {WordHash().name}", 1),
    ):
        report = index.sync(Listing("one"), on_progress=told.append)
    assert (report.embedded, report.with_vectors) == (40, 40)
    assert SyncProgress("embed", 0, 40) in told


def test_vectors_that_another_process_makes_meanwhile_are_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sync_module, "LOOK_EVERY_S", 0.05)
    path, began = tmp_path / "index.db", threading.Event()

    @dataclass(frozen=True)
    class Slow(WordHash):
        def embed(self, texts):
            began.set()
            time.sleep(0.2)
            return super().embed(texts)

    with KnowledgeIndex(path, Slow()) as index, KnowledgeIndex(path, WordHash()) as other:
        first = threading.Thread(target=lambda: index.sync(Listing("one")))
        first.start()
        began.wait()
        report = other.sync(Listing("two", 2))
        first.join()
    assert report.embedded == 0
    assert report.with_vectors == report.passages == 42


def test_a_document_that_another_connector_brought_meanwhile_is_refused(tmp_path):
    path = tmp_path / "index.db"
    with KnowledgeIndex(path, WordHash()) as index, KnowledgeIndex(path, WordHash()) as other:

        class Late(Listing):
            def documents(self):
                yield Document("one/1.md", "Of somebody else.")
                other.sync(Listing("one"))

        with pytest.raises(DocumentError, match=r"'one/1.md' of 'late' is already in the index, from 'one'"):
            index.sync(Late("late"))
        assert index.connectors() == {"one": 40}


def test_a_sync_that_finds_nothing_new_writes_nothing(tmp_path):
    path = tmp_path / "index.db"
    with KnowledgeIndex(path, WordHash()) as index:
        index.sync(Listing("one"))
        with index._database.reading() as connection:
            before = connection.execute("SELECT value FROM counters").fetchall()
        index.sync(Listing("one"))
        with index._database.reading() as connection:
            assert connection.execute("SELECT value FROM counters").fetchall() == before


def test_documents_that_were_lost_are_noticed_even_if_nothing_is_new(tmp_path):
    path = tmp_path / "index.db"

    class Losing(Listing):
        def documents(self):
            yield from super().documents()
            with other._database.writing() as connection:
                connection.execute("DELETE FROM passages WHERE document = 'one/1.md'")
                connection.execute("DELETE FROM documents WHERE id = 'one/1.md'")

    with KnowledgeIndex(path, WordHash()) as index, KnowledgeIndex(path, WordHash()) as other:
        index.sync(Listing("one"))
        with pytest.raises(
            IntegrityError, match=r"holds 39 documents of 'one'; expected 40, of 40 that are listed"
        ):
            index.sync(Losing("one"))


class Constant:
    """An embedder that costs nothing."""

    name, dimensions = "constant", 4

    def embed(self, texts):
        return np.tile(np.float32([1, 0, 0, 0]), (len(texts), 1))


def test_a_sync_does_not_hold_the_documents_in_memory(tmp_path):
    words = " ".join(TEXT.format(n) for n in range(400))

    class Large(Listing):
        def documents(self):
            return (Document(f"{n}", f"Document {n}. {words}") for n in range(self.count))

    with KnowledgeIndex(tmp_path / "index.db", Constant()) as index:
        index.sync(Large("large", 2))
        with contextlib.ExitStack() as stack:
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            report = index.sync(Large("large", 62))
            _, peak = tracemalloc.get_traced_memory()
    assert report.added == 60
    assert 60 * len(words) > 1_100_000
    assert peak < 700_000, peak


def test_a_killed_sync_leaves_no_file_of_documents(tmp_path):
    class Failing(Listing):
        def documents(self):
            yield from super().documents()
            raise RuntimeError("power cut")

    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        before = {path.name for path in tmp_path.iterdir()}
        with pytest.raises(RuntimeError):
            index.sync(Failing("one"))
        assert {path.name for path in tmp_path.iterdir()} - before <= {"index.db-turns"}
        assert len(index) == 0
        assert index.sync(Listing("one")).added == 40


def test_a_disk_without_room_is_said_and_nothing_is_changed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with KnowledgeIndex(tmp_path / "index.db", WordHash()) as index:
        index.sync(Listing("one", 2))
        monkeypatch.setattr("tailorbird.sources.staging.pickle.dump", full)
        with pytest.raises(
            InputError, match=r"'one/2.md' of 'one' cannot be put aside on disk \(No space left"
        ):
            index.sync(Listing("one"))
        assert len(index) == 2
