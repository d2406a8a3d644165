"""Syncs of many documents, of several processes, and killed ones."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

LARGE = """
import json, random, resource, sys
from pathlib import Path
import numpy as np
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex

WORDS = [f"word{n}" for n in range(5000)]

class Constant:
    name, dimensions = "constant", 4
    def embed(self, texts):
        return np.tile(np.float32([1, 0, 0, 0]), (len(texts), 1))

class Listing:
    name, complete = "listing", True
    def __init__(self, count):
        self.count = count
    def documents(self):
        for n in range(self.count):
            draw = random.Random(n)
            sentences = (" ".join(draw.choices(WORDS, k=12)) + ". " for _ in range(60))
            yield Document(f"{n}.md", f"Document {n}. " + "".join(sentences))

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

with KnowledgeIndex(Path(sys.argv[1]), Constant()) as index:
    index.sync(Listing(20))
    before = peak_bytes()
    report = index.sync(Listing(20_000))
    again = index.sync(Listing(20_000))
    dry = index.sync(Listing(10_000), dry_run=True)
print(json.dumps({
    "extra_bytes": peak_bytes() - before, "first": vars(report), "again": vars(again), "dry": vars(dry),
    "text_bytes": sum(len(d.text) for d in Listing(200).documents()) * 100,
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_documents_are_synced_within_a_hundred_megabytes(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "index.db")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    first, again, dry = told["first"], told["again"], told["dry"]
    assert (first["added"], first["unchanged"], first["listed"]) == (19_980, 20, 20_000)
    assert first["passages"] == first["with_words"] == first["with_vectors"]
    assert (again["unchanged"], again["embedded"]) == (20_000, 0)
    assert (dry["removed"], dry["unchanged"]) == (10_000, 10_000)
    assert told["text_bytes"] > 95 * 2**20
    assert told["extra_bytes"] < 100 * 2**20, told["extra_bytes"]


SYNCING = """
import json, random, sys
from pathlib import Path
from tailorbird.records import Document
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

class Listing:
    complete = True
    def __init__(self, name, edition):
        self.name, self.edition = name, edition
    def documents(self):
        for n in range(self.edition * 7 % 40, 200):
            text = f"Of {self.name}, edition {self.edition % 3}, subject number{n}. " * 9
            yield Document(f"{self.name}/{n}.md", text)

names, max_chars, seed = sys.argv[2].split(","), json.loads(sys.argv[3]), int(sys.argv[4])
draw = random.Random(seed)
for _ in range(12):
    with KnowledgeIndex(Path(sys.argv[1]), WordHash(), max_chars=draw.choice(max_chars)) as index:
        report = index.sync(Listing(draw.choice(names), draw.randrange(9)))
        # Another process may have brought passages since, whose vectors are its affair.
        assert report.passages == report.with_words, report
print("done")
"""


class Last:
    """What is synced at the end."""

    complete = True

    def __init__(self, name):
        self.name = name

    def documents(self):
        return (Document(f"{self.name}/{n}.md", f"The last of {self.name}, number{n}.") for n in range(150))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processes", "max_chars"),
    [
        (["one", "two"], [600]),
        (["one", "one"], [600]),
        (["one", "two", "three"], [600]),
        (["one,two", "two,one", "one,two,three"], [200, 600]),
    ],
    ids=["two-places", "one-place", "three-places", "all-mixed"],
)
def test_syncs_at_once_lose_and_double_nothing_while_others_search(tmp_path, processes, max_chars):
    path = tmp_path / "index.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SYNCING, str(path), names, json.dumps(max_chars), str(seed)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, names in enumerate(processes)
    ]
    num_searches = 0
    with KnowledgeIndex(path, WordHash()) as index:
        while any(process.poll() is None for process in started):
            found = index.search(f"subject number{random.Random(num_searches).randrange(50, 200)}", 5)
            assert len({passage.id for passage in found}) == len(found)
            num_searches += 1
            time.sleep(0.005)
        for process in started:
            out, err = process.communicate()
            assert (process.returncode, out) == (0, "done\n"), err
        names = sorted({name for names in processes for name in names.split(",")})
        reports = [index.sync(Last(name)) for name in names]
        assert index.connectors() == dict.fromkeys(names, 150)
        assert all(report.listed == 150 for report in reports)
        last = reports[-1]
        assert last.passages == last.with_words == last.with_vectors
        fingerprint = index.fingerprint()
    assert num_searches > 10
    with KnowledgeIndex(tmp_path / "alone.db", WordHash()) as alone:
        for name in names:
            alone.sync(Last(name))
        assert alone.fingerprint() == fingerprint


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nine_syncs_killed_at_random_moments_end_like_the_undisturbed_one(tmp_path):
    # A process of its own: it forks, which one in which tests ran with threads must not.
    command = [sys.executable, ROOT / "benchmarks" / "kill_sync.py", "--trials", "9", "--seed", "5"]
    done = subprocess.run(
        [*command, "--out", tmp_path, "--work", tmp_path / "work"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kill_sync.json").read_text())
    assert len(found["trials"]) == 9
    assert all(trial["balance"]["even"] for trial in found["trials"])
    assert "0 lost, 0 doubled" in (tmp_path / "kill_sync.md").read_text()
