"""How well fine-tuning classifies: published few-shot splits, beside published figures and the floors.

    python benchmarks/fine_tune_accuracy.py [--only CASE,…] [--test N] [--arms A,…] [--set KEY=VALUE …]

Cases: banking77-5, banking77-10, banking77-full, hwu64-5, hwu64-10: that many training messages of each
intent, or all of them; `--rows` draws fewer from a full split. The base is the starter, SmolLM2-135M-Instruct.
Dev examples come from the published valid split and fit the exponents of linear_prior; the test split, or N of it
drawn at random with a fixed seed, is answered once, by label scoring (of which only the likeliest label counts
here, so the search for it stops there). A run that was stopped goes on.

Arms: the floors; fine_tune; fine_tune+linear_prior, the same weights together with the classifier of the floor
embedding_linear; few_shot+fine_tune, which learns and answers behind the five nearest examples.

`--set` changes FineTune's settings and `--on valid` answers the valid split instead of test: that is how
settings are explored; what is found so is not written to the results.
Writes benchmarks/results/fine_tune_accuracy.json and .md; works in build/bench/fine_tune_accuracy.
"""

import argparse
import datetime as dt
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from machine import machine, sentence
from main_job import SEED, SHARED, distinct, even_draw, read_intents

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "fine_tune_accuracy"
COMMAND = "python benchmarks/fine_tune_accuracy.py"
CASES = {
    "banking77-5": ("BANKING77", "train_5"),
    "banking77-10": ("BANKING77", "train_10"),
    "banking77-full": ("BANKING77", "train"),
    "hwu64-5": ("HWU64", "train_5"),
    "hwu64-10": ("HWU64", "train_10"),
}
ROBERTA = {"banking77-5": 74.0, "banking77-10": 84.3, "hwu64-5": 75.6, "hwu64-10": 82.9}
"""Accuracy of a fine-tuned RoBERTa on these splits, as published with them (see SOURCES)."""
SOURCES = "RoBERTa's figures on these splits are those of Zhang et al. 2021 (arXiv 2109.06349)."
PRIOR = "fine_tune+linear_prior"
ARMS = ("tfidf_linear", "nearest", "embedding_linear", "fine_tune", PRIOR, "few_shot+fine_tune")
TUNED = ("fine_tune", PRIOR, "few_shot+fine_tune")
SETTINGS = {"batch_size": 16, "learning_rate": 2e-3, "epochs": 10, "max_dev": 0}
"""Found on Banking77's valid split, 10 messages an intent. The last weights are taken, which on 5 messages an intent
did as well as those best on dev (274 and 268 of 400)."""
FEWER = {"banking77-full": {"epochs": 2}}
"""Settings of cases for which ten passes would take hours."""
CHUNK = 64
NUM_DEV = 128


def case_of(name, shared, rows):
    """Task, training, dev and test examples; no message stands in two of them."""
    from tailorbird.data.duplicates import normalise
    from tailorbird.data.task import infer_task

    data_set, split = CASES[name]
    folder = shared / "fewshot_intent_splits" / data_set
    train, valid, test = (distinct(read_intents(folder / part)) for part in (split, "valid", "test"))
    task = infer_task(train)
    if rows and rows < len(train):
        train = even_draw(train, rows, SEED)
    known = {normalise(e.prompt) for e in train}
    test = [e for e in test if normalise(e.prompt) not in known]
    known |= {normalise(e.prompt) for e in test}
    valid = [e for e in valid if normalise(e.prompt) not in known]
    return task, train, valid, test


def drawn(examples, count):
    """So many of them at random, always the same; all of them for 0."""
    order = sorted(examples, key=lambda e: e.id)
    random.Random(SEED).shuffle(order)
    return order[: count or len(order)]


def technique_of(arm, settings):
    from tailorbird.techniques.fine_tune import FineTune
    from tailorbird.techniques.floors import EmbeddingFloor, NearestFloor, TfidfFloor

    floors = {"tfidf_linear": TfidfFloor, "nearest": NearestFloor, "embedding_linear": EmbeddingFloor}
    return floors[arm]() if arm in floors else FineTune(**settings)


def run_arm(name, arm, given, tell):
    """Trains an arm and answers the test; what an earlier call did is taken over."""
    from tailorbird.data.task import Data

    task, train, valid, test = case_of(name, given.shared, given.rows)
    dev = even_draw(valid, NUM_DEV, SEED)
    if given.on == "valid":
        chosen = {e.id for e in dev}
        test = [e for e in valid if e.id not in chosen]
    test = drawn(test, given.test)
    settings = {**SETTINGS, **FEWER.get(name, {}), **given.set}
    said = "".join(f"-{key}-{value}" for key, value in sorted(given.set.items()))
    folder = WORK / f"{name}{f'-{given.rows}' if given.rows else ''}" / f"{arm}{said if arm in TUNED else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    data = Data(task, tuple(train), tuple(dev), ())
    if arm == PRIOR:
        model, train_s, facts = with_prior(settings, data, folder.with_name(f"fine_tune{said}"), tell)
    else:
        model, train_s, facts = trained(arm, settings, data, folder, tell)
    answers = answered(model, task, test, folder / f"{given.on}-{len(test)}.jsonl", tell)
    right = sum(a["right"] for a in answers)
    found = {
        "case": name,
        "arm": arm,
        "settings": settings if arm in TUNED else {},
        "num_train": len(train),
        "num_dev": len(dev),
        "num_test": len(test),
        "right": right,
        "train_s": round(train_s, 1),
        "answer_s": round(sum(a["seconds"] for a in answers), 1),
        **facts,
    }
    tell(
        f"{name} {arm}{said}: {right} of {len(test)} right ({right / len(test):.1%}), trained {train_s:.0f} s"
    )
    return found


def trained(arm, settings, data, folder, tell):
    """The model of an arm, how long it took, and what its training came to."""
    from tailorbird.models.local import open_local
    from tailorbird.models.model import on_weights
    from tailorbird.techniques.few_shot import FewShot

    technique = technique_of(arm, settings)
    base, adapter, notes = open_local("starter"), folder / "adapter", folder / "training.json"
    before = FewShot(k=5, select="nearest") if arm.startswith("few_shot") else None
    if arm not in TUNED:
        began = time.perf_counter()
        return technique.apply(base, data), time.perf_counter() - began, {}
    if notes.is_file():
        kept = json.loads(notes.read_text("utf-8"))
        tuned = base.with_adapter(adapter)
        return before.apply(tuned, data) if before else tuned, kept["seconds"], kept["facts"]
    reports, told = [], [time.monotonic()]

    def on_step(report):
        reports.append(report)
        if report.score is not None or time.monotonic() - told[0] > 30:
            told[0] = time.monotonic()
            tell(f"  step {report.step} of {report.total_steps}: loss {report.loss:.3f}, dev {report.score}")

    technique = replace(technique, checkpoint=folder / "kept", on_step=on_step)
    began = time.perf_counter()
    tuned = technique.apply(before.apply(base, data) if before else base, data)
    seconds = time.perf_counter() - began
    adapter.mkdir(exist_ok=True)
    on_weights(tuned, lambda weights: weights.engine.save_adapter(weights.adapter, adapter) or weights)
    scores = [(r.step, r.score) for r in reports if r.score is not None]
    facts = {"steps": reports[-1].step, "loop_s": round(reports[-1].seconds, 1), "dev_scores": scores}
    notes.write_text(json.dumps({"seconds": seconds, "facts": facts}), "utf-8")
    return tuned, seconds, facts


def with_prior(settings, data, folder, tell):
    """The weights of the arm fine_tune, with a linear prior fitted on dev."""
    from tailorbird.models.model import rewrites_of
    from tailorbird.techniques.linear_prior import LinearPrior

    tuned, train_s, facts = trained("fine_tune", settings, data, folder, tell)
    began = time.perf_counter()
    model = LinearPrior().apply(tuned, data)
    seconds = time.perf_counter() - began
    rewrite = rewrites_of(model)[0]
    return model, train_s + seconds, {**facts, "weight": rewrite.weight, "trust": rewrite.trust}


def answered(model, task, test, path, tell):
    """An answer to every test message, kept as they come."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    with path.open("a", encoding="utf-8") as stream:
        for start in range(len(rows), len(test), CHUNK):
            chunk = test[start : start + CHUNK]
            began = time.perf_counter()
            answers = likeliest(model, [task.ask(e) for e in chunk])
            each = (time.perf_counter() - began) / len(chunk)
            made = [
                {"id": e.id, "said": a.text, "right": a.text == e.completion, "seconds": each}
                for e, a in zip(chunk, answers, strict=True)
            ]
            stream.write("".join(json.dumps(row) + "\n" for row in made))
            stream.flush()
            rows += made
            if (start // CHUNK) % 4 == 3:
                tell(
                    f"  {len(rows)} of {len(test)} answered, {sum(r['right'] for r in rows) / len(rows):.1%} right"
                )
    return rows


def likeliest(model, requests):
    """Answers whose label is exact; their probabilities are not looked at, and so need not be."""
    from tailorbird.models import label_scoring

    before, label_scoring.NEGLIGIBLE = label_scoring.NEGLIGIBLE, 1.0
    try:
        return model.answer(requests)
    finally:
        label_scoring.NEGLIGIBLE = before


def as_markdown(records):
    """All cases as a table."""
    from tailorbird.evaluation.statistics import wilson

    lines = ["# Fine-tuning on published splits", ""]
    for name in [n for n in CASES if n in records]:
        found = records[name]
        lines += [
            f"## {name}: {found['arms'][0]['num_train']:,} training messages, {len(found['arms'])} arms",
            "",
            f"`{found['command']}`, {found['date']}. {sentence(found['machine'])} {found.get('note', '')}".rstrip(),
            "",
            "| arm | accuracy | 95 % interval | test | training | answers a second |",
            "|---|---|---|---|---|---|",
        ]
        for arm in found["arms"]:
            low, high = wilson(arm["right"], arm["num_test"])
            lines.append(
                f"| {arm['arm']} | {arm['right'] / arm['num_test']:.1%} | {low:.1%} to {high:.1%} | "
                f"{arm['num_test']:,} | {arm['train_s']:,.0f} s | {arm['num_test'] / arm['answer_s']:.1f} |"
            )
        if name in ROBERTA:
            lines.append(f"| RoBERTa, published | {ROBERTA[name]} % | – | – | – | – |")
        lines += [
            f"\n{arm['arm']}: {json.dumps(arm['settings'])}, {arm['steps']} steps."
            for arm in found["arms"]
            if arm["arm"] in TUNED
        ]
        lines.append("")
    return "\n".join([*lines, SOURCES, ""])


def setting(text):
    """KEY=VALUE, the value as JSON where it is."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def main():
    parser = argparse.ArgumentParser(description="Accuracy of fine-tuning on published splits.")
    parser.add_argument("--only", default="banking77-5,banking77-10,hwu64-5,hwu64-10", help="cases")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--test", type=int, default=0, help="test messages, drawn at random; 0 for all")
    parser.add_argument("--rows", type=int, default=0, help="training messages, evenly by intent; 0 for all")
    parser.add_argument("--on", choices=("test", "valid"), default="test", help="what is answered")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    given.set = dict(given.set)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "fine_tune_accuracy.json"
    for name in given.only.split(","):
        arms = [
            run_arm(name, arm, given, lambda line: print(line, flush=True)) for arm in given.arms.split(",")
        ]
        if given.on == "valid" or given.set:
            continue  # explored, not measured
        flags = (
            f"{f' --test {given.test}' if given.test else ''}{f' --rows {given.rows}' if given.rows else ''}"
            f"{f' --arms {given.arms}' if given.arms != ','.join(ARMS) else ''}"
        )
        # Read only now: another call may have written meanwhile.
        records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        records[name] = {
            "arms": arms,
            "command": f"{COMMAND} --only {name}{flags}",
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine(),
        }
        path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
        (given.out / "fine_tune_accuracy.md").write_text(as_markdown(records), "utf-8")


if __name__ == "__main__":
    main()
