"""Does knowledge survive `kill -9` during a sync? Kill syncs at random moments, look at what is left, sync again.

    python benchmarks/kill_sync.py [--trials 100] [--seed 0]

An index holds a folder of documents; then a third of them changes, a tenth goes and as many come. That sync runs
undisturbed once. Then, `--trials` times from the same beginning, it is killed (SIGKILL, the whole process group) at a
moment drawn uniformly from one of its three parts, taking turns: reading, applying, embedding. What is left must open,
hold the old documents or the new ones and no mixture, each passage with its words, and find what it is asked for. Then
the sync is run again: it must end with the passages, vectors and words of the undisturbed one, bit by bit, must have
made no vector again that was stored, and its counts must come out even.

Every sync is a process of its own, forked from one in which the embedder is loaded already.
Writes benchmarks/results/kill_sync.json and .md; works in build/bench/kill_sync.
"""

import argparse
import contextlib
import datetime as dt
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from machine import machine, sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "kill_sync"
COMMAND = "python benchmarks/kill_sync.py"
PARTS = ("read", "apply", "embed")
NUM_DOCUMENTS, NUM_SUBJECTS = 600, 100
EMBED_BATCH = 8
"""Vectors are stored after this many instead of 128, so that syncs this short are cut between them, too."""
NAMES = (
    "amber",
    "birch",
    "cedar",
    "dune",
    "elder",
    "fjord",
    "grove",
    "heath",
    "inlet",
    "jetty",
    "knoll",
    "ledge",
)
SUMMARY = """\
{trials} syncs of {documents} documents ({changed} changed, {removed} removed, {added} added, {embedded} texts to
embed in batches of {batch}; {seconds:.2f} s undisturbed) were killed (SIGKILL, whole process group): {where}.
Each left an index that opened, could be searched, and held the old documents ({old} times) or the new ones
({new} times), each passage with its words; none held a mixture. Synced again, all {trials} ended with the passages,
words and vectors of the undisturbed sync, bit by bit; of {stored} vectors that had been stored by then {again} were
made again. The counts came out even {trials} times: {listed} documents listed = {indexed} indexed + {unreadable}
unreadable; {passages} passages = {with_words} with words = {with_vectors} with vectors. {lost} lost, {doubled} doubled.
"""


# -- the documents --------------------------------------------------------------------------------


def text_of(subject, edition):
    """A short document; what is said depends on the subject and the edition alone."""
    draw = random.Random(f"{subject} {edition}")
    words = [draw.choice(NAMES) for _ in range(40)]
    return f"# Subject {subject}\n\nEdition {edition} of subject{subject} speaks of {' '.join(words)}.\n"


def write_documents(folder, *, new):
    """The documents before or after the change, in a fresh folder; one can never be read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    gone = NUM_DOCUMENTS // 10
    for number in range(gone, NUM_DOCUMENTS + gone) if new else range(NUM_DOCUMENTS):
        edition = 1 if new and (number % 3 == 0 or number >= NUM_DOCUMENTS) else 0
        (folder / f"{number:04}.md").write_text(text_of(number % NUM_SUBJECTS, edition), "utf-8")
    (folder / "scan.pdf").write_bytes(b"%PDF-1.7 and nothing else")


# -- a sync in a process of its own ---------------------------------------------------------------


def sync(embedder, index, documents, log=None):
    """One sync here: its report, and when its parts began."""
    from tailorbird.sources.folder import Folder
    from tailorbird.sources.index import KnowledgeIndex

    began, marks = time.monotonic(), {"read": 0.0}

    def tell(progress):
        if log is not None:
            os.write(log, f"{progress.stage} {progress.done}\n".encode())
        marks[f"last {progress.stage}"] = time.monotonic() - began

    with KnowledgeIndex(index, embedder, max_chars=600) as opened:
        report = opened.sync(Folder(documents, "documents"), on_progress=tell)
    ends = {"read": marks["last read"], "apply": report.searchable_s, "embed": report.seconds}
    return asdict(report), ends


def kill_after(embedder, index, documents, moment_s, log):
    """Starts a sync and kills it; what it told last, or None if it had ended by then."""
    with log.open("wb") as stream:
        ready, told = os.pipe()
        if (child := os.fork()) == 0:
            os.setsid()
            os.write(told, b"r")
            with contextlib.suppress(BaseException):
                sync(embedder, index, documents, stream.fileno())
                os._exit(0)
            os._exit(1)
        os.read(ready, 1)
        os.close(ready)
        os.close(told)
    time.sleep(moment_s)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended == 0:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif status != 0:
        raise AssertionError(f"a sync ended by itself with status {status}; its index is {index}")
    lines = log.read_text("utf-8").splitlines()
    return None if ended else (lines[-1] if lines else "begun")


# -- what must be equal ---------------------------------------------------------------------------


def contents(index):
    """All that an index holds, apart from the numbers of rows: a hash of the documents, and the vectors by text."""
    with contextlib.closing(sqlite3.connect(index)) as connection:
        documents = connection.execute("SELECT id, hash FROM documents ORDER BY id").fetchall()
        columns = "id, document, text, title, headings, start, stop, page, version, text_key"
        passages = connection.execute(f"SELECT {columns} FROM passages ORDER BY id").fetchall()
        vectors = dict(connection.execute("SELECT text_key, vector FROM embeddings").fetchall())
        words = connection.execute("SELECT count(*) FROM passages_fts_docsize").fetchone()[0]
        connection.execute("INSERT INTO passages_fts (passages_fts) VALUES ('integrity-check')")
        connection.rollback()
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return {
        "documents": hashlib.sha256(json.dumps([documents, passages]).encode()).hexdigest(),
        "ids": [name for name, _ in documents],
        "passages": len(passages),
        "words": words,
        "vectors": {key: hashlib.sha256(vector).hexdigest() for key, vector in vectors.items()},
        "sound": sound,
    }


def look(embedder, index, old, new):
    """What a killed sync left: ("old" or "new", its contents).

    Raises:
        AssertionError: it is neither, a part is damaged, or it can't be searched.
    """
    from tailorbird.sources.index import KnowledgeIndex

    if not index.exists():
        raise AssertionError(f"{index} is gone")
    with KnowledgeIndex(index, embedder, max_chars=600) as opened:
        found = opened.search("subject7 speaks of", 3)
        by_words = opened.keyword_search("subject7", 3)
    left = contents(index)
    state = {old["documents"]: "old", new["documents"]: "new"}.get(left["documents"])
    wrong = [
        *(["a mixture of old and new documents"] if state is None else []),
        *([f"the file: {left['sound']}"] if left["sound"] != "ok" else []),
        *(["passages without words"] if left["words"] != left["passages"] else []),
        *(["nothing is found"] if len(found) != 3 or "subject7 " not in by_words[0].text else []),
    ]
    if wrong:
        raise AssertionError(f"{index}: {'; '.join(wrong)}")
    return state, left


def trial(embedder, work, number, moment_s, old, new):
    """Kills one sync, looks, syncs again, and says what came of it.

    Raises:
        AssertionError: anything differs from the undisturbed sync.
    """
    folder = work / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "old", folder)
    index = folder / "index.db"
    last = kill_after(embedder, index, work / "documents", moment_s, work / "trial.log")
    files = sorted(path.name for path in folder.iterdir())
    state, left = look(embedder, index, old, new)
    stored = len(left["vectors"].keys() & new["vectors"].keys())
    report, _ = sync(embedder, index, work / "documents")
    after = contents(index)
    differs = sorted(key for key in new if after[key] != new[key])
    again = report["embedded"] - (len(new["vectors"]) - stored)
    balance = balance_of(report)
    strange = [
        name for name in files if name not in {"index.db", "index.db-wal", "index.db-shm", "index.db-turns"}
    ]
    if differs or again or not balance["even"] or strange:
        raise AssertionError(
            f"trial {number}, killed after {moment_s:.2f} s ({last}): differs {differs}; {again} vectors made again; "
            f"{balance}; files left {strange}. It is in {folder}."
        )
    return {
        "trial": number,
        "moment_s": round(moment_s, 3),
        "last_told": last,
        "left": state,
        "vectors_stored": stored,
        "embedded_again": again,
        "lost": len(set(new["ids"]) - set(after["ids"])),
        "doubled": len(after["ids"]) - len(set(after["ids"])),
        "balance": balance,
    }


def balance_of(report):
    """The counts that must come out even."""
    indexed = report["listed"] - len(report["unreadable"])
    even = report["passages"] == report["with_words"] == report["with_vectors"]
    return {
        "listed": report["listed"],
        "indexed": indexed,
        "unreadable": len(report["unreadable"]),
        "passages": report["passages"],
        "with_words": report["with_words"],
        "with_vectors": report["with_vectors"],
        "even": even and indexed == report["documents"],
    }


def part_of(last, state):
    """In which part a killed sync was, from what it had told and what it left."""
    if last is None:
        return "after the end"
    if last.startswith("embed"):
        return "embedding"
    if state == "new":
        return "between applying and the first vectors"
    return "reading" if last != f"read {NUM_DOCUMENTS + 1}" else "applying"


def measure(work, trials, seed, tell):
    """The whole experiment.

    Raises:
        AssertionError: a trial ended differently from the undisturbed sync.
    """
    from tailorbird.sources import sync as sync_module
    from tailorbird.sources.embedder import MiniLM

    sync_module.EMBED_BATCH = EMBED_BATCH
    shutil.rmtree(work, ignore_errors=True)
    embedder, documents = MiniLM(threads=1), work / "documents"
    write_documents(documents, new=False)
    sync(embedder, work / "old" / "index.db", documents)
    old = contents(work / "old" / "index.db")
    write_documents(documents, new=True)
    shutil.copytree(work / "old", work / "undisturbed")
    report, ends = sync(embedder, work / "undisturbed" / "index.db", documents)
    new = contents(work / "undisturbed" / "index.db")
    tell(f"undisturbed: {report['seconds']:.2f} s, {ends}")
    begins = dict(zip(PARTS, [0.0, ends["read"], ends["apply"]], strict=True))
    draw, done = random.Random(seed), []
    for number in range(1, trials + 1):
        part = PARTS[number % len(PARTS)]
        moment_s = draw.uniform(begins[part], ends[part])
        done.append(trial(embedder, work, number, moment_s, old, new))
        done[-1]["where"] = part_of(done[-1]["last_told"], done[-1]["left"])
        tell("  ".join(f"{key} {value}" for key, value in done[-1].items() if key != "balance"))
    return {
        "command": f"{COMMAND} --trials {trials} --seed {seed}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "undisturbed": {**report, "ends_s": ends},
        "trials": done,
    }


def as_markdown(result):
    """The result as a page."""
    done, report = result["trials"], result["undisturbed"]
    states = Counter(t["left"] for t in done)
    where = Counter(t["where"] for t in done)
    summary = SUMMARY.format(
        trials=len(done),
        batch=EMBED_BATCH,
        documents=report["documents"],
        where=", ".join(f"{count} {name}" for name, count in where.most_common()),
        old=states["old"],
        new=states["new"],
        stored=sum(t["vectors_stored"] for t in done),
        again=sum(t["embedded_again"] for t in done),
        lost=sum(t["lost"] for t in done),
        doubled=sum(t["doubled"] for t in done),
        **{key: report[key] for key in ("changed", "removed", "added", "embedded", "seconds")},
        **{key: value for key, value in done[-1]["balance"].items() if key != "even"},
    )
    lines = [
        "# Syncs killed at random moments",
        "",
        f"`{result['command']}`, {result['date']}. {sentence(result['machine'])}",
        "",
        summary,
        "| trial | killed after | where | documents left | vectors stored by then |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {t['trial']} | {t['moment_s']:.2f} s | {t['where']} | {t['left']} | {t['vectors_stored']} |"
        for t in done
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Kill syncs at random moments and run them again.")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    try:
        result = measure(given.work, given.trials, given.seed, lambda line: print(line, flush=True))
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "kill_sync.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (given.out / "kill_sync.md").write_text(as_markdown(result), "utf-8")
    print(f"all {given.trials} trials ended alike; written to {given.out}")


if __name__ == "__main__":
    main()
