"""Answers from documents: base, knowledge, fine_tune and both, with and without distractors, and when to refuse.

    python benchmarks/knowledge_answers.py [--only CASE,…] [--arms A,…] [--test N] [--train N]

Cases: xquad (XQuAD's English part) and squadshifts (SquadShifts, new Wikipedia). Their paragraphs are the documents,
but for one in five, which is left out: the right answer to its questions is that the documents don't tell. Questions
are split by article, so no arm has seen a document's questions before. The base is the starter, SmolLM2-135M-Instruct.

Arms: base; knowledge; fine_tune; fine_tune,knowledge, which learns from the bare questions and looks things up
afterwards; knowledge,fine_tune, which learns through the passages; the same with other shares of examples that are
also shown without their answer (`missing`); and without what RAFT adds (`plain`): there the passages of training are
those that the search found, whether or not they hold the answer.

Writes benchmarks/results/knowledge_answers.json and .md; works in build/bench/knowledge_answers, where a run that
was stopped goes on: remove that folder to measure changed code. A refusal is one by either gate or by the model itself.
"""

import argparse
import datetime as dt
import json
import random
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from machine import machine, sentence
from main_job import SHARED

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "knowledge_answers"
COMMAND = "python benchmarks/knowledge_answers.py"
CASES = {"xquad": "xquad_en/xquad.en.json", "squadshifts": "squadshifts/new_wiki_v1.0.json"}
KNOWN, BOTH, PLAIN = "knowledge", "knowledge,fine_tune", "knowledge,fine_tune (plain)"
MISSING = {
    BOTH: None,
    "knowledge,fine_tune (missing 0)": 0.0,
    "knowledge,fine_tune (missing 0.2)": 0.2,
    PLAIN: 0.0,
}
"""The arms that learn through the passages, and the share of examples that they see without their answer."""
ARMS = ("base", KNOWN, "fine_tune", "fine_tune,knowledge", *MISSING)
LEFT_OUT = 5
"""One paragraph in so many is no document."""
SEED = 13
KNOWLEDGE = {"k": 2, "max_chars": 600}
TUNING = {"epochs": 2, "batch_size": 8, "max_dev": 32}
CHUNK = 16
HEADER = (
    "| arm | F1 | exact match | F1, answerable | recall@5 | refused | citations of the right document | "
    "AUROC: similarity, gate 1, gate 2 | s an answer |"
)
NUM_DEV = 64


def read_questions(path):
    """Articles, each a list of (paragraph's name, text, [(question, answers)])."""
    articles = []
    for article, entry in enumerate(json.loads(path.read_text("utf-8"))["data"]):
        found = []
        for number, paragraph in enumerate(entry["paragraphs"]):
            asked = [(qa["question"], [a["text"] for a in qa["answers"]]) for qa in paragraph["qas"]]
            found.append((f"{article:02d}-{number:02d}.txt", paragraph["context"], asked))
        articles.append(found)
    return articles


def case_of(name, given):
    """The data and, by example id, all answers that count as right."""
    from tailorbird.data.task import Data, Task
    from tailorbird.records import NOT_IN_DOCUMENTS, Example

    articles = read_questions(given.shared / CASES[name])
    folder = WORK / name / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    dice, parts, answers = random.Random(SEED), [[], [], []], {}
    dice.shuffle(articles)
    counted = 0
    for number, article in enumerate(articles):
        part = parts[0 if number % 2 == 0 else 1 if number % 8 == 1 else 2]
        for document, text, asked in article:
            counted += 1
            absent = counted % LEFT_OUT == 0
            if not absent:
                (folder / document).write_text(text, "utf-8")
            for question, right in asked:
                completion = NOT_IN_DOCUMENTS if absent else right[0]
                example = Example.pair(question, completion, document=None if absent else document)
                answers[example.id] = [completion] if absent else right
                part.append(example)
    train, dev, test = (random.Random(SEED).sample(part, len(part)) for part in parts)
    task = Task("answer", "Answer the question briefly.", max_tokens=24)
    data = Data(task, tuple(train[: given.train]), tuple(dev[:NUM_DEV]), tuple(test[: given.test]), folder)
    return data, answers


def made(arm, data, folder, tell):
    """The model of an arm and the seconds it took to make."""
    from tailorbird.models.local import open_local
    from tailorbird.models.model import fitted, on_weights, unfitted
    from tailorbird.techniques.fine_tune import FineTune
    from tailorbird.techniques.knowledge import Knowledge

    base, notes, adapter = open_local("starter"), folder / "training.json", folder / "adapter"
    knowledge = Knowledge(**KNOWLEDGE, missing=MISSING.get(arm))
    began = time.perf_counter()
    if "fine_tune" not in arm:
        return (knowledge.apply(base, data) if arm == KNOWN else base), time.perf_counter() - began
    before = knowledge.apply(base, replace(data, dev=())) if arm in MISSING else base
    if arm == PLAIN:
        before = replace(before, rewrite=Unhelped(before.rewrite))
    if notes.is_file():
        tuned = on_weights(before, lambda weights: weights.with_adapter(adapter))
        seconds = json.loads(notes.read_text("utf-8"))["seconds"]
    else:
        tune = FineTune(**TUNING, checkpoint=folder / "kept", on_step=lambda r: told_step(r, tell))
        tuned = tune.apply(unfitted(before), data)
        adapter.mkdir(exist_ok=True)
        on_weights(tuned, lambda w: w.engine.save_adapter(w.adapter, adapter) or w)
        seconds = time.perf_counter() - began
        notes.write_text(json.dumps({"seconds": seconds}), "utf-8")
    if arm == PLAIN:
        tuned = replace(tuned, rewrite=tuned.rewrite.lookup)
    if arm == "fine_tune,knowledge":
        return knowledge.apply(tuned, data), seconds
    return fitted(tuned, data), seconds


class Unhelped:
    """The same rewrite, which shows training what it would ask."""

    kind = "knowledge"

    def __init__(self, lookup):
        self.lookup = lookup

    def __call__(self, request):
        return self.lookup(request)

    def save(self, folder):
        return self.lookup.save(folder)


def told_step(report, tell):
    if report.step % 10 == 0 or report.score is not None:
        tell(f"  step {report.step} of {report.total_steps}: loss {report.loss:.3f}, dev {report.score}")


def answered(model, data, answers, path, tell):
    """Each test question's answer with its scores, kept as they come."""
    from tailorbird.evaluation.metrics import answered_right, exact_match
    from tailorbird.models.model import rewrites_of

    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    lookup = next(iter(rewrites_of(model)), None)
    with path.open("a", encoding="utf-8") as stream:
        for start in range(len(rows), len(data.test), CHUNK):
            chunk = data.test[start : start + CHUNK]
            began = time.perf_counter()
            given = model.answer([data.task.ask(e) for e in chunk])
            each = (time.perf_counter() - began) / len(chunk)
            for example, answer in zip(chunk, given, strict=True):
                right = [replace(example, completion=text) for text in answers[example.id]]
                found = lookup.found(data.task.ask(example), 50) if lookup else []
                documents = list(dict.fromkeys(p.document for p in found))[:5]
                row = {
                    "id": example.id,
                    "said": answer.text,
                    "withheld": answer.withheld,
                    "absent": example.document is None,
                    "f1": max(answered_right(e, answer) for e in right),
                    "exact": max(exact_match(e, answer) for e in right),
                    "found": example.document in documents,
                    "cited": [c.document == example.document for c in answer.citations],
                    "document": example.document or f"absent {example.id}",
                    "chances": chances(lookup, data.task.ask(example), answer),
                    "seconds": each,
                }
                stream.write(json.dumps(row) + "\n")
                rows.append(row)
            stream.flush()
    shown = summary(rows)
    tell(f"  f1 {shown['f1'].mean:.3f}, exact {shown['exact'].mean:.3f}, refused {shown['refused']}")
    return rows


def chances(lookup, request, answer):
    """What each gate thought: the similarity of the best passage, the first gate's chance, the second one's."""
    from tailorbird.data.citing import support_for
    from tailorbird.sources.relevance import NEIGHBOURS, relevance_figures
    from tailorbird.techniques.grounding import ground_figures

    if lookup is None:
        return None
    found = lookup.found(request, NEIGHBOURS)
    figures = relevance_figures(request.question, found, lookup.k)
    said = answer if answer.withheld is None else replace(answer, text=answer.withheld)
    support = support_for(said)
    return [
        figures[0],
        lookup.relevance.chance(figures) if lookup.relevance else None,
        lookup.ground.chance(ground_figures(said, support)) if lookup.ground and support else None,
    ]


def summary(rows):
    """Means with intervals, how often what was refused, and how well each gate tells."""
    from tailorbird.evaluation.statistics import score_interval

    groups = [row["document"] for row in rows]
    there, absent = ([r for r in rows if r["absent"] is kind] for kind in (False, True))
    cited = [hit for row in there for hit in row["cited"]]
    refused = [r["said"].startswith("Not in the documents") for r in there]
    rightly = [r["said"].startswith("Not in the documents") for r in absent]
    return {
        "f1": score_interval([r["f1"] for r in rows], groups=groups),
        "exact": score_interval([r["exact"] for r in rows], groups=groups),
        "f1_there": score_interval([r["f1"] for r in there], groups=[r["document"] for r in there]),
        "recall@5": sum(r["found"] for r in there) / max(1, len(there)),
        "refused": f"{sum(refused)} of {len(refused)} answerable, {sum(rightly)} of {len(rightly)} others",
        "citations_right": f"{sum(cited)} of {len(cited)}",
        "auroc": [auroc(there, absent, gate) for gate in range(3)],
        "seconds": sum(r["seconds"] for r in rows) / len(rows),
    }


def auroc(there, absent, gate):
    """How often an answerable question has the higher chance, of those that came to this gate."""
    of = lambda rows: [r["chances"][gate] for r in rows if r["chances"] and r["chances"][gate] is not None]  # noqa: E731
    high, low = of(there), of(absent)
    if not high or not low:
        return None
    return sum((a > b) + 0.5 * (a == b) for a in high for b in low) / (len(high) * len(low))


def run_case(name, given, tell):
    data, answers = case_of(name, given)
    arms = {}
    for arm in given.arms.split(";"):
        tell(f"{name} {arm}: {len(data.train)} to learn from, {len(data.test)} asked")
        folder = WORK / name / f"{given.train}" / arm.replace(",", "+").replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        model, train_s = made(arm, data, folder, tell)
        rows = answered(model, data, answers, folder / f"test-{len(data.test)}.jsonl", tell)
        found = summary(rows)
        intervals = {key: asdict(found[key]) for key in ("f1", "exact", "f1_there")}
        arms[arm] = {**found, **intervals, "train_s": round(train_s, 1), "num_test": len(rows)}
        arms[arm]["scores"] = [row["f1"] for row in rows]
        arms[arm]["groups"] = [row["document"] for row in rows]
    return {"arms": arms, "num_train": len(data.train), "documents": len(list(data.documents.iterdir()))}


def as_markdown(records):
    """All cases as tables."""
    lines = ["# Answers from documents", ""]
    for name, case in records.items():
        lines += [
            f"## {name}: {case['documents']:,} documents, {case['num_train']:,} questions to learn from",
            "",
            f"`{case['command']}`, {case['date']}. {sentence(case['machine'])}",
            "",
            "F1 and exact match count refusals: right where a fifth of the paragraphs was left out, wrong elsewhere.",
            "",
            HEADER,
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for arm, found in case["arms"].items():
            means = [f"{found[key]['mean']:.1%}" for key in ("f1", "exact", "f1_there")]
            low, high = found["f1"]["low"], found["f1"]["high"]
            gates = ", ".join("–" if a is None else f"{a:.3f}" for a in found["auroc"])
            recall = f"{found['recall@5']:.1%}" if found["recall@5"] else "–"
            lines.append(
                f"| {arm} | {means[0]} ({low:.1%} to {high:.1%}) | {means[1]} | {means[2]} | {recall} | "
                f"{found['refused']} | {found['citations_right']} | {gates} | {found['seconds']:.2f} |"
            )
        lines += ["", *paired(case["arms"]), *([f"\n{case['note']}"] if "note" in case else []), ""]
    return "\n".join(lines)


def paired(arms):
    """Whether learning through the passages beats the naive order, and whether RAFT's part does."""
    from tailorbird.evaluation.statistics import paired_interval, paired_p_value

    found = []
    for other in ("fine_tune,knowledge", PLAIN, KNOWN):
        if BOTH in arms and other in arms:
            a, b, groups = arms[BOTH]["scores"], arms[other]["scores"], arms[BOTH]["groups"]
            gap = paired_interval(a, b, groups=groups)
            found.append(
                f"{BOTH} minus {other}: {100 * gap.mean:+.1f} points of F1 ({100 * gap.low:+.1f} to "
                f"{100 * gap.high:+.1f}), p = {paired_p_value(a, b, groups=groups):.4f}."
            )
    return found


def main():
    parser = argparse.ArgumentParser(description="Answers from documents, with and without training.")
    parser.add_argument("--only", default="xquad,squadshifts", help="cases")
    parser.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "knowledge_answers.json"
    for name in given.only.split(","):
        found = run_case(name, given, lambda line: print(line, flush=True))
        records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        arms = f" --arms '{given.arms}'" if given.arms != ";".join(ARMS) else ""
        records[name] = {
            **found,
            "command": f"{COMMAND} --only {name} --test {given.test} --train {given.train}{arms}",
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine(),
        }
        path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
        (given.out / "knowledge_answers.md").write_text(as_markdown(records), "utf-8")


if __name__ == "__main__":
    main()
