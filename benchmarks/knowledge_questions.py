"""Do questions that were written by rule rank settings as people's do? The handbook, asked both ways.

    python benchmarks/knowledge_questions.py [--write]

The sample's 397 questions with an answer against those that `tailor knowledge questions` writes of the same
documents: nDCG@10 of ways of ranking at two lengths of a passage, and how far the two orders agree (Kendall's τ).
"""

import argparse
import datetime as dt
import json
import tempfile
from pathlib import Path

import numpy as np
from knowledge_quality import ranked_as, scores_of, share
from machine import machine, sentence
from peers import WORK
from remembered import Remembered, RememberedTokens
from scipy.stats import kendalltau

from tailorbird.data.formats import read_examples
from tailorbird.data.question_writing import written_questions
from tailorbird.evaluation.statistics import paired_interval, score_interval
from tailorbird.records import NOT_IN_DOCUMENTS
from tailorbird.sources.folder import Folder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.late_interaction import LateInteraction
from tailorbird.sources.ranking import Ranking

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LENGTHS = (300, 600)
PER_DOCUMENT = 8


def ways(index, tokens):
    """Every way of ranking, by name."""
    yield "words", index.keyword_search
    yield "meaning", index.vector_search
    for part in (0.3, 0.5, 0.7):
        yield f"scores, {100 * part:.0f} % meaning", ranked_as(index, share(part))
    for k in (10, 60):
        yield f"ranks, k = {k}", ranked_as(index, Ranking("ranks", fusion_k=k))
    yield "scores, first 10 read again", ranked_as(index, Ranking(rerank=10), LateInteraction(tokens))


def measure(memory, folder):
    tokens = RememberedTokens()
    real = [
        (e.prompt, {e.document})
        for e in read_examples(ROOT / "sample" / "questions.jsonl")
        if e.document and e.completion != NOT_IN_DOCUMENTS
    ]
    rows, written = [], None
    for length in LENGTHS:
        with KnowledgeIndex(folder / f"{length}.db", memory, max_chars=length) as index:
            index.sync(Folder(ROOT / "sample" / "handbook"))
            memory.save()
            if written is None:
                documents = [index.passages_of(name) for name in sorted(index.document_names())]
                written = [(e.prompt, {e.document}) for e in written_questions(documents, PER_DOCUMENT)]
            for name, search in ways(index, tokens):
                scores = {"real": scores_of(search, real), "synthetic": scores_of(search, written)}
                rows.append({"setting": f"{length} characters, {name}", "scores": scores})
    return rows, len(real), len(written)


def agreement(rows):
    """Kendall's τ of the two orders, and the share of pairs that people's questions tell apart and that agree."""
    means = {kind: [row["scores"][kind].mean() for row in rows] for kind in ("real", "synthetic")}
    agreed = told = 0
    for i, first in enumerate(rows):
        for j, second in enumerate(rows[:i]):
            found = paired_interval(first["scores"]["real"], second["scores"]["real"])
            if found.low > 0 or found.high < 0:
                told += 1
                agreed += bool((means["synthetic"][i] > means["synthetic"][j]) == (found.mean > 0))
    return float(kendalltau(means["real"], means["synthetic"]).statistic), agreed, told


def report(rows, real, written, agreed, facts):
    tau, same, told = agreed
    lines = [
        "# Questions written by rule beside people's",
        "",
        f"`python benchmarks/knowledge_questions.py --write`, {dt.datetime.now(tz=dt.UTC).date()}. {sentence(facts)}",
        "",
        f"nDCG@10 × 100 on the sample's handbook, 95 % intervals: {real} questions by people, {written} by rule.",
        "",
        "| setting | people's | by rule |",
        "|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["scores"]["real"].mean()):
        cells = [score_interval(row["scores"][kind]) for kind in ("real", "synthetic")]
        shown = (f"{100 * i.mean:.1f} ({100 * i.low:.1f} to {100 * i.high:.1f})" for i in cells)
        lines.append(f"| {row['setting']} | " + " | ".join(shown) + " |")
    lines += [
        "",
        f"Kendall's τ of the two orders: {tau:.2f}. Of {told} pairs that people's questions tell apart, {same} agree.",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/results")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        rows, real, written = measure(Remembered(), Path(folder))
    agreed, facts = agreement(rows), machine()
    text = report(rows, real, written, agreed, facts)
    print(text)
    if given.write:
        plain = [
            {"setting": row["setting"], **{k: round(float(np.mean(v)), 4) for k, v in row["scores"].items()}}
            for row in rows
        ]
        facts_found = {
            "machine": facts,
            "tau": agreed[0],
            "same": agreed[1],
            "told": agreed[2],
            "rows": plain,
        }
        (RESULTS / "knowledge_questions.json").write_text(json.dumps(facts_found, indent=1))
        (RESULTS / "knowledge_questions.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
