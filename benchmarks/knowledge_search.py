"""How fast, how completely and in how much memory 100,000 and 1,000,000 passages are searched, by every vector store.

    python benchmarks/knowledge_search.py --shared ../shared/data

Every row is a process of its own, so that its memory is its own. The questions are real; see `knowledge_corpus` for the
passages. Readers: the owner, who sees everything, and readers of groups that may read 5 % and 0.5 % of the documents.
Recall is the share of the ten passages closest in float32, computed one by one, that are found. Interrupted, it goes on
where it was.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import knowledge_corpus as corpus
import machine
import numpy as np

from tailorbird.records import Reader, Scope
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.scopes import Rules
from tailorbird.sources.stores import SearchSettings

WORK = Path("build/bench/knowledge")
RESULTS = Path(__file__).parent / "results" / "knowledge_search"
REAL = 24_000
ASKED = 200
CHUNK = 20_000
PER_DOCUMENT = 4
READERS = {
    "everything": None,
    "5 %": Scope(Reader("", ("five",))),
    "0.5 %": Scope(Reader("", ("half",))),
}
ROWS = (
    (100_000, "faiss", "tantivy"),
    (1_000_000, "faiss", "tantivy"),
    (100_000, "numpy", "fts5"),
    (100_000, "lancedb", "tantivy"),
    (1_000_000, "lancedb", "tantivy"),
    (1_000_000, "numpy", "fts5"),
)


def groups_of(documents):
    """The group of each document, drawn once: 5 % five, 0.5 % half, the rest others."""
    drawn = np.random.default_rng(9).random(documents)
    return np.where(drawn < 0.05, "five", np.where(drawn < 0.055, "half", "rest"))


def chunks(size, vectors, texts):
    """Passages in chunks: where they begin, their vectors, float32, and texts."""
    first, second, share = corpus.mixtures(vectors, size - len(vectors))
    yield 0, vectors, texts
    for begin in range(0, len(first), CHUNK):
        some = slice(begin, begin + CHUNK)
        mixed = corpus.mixed_vectors(vectors, first[some], second[some], share[some], begin)
        pairs = zip(first[some], second[some], strict=True)
        words = [corpus.mixed_text(texts[p], texts[q], begin + i) for i, (p, q) in enumerate(pairs)]
        yield len(vectors) + begin, mixed, words


def build(size, vectors, texts, asked):
    """The index file, filled past the connectors since the vectors are made up, and the true nearest of all readers.

    A chunk is a transaction, and what was done before an interruption is kept.
    """
    path = WORK / str(size) / "index.db"
    if (path.parent / "truth.npz").is_file():
        return path
    began = time.monotonic()
    best = {name: (np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), int)) for name in READERS}
    with KnowledgeIndex(path, Known({})) as index:
        for begin, made, words in chunks(size, vectors, texts):
            numbers = np.arange(begin, begin + len(made))
            if len(index) < numbers[-1] + 1:
                with index._database.writing() as connection:  # noqa: SLF001
                    insert(connection, numbers, made, words)
            group = groups_of(size // PER_DOCUMENT + 1)[numbers // PER_DOCUMENT]
            for name, scope in READERS.items():
                seen = np.ones(len(numbers), bool) if scope is None else group == scope.reader.groups[0]
                best[name] = nearer(best[name], asked @ made[seen].T, numbers[seen] + 1)
    facts = {name.replace(" ", ""): rows for name, (_, rows) in best.items()}
    np.savez(path.parent / "truth.npz", **facts)
    print(f"{size:,} passages written in {time.monotonic() - began:.0f} s", flush=True)
    return path


def insert(connection, numbers, made, words):
    """Passages with their documents, rules and vectors, as a sync would leave them."""
    documents = sorted(set((numbers // PER_DOCUMENT).tolist()))
    group = groups_of(documents[-1] + 1)
    rules = {name: Rules("", (name,)) for name in ("five", "half", "rest")}
    made_rules = {name: (rule.to_json(), rule.terms()[0]) for name, rule in rules.items()}
    of = {document: made_rules[str(group[document])] for document in documents}
    connection.executemany(
        "INSERT OR IGNORE INTO documents VALUES (?, 'bench', '', '', ?, ?)",
        ((f"{document}.md", rule, rule) for document, (rule, _) in of.items()),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO document_terms VALUES (?, ?)",
        ((term, f"{document}.md") for document, (_, term) in of.items()),
    )
    connection.executemany(
        "INSERT INTO passages VALUES (?, ?, ?, ?, '', '[]', 0, ?, NULL, '', ?)",
        (
            (n + 1, f"{n:x}", f"{n // PER_DOCUMENT}.md", text, len(text), f"{n:x}")
            for n, text in zip(numbers.tolist(), words, strict=True)
        ),
    )
    connection.executemany(
        "INSERT INTO embeddings VALUES (?, ?, ?)",
        (
            (Known.name, f"{n:x}", vector.astype(np.float16).tobytes())
            for n, vector in zip(numbers.tolist(), made, strict=True)
        ),
    )
    connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'generation'")


def nearer(best, similarity, numbers):
    """The ten best so far, of every question, with more candidates."""
    scores = np.concatenate([best[0], similarity], 1)
    rows = np.concatenate([best[1], np.broadcast_to(numbers, similarity.shape)], 1)
    if scores.shape[1] <= 10:
        return scores, rows
    keep = np.argpartition(-scores, 10, axis=1)[:, :10]
    return np.take_along_axis(scores, keep, 1), np.take_along_axis(rows, keep, 1)


@dataclass(frozen=True)
class Known:
    """An embedder that knows its questions' vectors, so that a search is timed without it."""

    vectors: dict

    name = "known"
    dimensions = 384

    def embed(self, texts):
        return np.stack([self.vectors[text] for text in texts])


def measure(size, store, words, questions, asked, limit):
    """One row: timed searches of all readers, one question after another."""
    path = WORK / str(size) / "index.db"
    settings = SearchSettings(store=store, words=words)
    truth = np.load(path.parent / "truth.npz")
    row = {"passages": size, "store": store, "words": words, "readers": {}}
    known = Known(dict(zip(questions, asked, strict=True)))
    count = ASKED if size * (store == "numpy") <= 100_000 else 50
    questions = questions[: min(count, limit)]
    row["load"] = os.getloadavg()[0]
    with KnowledgeIndex(path, known, settings=settings) as index:
        row["done"] = index.catch_up()
    folder = path.with_suffix(".vectors")
    row["store_mb"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    return row if "--build" in sys.argv else row | timed(path, settings, known, questions, truth)


def timed(path, settings, known, questions, truth):
    """Latencies, recall and memory of a process that only searches."""
    readers = {}
    with KnowledgeIndex(path, known, settings=settings) as index:
        began = time.monotonic()
        index.search(questions[0], 10)
        opened_s = time.monotonic() - began
        for name, scope in READERS.items():
            began = time.monotonic()
            index.search(questions[0], 10, only=scope)
            first_ms = 1000 * (time.monotonic() - began)
            vector, found = clocked(lambda q, s=scope: index.vector_search(q, 10, only=s), questions)
            keyword, _ = clocked(lambda q, s=scope: index.keyword_search(q, 10, only=s), questions)
            hybrid, _ = clocked(lambda q, s=scope: index.search(q, 10, only=s), questions)
            true = truth[name.replace(" ", "")][: len(questions)]
            hits = [
                len({int(p.id, 16) + 1 for p in f} & set(t.tolist()))
                for f, t in zip(found, true, strict=True)
            ]
            readers[name] = {
                "first_ms": first_ms,
                "vector": vector,
                "keyword": keyword,
                "hybrid": hybrid,
                "recall": sum(hits) / true.size,
            }
        resident_mb = resident()
        embedder = default_embedder()
        index.embedder = Renamed(embedder)
        whole, _ = clocked(lambda q: index.search(q, 10), questions)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "opened_s": opened_s,
        "readers": readers,
        "whole": whole,
        "resident_mb": resident_mb,
        "peak_mb": peak_mb,
        "questions": len(questions),
    }


@dataclass(frozen=True)
class Renamed:
    """The real embedder under the name that the index was filled with."""

    inner: object

    name = "known"
    dimensions = 384

    def embed(self, texts):
        return self.inner.embed(texts)


def clocked(search, questions):
    """Milliseconds at the median and the 99th percentile, and what was found."""
    for question in questions[:5]:
        search(question)
    times, found = [], []
    for question in questions:
        began = time.perf_counter()
        found.append(search(question))
        times.append(1000 * (time.perf_counter() - began))
    return [float(np.percentile(times, 50)), float(np.percentile(times, 99))], found


def resident():
    """Megabytes that this process has in memory, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def report(rows):
    """The results as Markdown."""
    about = (
        f"The passages: {REAL:,} real ones, the rest mixed from them (see `benchmarks/knowledge_corpus.py`). "
        f"{ASKED} real questions one after another (50 where a million vectors are compared in memory); "
        "milliseconds, median and 99th percentile, without embedding the question, which the last column has in it. "
        "Recall is of the ten nearest in float32. Memory is what the searching process has resident before the "
        "embedder is loaded, mapped files included. Load is the machine's when the row began: above 1, other work ran "
        "beside it, and its times are more than they need be."
    )
    columns = ["passages", "store, words", "reads", "vectors p50 / p99", "recall@10", "words p50 / p99"]
    columns += ["both p50 / p99", "first of a reader", "memory MB", "with embedding"]
    day = time.strftime("%Y-%m-%d")
    lines = ["# Searching 100,000 and 1,000,000 passages", ""]
    lines += [f"`make bench-knowledge-search`, {day}. {machine.sentence(machine.machine())}", "", about, ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        for name, reader in row["readers"].items():
            cells = [
                f"{row['passages']:,}",
                f"{row['store']}, {row['words']}",
                name,
                pair(reader["vector"]),
                f"{reader['recall']:.4f}",
                pair(reader["keyword"]),
                pair(reader["hybrid"]),
                f"{reader['first_ms']:.0f}",
                f"{row['resident_mb']:,.0f}",
                pair(row["whole"]) if name == "everything" else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| passages | store, words | vectors on disk MB | opened in s | questions | load |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['passages']:,}", f"{row['store']}, {row['words']}"]
        cells += [f"{row['store_mb']:,.0f}", f"{row['opened_s']:.1f}"]
        cells += [str(row["questions"]), f"{row['load']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def pair(times):
    return f"{times[0]:.1f} / {times[1]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--questions", type=int, default=ASKED, help="with --row: at most so many")
    parser.add_argument("--row", help="measure one, as SIZE,STORE,WORDS, and print it")
    parser.add_argument("--build", action="store_true", help="with --row: only bring its stores up to date")
    parser.add_argument(
        "--steps", type=int, default=1000, help="stop after so many of them; run again to go on"
    )
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    texts_file = WORK / "texts.json"
    if not texts_file.is_file():
        texts_file.write_text(json.dumps(corpus.real_texts(args.shared, REAL)))
    questions = corpus.questions(args.shared)
    asked = corpus.embedded(questions, WORK, "questions")
    chosen = np.random.default_rng(1).permutation(len(questions))[:ASKED]
    questions, asked = [questions[i] for i in chosen], asked[chosen]
    if args.row:
        size, store, words = args.row.split(",")
        print("ROW " + json.dumps(measure(int(size), store, words, questions, asked, args.questions)))
        return
    texts = json.loads(texts_file.read_text())
    vectors = corpus.embedded(texts, WORK, "real")
    kept = WORK / "search_rows.json"
    rows = json.loads(kept.read_text()) if kept.is_file() else {}
    for size, store, words in ROWS:
        key = f"{size},{store},{words}"
        if key in rows or not args.steps:
            continue
        args.steps -= 1
        build(size, vectors, texts, asked)
        own = [sys.executable, __file__, "--shared", str(args.shared), "--row", key]
        subprocess.run([*own, "--build"], check=True, stdout=subprocess.PIPE)
        rows[key] = _row(subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True))
        kept.write_text(json.dumps(rows))
        print(key, json.dumps(rows[key]), flush=True)
        write_results(rows)


def write_results(rows):
    """What was measured so far."""
    found = [rows[key] for row in sorted(ROWS) if (key := ",".join(map(str, row))) in rows]
    RESULTS.with_suffix(".json").write_text(
        json.dumps({"machine": machine.machine(), "rows": found}, indent=1)
    )
    RESULTS.with_suffix(".md").write_text(report(found))


def _row(done):
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("ROW "))[4:])


if __name__ == "__main__":
    main()
