"""How closely passages enclose answers: ours beside semantic-text-splitter's and chonkie's, at the same sizes.

    python benchmarks/knowledge_passages.py [--sizes 200,400,800] [--write]

Smith & Troynikov's method (2024): for each of 472 questions over five texts the 5 passages closest in meaning, of
all texts together; recall, precision and IoU of their characters with the answers'. Every splitter's passages are
embedded by the same embedder, bare; ours once more as we index them, with the headings above. Stability: how much
of a text has to be embedded again after a sentence was put at its top, and after one in its middle was changed.
"""

import argparse
import csv
import datetime as dt
import json
import sys
from pathlib import Path

import numpy as np
from machine import machine, sentence
from peers import WORK, environment, result_of
from remembered import Remembered

from tailorbird.data.passages import split_document
from tailorbird.evaluation.passage_overlap import overlap
from tailorbird.evaluation.statistics import paired_interval, score_interval
from tailorbird.records import Document
from tailorbird.sources.passage_rows import embedded_text

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "chunking_eval"
RESULTS = ROOT / "benchmarks" / "results"
OURS, INDEXED = "tailorbird", "tailorbird, as indexed"
FOUND = 5
METRICS = ("recall", "precision", "iou")
INSERTED = "A sentence that was not there before stands here now. "


def questions():
    """Each question, its text's name and its answers' (start, end)."""
    with (DATA / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            places = json.loads(row["references"])
            yield row["question"], row["corpus_id"], [(p["start_index"], p["end_index"]) for p in places]


def spans_of_ours(text, size):
    return [(p.start, p.end) for p in split_document(Document("text", text), max_chars=size)]


def peers_spans(texts, sizes, folder):
    """{size: {splitter: {text: spans}}} of the peers, for texts by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, "utf-8", newline="")
    job = folder / "job.json"
    job.write_text(json.dumps({"texts": [str(folder / f"{n}.md") for n in texts], "sizes": sizes}), "utf-8")
    return result_of(environment("splitters"), "knowledge_passages_contender.py", job)


def scores_of(vectors, spans, asked, question_vectors):
    """Recall, precision and IoU of every question [Q, 3]; `spans` name the text of each passage."""
    similarity = question_vectors @ vectors.T
    rows = []
    for (_, text, answers), row in zip(asked, similarity, strict=True):
        best = np.argsort(-row, kind="stable")[:FOUND]
        found = overlap([spans[i] for i in best], [(text, *place) for place in answers])
        rows.append([found.recall, found.precision, found.iou])
    return np.array(rows)


def changed_texts(texts):
    """Each text with a sentence at its top, and each with a word more in a sentence of its middle."""
    on_top = {f"{name}-top": INSERTED + text for name, text in texts.items()}
    middle = {}
    for name, text in texts.items():
        at = text.index(". ", len(text) // 2)
        middle[f"{name}-middle"] = f"{text[:at]} indeed{text[at:]}"
    return on_top, middle


def embedded_again(before, after):
    """Share of the passages afterwards that are new."""
    return sum(text not in before for text in after) / len(after)


def measure(sizes, memory):
    texts = {
        f.stem: f.read_bytes().decode("utf-8") for f in sorted(DATA.glob("*.md")) if f.name != "SOURCE.md"
    }
    on_top, middle = changed_texts(texts)
    every = {**texts, **on_top, **middle}
    asked = list(questions())
    question_vectors = memory.embed([question for question, _, _ in asked])
    cut = peers_spans(every, sizes, WORK / "splitters" / "texts")
    rows = []
    for size in sizes:
        splitters = {
            OURS: {name: spans_of_ours(text, size) for name, text in every.items()},
            **cut[str(size)],
        }
        reference = None
        for name, spans in [*splitters.items(), (INDEXED, None)]:
            if spans is None:
                passages = [
                    p for n, t in texts.items() for p in split_document(Document(n, t), max_chars=size)
                ]
                places = [(p.document, p.start, p.end) for p in passages]
                pieces = [embedded_text(p) for p in passages]
            else:
                places = [(text, start, end) for text in texts for start, end in spans[text]]
                pieces = [texts[text][start:end] for text, start, end in places]
            scores = scores_of(memory.embed(pieces), places, asked, question_vectors)
            reference = scores if reference is None else reference
            row = {"size": size, "splitter": name, "passages": len(places)}
            row["longest"] = max(end - start for _, start, end in places)
            row["characters"] = round(float(np.mean([end - start for _, start, end in places])), 1)
            for i, metric in enumerate(METRICS):
                found = score_interval(scores[:, i])
                row[metric] = [round(100 * v, 2) for v in (found.mean, found.low, found.high)]
                beside = paired_interval(scores[:, i], reference[:, i])
                row[f"{metric}_beside"] = [round(100 * v, 2) for v in (beside.mean, beside.low, beside.high)]
            if spans is not None:
                row |= stability(every, spans, texts)
            rows.append(row)
            print(json.dumps(row), flush=True)
            memory.save()
    return rows


def stability(every, spans, texts):
    pieces = {name: [every[name][start:end] for start, end in spans[name]] for name in every}
    shares = {
        kind: float(np.mean([embedded_again(set(pieces[n]), pieces[f"{n}-{kind}"]) for n in texts]))
        for kind in ("top", "middle")
    }
    return {f"again_{kind}": round(100 * share, 2) for kind, share in shares.items()}


def report(rows, facts, command):
    today = dt.datetime.now(tz=dt.UTC).date()
    lines = [
        "# Passages and answers",
        "",
        f"`{command}`, {today}. {sentence(facts)}",
        "",
        (
            "472 questions over five texts with the exact places of their answers (chunking_eval). Per cent with 95 % "
            "intervals; the difference to ours at the same size, by pairs, is in brackets where it excludes 0. Again: "
            "the share of a text's passages to embed anew after a sentence at its top, and after a word in its middle."
        ),
        "",
        "| size | splitter | passages | mean, longest | recall | precision | IoU | again: top | again: middle |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        again = [
            f"{row[f'again_{k}']:.1f} %" if f"again_{k}" in row else "as ours" for k in ("top", "middle")
        ]
        lengths = f"{row['characters']:.0f}, {row['longest']:,}"
        cells = [f"{row['size']}", row["splitter"], f"{row['passages']:,}", lengths]
        for metric in METRICS:
            mean, low, high = row[metric]
            difference, least, most = row[f"{metric}_beside"]
            telling = f" [{difference:+.1f}]" if least > 0 or most < 0 else ""
            cells.append(f"{mean:.1f} ({low:.1f} to {high:.1f}){telling}")
        lines.append("| " + " | ".join([*cells, *again]) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="200,400,800")
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/results")
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA}: not found. This benchmark reads the five texts of chunking_eval there.")
    rows = measure([int(size) for size in given.sizes.split(",")], Remembered())
    facts = machine()
    text = report(rows, facts, "python benchmarks/knowledge_passages.py --write")
    print(text)
    if given.write:
        (RESULTS / "knowledge_passages.json").write_text(
            json.dumps({"machine": facts, "rows": rows}, indent=1)
        )
        (RESULTS / "knowledge_passages.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
