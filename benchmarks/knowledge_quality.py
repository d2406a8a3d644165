"""How well documents are found: words, meaning, both, and what might be better, on SciFact and three other sets.

    python benchmarks/knowledge_quality.py [--only scifact,xquad,…] [--fresh] [--write]

SciFact's 300 test claims only report. What the default is follows from the others by themselves: SquadShifts' and
XQuAD's questions on their paragraphs, and the last sentences of 1,000 SciFact abstracts, each asked of all abstracts
with that sentence taken out of its own. Weights that are fitted to a set itself are fitted on four fifths of its
questions and reported on the rest. Differences are by pairs.
"""

import argparse
import datetime as dt
import hashlib
import json
import math
import os
import random
import re
import shutil
import sqlite3
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from feedback import Found, rm3_search, rocchio_search
from machine import machine, sentence
from peers import WORK
from remembered import Remembered, RememberedTokens
from stand_in import stand_in_cross_encoder

from tailorbird.evaluation.statistics import paired_interval, score_interval
from tailorbird.records import Document
from tailorbird.sources.cross_encoder import CrossEncoder
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.keywords import match_any
from tailorbird.sources.late_interaction import LateInteraction
from tailorbird.sources.ranking import Ranking

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
WHOLE = 100_000
DEFAULT = "both, scores added (default)"
RERANKED = 300
"""Questions of the choosing sets that are asked with reranking, which takes a tenth of a second each."""
TIMED = 20
THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
SHARES = [round(0.1 * n, 1) for n in range(11)]
PLAIN = "words, titles count once"
READ = "first 10 read again, by token"
PUBLISHED = {"scifact": {PLAIN: "67.9, Anserini's BM25", "meaning": "64.5, MTEB's MiniLM"}}


@dataclass(frozen=True)
class Collection:
    """Documents, and questions with the ids of the documents that hold the answers."""

    name: str
    documents_given: tuple
    questions: tuple
    complete: bool = True

    def documents(self):
        return iter(self.documents_given)


def scifact():
    rows = [json.loads(line) for line in (DATA / "scifact" / "corpus.jsonl").read_text("utf-8").splitlines()]
    relevant = {}
    for line in (DATA / "scifact" / "qrels.scifact.test.txt").read_text("utf-8").splitlines():
        claim, _, document, relevance = line.split()
        if int(relevance) > 0:
            relevant.setdefault(claim, set()).add(document)
    lines = (DATA / "scifact" / "queries.jsonl").read_text("utf-8").splitlines()
    claims = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    documents = tuple(Document(row["_id"], row["text"], title=row["title"]) for row in rows)
    return Collection(
        "scifact", documents, tuple((claims[claim], found) for claim, found in relevant.items())
    )


def last_sentences():
    """1,000 abstracts lose their last sentence, which is what is asked."""
    documents = list(scifact().documents())
    questions = []
    for place in random.Random(1).sample(range(len(documents)), len(documents)):
        *rest, last = re.split(r"(?<=[.!?])\s+(?=[A-Z])", documents[place].text.strip())
        if len(rest) >= 4 and 50 <= len(last) <= 250:
            documents[place] = replace(documents[place], text=" ".join(rest))
            questions.append((last, {documents[place].id}))
        if len(questions) == 1000:
            break
    return Collection("last sentences", tuple(documents), tuple(questions))


def paragraphs(name, path, most):
    """A set in SQuAD's form: its paragraphs are the documents."""
    documents, questions = [], []
    for article in json.loads((DATA / path).read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            documents.append(Document(f"{len(documents):05d}", paragraph["context"]))
            questions += [(q["question"], {documents[-1].id}) for q in paragraph["qas"]]
    random.Random(0).shuffle(questions)
    return Collection(name, tuple(documents), tuple(questions[:most]))


COLLECTIONS = {
    "scifact": scifact,
    "last sentences": last_sentences,
    "squadshifts": lambda: paragraphs("squadshifts", "squadshifts/new_wiki_v1.0.json", 2000),
    "xquad": lambda: paragraphs("xquad", "xquad_en/xquad.en.json", 2000),
}


def ndcg(ranked, relevant):
    gain = sum(1 / math.log2(rank + 2) for rank, name in enumerate(ranked[:10]) if name in relevant)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))


def scores_of(search, questions, depth=40):
    found = []
    for question, relevant in questions:
        documents = list(dict.fromkeys(p.document for p in search(question, depth)))
        found.append(ndcg(documents, relevant))
    return np.array(found)


def words_of_fields_alike(path):
    """BM25 as the textbook has it: a word in a title counts as any other."""

    def search(question, k):
        rows = connection.execute(
            "SELECT document FROM passages_fts f JOIN passages p ON p.number = f.rowid "
            "WHERE passages_fts MATCH ? ORDER BY bm25(passages_fts), p.id LIMIT ?",
            (match_any(question), k),
        )
        return [Found(name) for (name,) in rows]

    connection = sqlite3.connect(path)
    return search


def ranked_as(index, ranking, reranker=None):
    """A search of the index with another ranking."""

    def search(question, k):
        index.ranking, index.reranker = ranking, reranker
        return index.search(question, k)

    return search


def share(meaning):
    return Ranking(words_weight=round(1 - meaning, 2), meaning_weight=meaning)


def fitted_by_folds(scores_by_share, questions):
    """Scores of each question with the weight that was best for the other four fifths, and the weights."""
    folds = np.array([int(hashlib.blake2b(q.encode()).hexdigest()[:8], 16) % 5 for q, _ in questions])
    held_out, chosen = np.zeros(len(questions)), []
    for fold in range(5):
        best = max(SHARES, key=lambda s: scores_by_share[s][folds != fold].mean())
        held_out[folds == fold] = scores_by_share[best][folds == fold]
        chosen.append(best)
    return held_out, chosen


def seconds_a_question(search, questions):
    taken = []
    for question, _ in questions[:TIMED]:
        began = time.perf_counter()
        search(question, 10)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


class Kept:
    """What was measured already, each in a file: a run that was interrupted goes on where it was."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name, measured):
        file = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        if not file.is_file():
            found = measured()
            file.write_text(json.dumps(found.tolist() if isinstance(found, np.ndarray) else found), "utf-8")
        found = json.loads(file.read_text("utf-8"))
        return np.array(found) if isinstance(found, list) else found


def measure(collection, memory, folder):
    questions, kept, tokens = collection.questions, Kept(folder), RememberedTokens()
    arms, times = {}, {}
    with KnowledgeIndex(folder / "whole.db", memory, max_chars=WHOLE) as index:
        index.sync(collection)
        memory.save()
        plain = ranked_as(index, Ranking())
        searches = {
            PLAIN: words_of_fields_alike(folder / "whole.db"),
            "words": index.keyword_search,
            "meaning": index.vector_search,
            "both, ranks fused (k = 60)": ranked_as(index, Ranking("ranks")),
            "both, ranks fused (k = 10)": ranked_as(index, Ranking("ranks", fusion_k=10)),
        }
        for name, search in searches.items():
            arms[name] = kept(name, lambda search=search: scores_of(search, questions))
        by_share = {
            s: kept(f"share {s}", lambda s=s: scores_of(ranked_as(index, share(s)), questions))
            for s in SHARES
        }
        arms[DEFAULT] = by_share[0.5]
        arms["both, weights fitted by folds"], fitted = fitted_by_folds(by_share, questions)
        name = "feedback to meaning (Rocchio)"
        arms[name] = kept(name, lambda: scores_of(rocchio_search(index, plain), questions))
        name = "feedback to words (RM3)"
        arms[name] = kept(name, lambda: scores_of(rm3_search(index, plain, collection), questions))
        some = questions if collection.name == "scifact" else questions[:RERANKED]
        reading = ranked_as(index, Ranking(rerank=10), LateInteraction(tokens))
        arms[READ] = kept(READ, lambda: scores_of(reading, some))
        # Timed with the embedder itself: what was remembered takes no time.
        index.embedder = default_embedder()
        reading = ranked_as(index, Ranking(rerank=10), LateInteraction(default_embedder()))
        timed = {"words": index.keyword_search, "meaning": index.vector_search, DEFAULT: plain, READ: reading}
        for name, search in timed.items():
            times[name] = kept(f"seconds {name}", lambda search=search: seconds_a_question(search, questions))
        crossed = kept("seconds cross-encoder", lambda: seconds_by_cross_encoder(index, questions, folder))
    if collection.name == "scifact":
        arms |= by_passages(collection, memory, kept, folder)
    return {
        "rows": rows_of(collection, arms, times),
        "fitted": fitted,
        "by_share": {str(s): round(100 * by_share[s].mean(), 2) for s in SHARES},
        "cross_encoder_ms": round(1000 * crossed, 1),
    }


def seconds_by_cross_encoder(index, questions, folder):
    encoder = CrossEncoder(str(stand_in_cross_encoder(folder / "cross-encoder")), threads=THREADS)
    return seconds_a_question(ranked_as(index, Ranking(rerank=10), encoder), questions[:10])


def by_passages(collection, memory, kept, folder):
    """Documents by the best of their passages of 600 characters."""
    name = "by its best passage of 600 characters"
    with KnowledgeIndex(folder / "passages.db", memory, max_chars=600) as index:
        index.sync(collection)
        memory.save()
        return {name: kept(name, lambda: scores_of(index.search, collection.questions))}


def rows_of(collection, arms, times):
    rows = []
    for name, scores in arms.items():
        found, beside = score_interval(scores), paired_interval(scores, arms[DEFAULT][: len(scores)])
        row = {"set": collection.name, "arm": name, "questions": len(scores)}
        row["ndcg@10"] = [round(100 * v, 2) for v in (found.mean, found.low, found.high)]
        row["beside_default"] = [round(100 * v, 2) for v in (beside.mean, beside.low, beside.high)]
        row["median_ms"] = round(1000 * times[name], 1) if name in times else None
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def report(found, facts, command):
    today = dt.datetime.now(tz=dt.UTC).date()
    lines = ["# Finding documents", "", f"`{command}`, {today}. {sentence(facts)}", ""]
    lines += [
        (
            "nDCG@10 × 100 with 95 % intervals, whole documents indexed. The default adds both rankings' scores with "
            "equal weights, fitted to nothing; the sets other than SciFact choose it by themselves."
        ),
        "",
    ]
    for name, result in found.items():
        lines += [f"## {name}", "", "| found by | nDCG@10 | beside the default | a question | published |"]
        lines.append("|---|---|---|---|---|")
        for row in result["rows"]:
            mean, low, high = row["ndcg@10"]
            difference, least, most = row["beside_default"]
            beside = "–" if row["arm"] == DEFAULT else f"{difference:+.1f} ({least:+.1f} to {most:+.1f})"
            took = f"{row['median_ms']:.0f} ms" if row["median_ms"] is not None else "–"
            published = PUBLISHED.get(name, {}).get(row["arm"], "–")
            fewer = f" ({row['questions']} questions)" if row["questions"] < result["questions"] else ""
            cells = f"{mean:.1f} ({low:.1f} to {high:.1f})", beside, took, published
            lines.append(f"| {row['arm']}{fewer} | " + " | ".join(cells) + " |")
        shares = ", ".join(f"{100 * float(s):.0f} %: {v:.1f}" for s, v in result["by_share"].items())
        folds = ", ".join(f"{100 * s:.0f} %" for s in result["fitted"])
        counted = f"{result['questions']:,} questions, {result['documents']:,} documents."
        took = result.get("cross_encoder_ms")
        crossed = (
            f" A cross-encoder of MiniLM's size, in float32, takes {took:.0f} ms for 10." if took else ""
        )
        lines += [
            "",
            counted
            + (f" By meaning's share of the weight: {shares}. The folds chose {folds}." if folds else "")
            + crossed,
            "",
        ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(COLLECTIONS))
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/results")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run measured")
    given = parser.parse_args()
    if not (DATA / "scifact").is_dir():
        sys.exit(f"{DATA}: SciFact, XQuAD and SquadShifts not found. This benchmark reads them there.")
    path = RESULTS / "knowledge_quality.json"
    kept = json.loads(path.read_text("utf-8"))["sets"] if path.is_file() else {}
    memory, found = Remembered(), {}
    for name in given.only.split(","):
        collection = COLLECTIONS[name]()
        folder = WORK / "knowledge_quality" / name.replace(" ", "-")
        if given.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(collection, memory, folder)
        sizes = {"questions": len(collection.questions), "documents": len(collection.documents_given)}
        found[name] = {**sizes, **result}
    facts = machine()
    merged = {name: {**kept, **found}[name] for name in COLLECTIONS if name in {**kept, **found}}
    text = report(merged, facts, "python benchmarks/knowledge_quality.py --write")
    print(text)
    if given.write:
        path.write_text(json.dumps({"machine": facts, "sets": merged}, indent=1))
        path.with_suffix(".md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
