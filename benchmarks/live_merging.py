"""How passages of several sources are put in one order: by turns, by similarity, or by both.

    python benchmarks/live_merging.py [--every N]

The sample's handbook is dealt out, file by file, to two indexes that stand for two sources; one index of all files is
what merging can reach at best. Every N-th of the sample's questions that name their document is asked of both, either
of them being the first. Measured is how often the document is among the first 1, 3 and 5 passages, with Wilson's 95 %
interval. Writes benchmarks/results/live_merging.json and .md; works in build/bench/live_merging.
"""

import argparse
import datetime as dt
import json
import shutil
from pathlib import Path

from machine import machine, sentence

from tailorbird.data.formats import read_examples
from tailorbird.evaluation.statistics import wilson
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.folder import Folder
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.merged import fused

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "live_merging"
HANDBOOK = ROOT / "sample" / "handbook"
KS = (1, 3, 5)
NAMES = {
    "turns": "reciprocal rank of the sources' own rankings",
    "both": "that and the rank by similarity (what `Merged` does)",
    "similarity": "similarity alone",
    "one index": "one index of all files",
}


def index_of(name, folder):
    index = KnowledgeIndex(WORK / f"{name}.db", default_embedder(), max_chars=600)
    index.sync(Folder(folder))
    return index


def dealt_out():
    """The handbook's files, by turns in two folders."""
    for number, path in enumerate(sorted(p for p in HANDBOOK.rglob("*") if p.is_file())):
        place = WORK / f"part{number % 2}" / path.relative_to(HANDBOOK)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def by_turns(rankings, k):
    places = [[(number, rank) for rank in range(len(found))] for number, found in enumerate(rankings)]
    return [rankings[number][rank] for (number, rank), _ in reciprocal_rank_fusion(places)[:k]]


def by_similarity(rankings, k):
    return sorted((p for found in rankings for p in found), key=lambda p: -p.score)[:k]


def measured(examples):
    whole, parts = index_of("whole", HANDBOOK), [index_of(n, WORK / n) for n in ("part0", "part1")]
    hits = {name: dict.fromkeys(KS, 0) for name in NAMES}
    for number, example in enumerate(examples):
        sources = parts if number % 2 else parts[::-1]
        for k in KS:
            rankings = [source.search(example.prompt, k) for source in sources]
            found = {
                "turns": by_turns(rankings, k),
                "both": fused(rankings, k),
                "similarity": by_similarity(rankings, k),
                "one index": whole.search(example.prompt, k),
            }
            for name, passages in found.items():
                hits[name][k] += any(p.document == example.document for p in passages)
    return hits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="ask every N-th question (default: all)")
    every = parser.parse_args().every
    shutil.rmtree(WORK, ignore_errors=True)
    dealt_out()
    examples = [e for e in read_examples(ROOT / "sample" / "questions.jsonl") if e.document][::every]
    hits = measured(examples)
    facts = machine()
    result = {
        "command": f"python benchmarks/live_merging.py --every {every}",
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "machine": facts,
        "questions": len(examples),
        "hits": {name: {str(k): n for k, n in found.items()} for name, found in hits.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "live_merging.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "live_merging.md").write_text(page(result))
    print(page(result))


def page(result):
    total = result["questions"]
    lines = [
        "# Passages of two sources in one order",
        "",
        f"`{result['command']}`, {result['date']}, {sentence(result['machine'])}",
        "",
        f"The sample's handbook dealt out to two indexes, {total} of its questions, either index the first. Share of",
        "questions whose document is among the first passages, in %, with 95 % intervals.",
        "",
        "| order | first 1 | first 3 | first 5 |",
        "|---|---|---|---|",
    ]
    for name, words in NAMES.items():
        cells = []
        for k in KS:
            count = result["hits"][name][str(k)]
            low, high = wilson(count, total)
            cells.append(f"{100 * count / total:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
