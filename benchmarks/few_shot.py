"""Few-shot: how well a metaprompt classifies, by how many examples are shown, which, and how it is calibrated.

    python benchmarks/few_shot.py [--only CASE,…] [--arms A,…] [--test N]

Cases: banking77-5, banking77-10, banking77-full, hwu64-5, hwu64-10, hwu64-full: that many messages of each intent, or
all, are what examples are chosen from. The base is the starter, SmolLM2-135M-Instruct. 64 messages of the published
valid split are dev, which calibration is fitted to; N messages of the test split, drawn at random with a fixed seed,
are answered by label scoring.

Arms are named SELECT-K, such as nearest-5 or balanced-3, or k-0; with `+cal` calibrated as FewShot does by default.
random-5/1 and random-5/2 are other draws. The floors stand beside: tfidf_linear, nearest, embedding_linear.
Only the likeliest label counts here, so the search for it stops there. A run that was stopped goes on.
Writes benchmarks/results/few_shot.json and .md; works in build/bench/few_shot.
"""

import argparse
import datetime as dt
import json
import sys
import time
from pathlib import Path

from fine_tune_accuracy import CASES as SPLITS
from fine_tune_accuracy import answered, case_of, drawn, technique_of
from machine import machine, sentence
from main_job import SEED, SHARED, even_draw

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "few_shot"
COMMAND = "python benchmarks/few_shot.py"
SPLITS["hwu64-full"] = ("HWU64", "train")
FLOORS = ("tfidf_linear", "nearest", "embedding_linear")
PER_REQUEST = ("nearest-5", "nearest-5+cal", "nearest-3", "nearest-3+cal")
ONE_SET = (
    "k-0", "k-0+cal", "random-3", "random-3+cal", "balanced-3", "balanced-3+cal",
    "random-5", "random-5+cal", "random-5/1", "random-5/2", "balanced-5", "balanced-5+cal",
)  # fmt: skip
OTHERS = ("mmr-5+cal", "hybrid-5+cal", "k_medoids-5+cal", "vote_k-5+cal")
CASES = {
    "banking77-full": (*FLOORS, *PER_REQUEST),
    "hwu64-full": (*FLOORS, *PER_REQUEST),
    "banking77-10": (*FLOORS, *PER_REQUEST, *ONE_SET, *OTHERS),
    "hwu64-10": (*FLOORS, *PER_REQUEST, *ONE_SET),
    "banking77-5": (*FLOORS, *PER_REQUEST),
    "hwu64-5": (*FLOORS, *PER_REQUEST),
}
NUM_DEV = 64
LLAMA = {"banking77-full": ("33.8 ± 3.8 %", "87.6 %"), "hwu64-full": ("34.1 %", "80.8 %")}
"""Llama-2-7B with 5 random examples, and with 5 that BM25 found for each message, as published."""
SOURCES = "Llama-2-7B's figures are those of Bertsch et al. 2024 (arXiv 2405.00200)."


def model_of(arm, data):
    """The model of an arm, and what calibration it took."""
    from tailorbird.models.local import open_local
    from tailorbird.techniques.few_shot import FewShot

    base = open_local("starter")
    if arm in FLOORS:
        return technique_of(arm, {}).apply(base, data), {}
    name, calibrated, _ = arm.partition("+cal")
    name, _, seed = name.partition("/")
    select, _, k = name.partition("-")
    technique = FewShot(
        k=int(k),
        select="balanced" if select == "k" else select,
        calibrate="auto" if calibrated else "none",
        seed=int(seed or 0),
    )
    model = technique.apply(base, data)
    return model, {"calibration": model.rewrite.calibration.to_json() | {"log_weights": None}}


def twin(arm, train):
    """The arm that shows every request the same examples: of many labels the first few at random are balanced, too."""
    from tailorbird.techniques.selection import one_set

    name, calibrated, _ = arm.partition("+cal")
    select, _, k = name.partition("-")
    if select != "random" or "/" in k:
        return arm
    drawn = [[e.id for e in one_set(how, list(train), int(k), 0, None)] for how in ("random", "balanced")]
    return f"balanced-{k}{calibrated}" if drawn[0] == drawn[1] else arm


def run_arm(name, arm, given, tell):
    """Answers the test; what an earlier call did is taken over."""
    from tailorbird.data.task import Data

    task, train, valid, test = case_of(name, given.shared, None)
    if (same := twin(arm, train)) != arm:
        return run_arm(name, same, given, tell) | {"arm": arm, "same_as": same}
    data = Data(task, tuple(train), tuple(even_draw(valid, NUM_DEV, SEED)), ())
    folder = WORK / name / arm.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    test = drawn(test, given.test)
    kept = folder / f"result-{len(test)}.json"
    if kept.is_file():
        return json.loads(kept.read_text("utf-8"))
    began = time.perf_counter()
    model, facts = model_of(arm, data)
    made_s = time.perf_counter() - began
    answers = answered(model, task, test, folder / f"test-{len(test)}.jsonl", tell)
    found = {
        "arm": arm,
        "num_train": len(train),
        "num_test": len(test),
        "right": sum(a["right"] for a in answers),
        "outside": sum(a["said"] not in task.labels for a in answers),
        "ids": [a["id"] for a in answers],
        "rights": "".join("1" if a["right"] else "0" for a in answers),
        "made_s": round(made_s, 1),
        "answer_s": round(sum(a["seconds"] for a in answers), 1),
        **facts,
    }
    kept.write_text(json.dumps(found), "utf-8")
    tell(f"{name} {arm}: {found['right'] / len(test):.1%} of {len(test)}, {found['answer_s']:.0f} s")
    return found


def against(arm, floor):
    """How many of the test messages one has right and the other wrong, and McNemar's exact p."""
    from scipy.stats import binomtest

    pairs = list(zip(arm["rights"], floor["rights"], strict=True))
    more, less = pairs.count(("1", "0")), pairs.count(("0", "1"))
    p = binomtest(more, more + less).pvalue if more + less else 1.0
    return f"+{more} −{less}, p = {p:.2g}"


def as_markdown(records):
    """All cases as tables."""
    from tailorbird.evaluation.statistics import wilson

    lines = ["# Few-shot on published splits", ""]
    for name in [n for n in CASES if n in records]:
        found = records[name]
        arms = {arm["arm"]: arm for arm in found["arms"]}
        lines += [
            f"## {name}: examples from {found['arms'][0]['num_train']:,} messages",
            "",
            f"`{found['command']}`, {found['date']}. {sentence(found['machine'])}",
            "",
            "| arm | accuracy | 95 % interval | beside the floor `nearest` | calibration |",
            "|---|---|---|---|---|",
        ]
        for arm in found["arms"]:
            low, high = wilson(arm["right"], arm["num_test"])
            beside = against(arm, arms["nearest"]) if "nearest" in arms and arm["arm"] not in FLOORS else "–"
            kind = arm.get("calibration", {}).get("kind", "–")
            if "same_as" in arm:
                kind += f" (the same examples as {arm['same_as']})"
            lines.append(
                f"| {arm['arm']} | {arm['right'] / arm['num_test']:.1%} | {low:.1%} to {high:.1%} | {beside} | {kind} |"
            )
        for shown, score in zip(("random", "BM25"), LLAMA.get(name, ()), strict=False):
            lines.append(f"| Llama-2-7B, 5 {shown} examples, published | {score} | – | – | – |")
        asked = sum(arm["num_test"] for arm in found["arms"])
        outside = sum(arm["outside"] for arm in found["arms"])
        lines += ["", f"{asked:,} answers, {outside} of them outside the set of labels.", ""]
    return "\n".join([*lines, SOURCES, ""])


def main():
    parser = argparse.ArgumentParser(description="Accuracy of metaprompts on published splits.")
    parser.add_argument("--only", default=",".join(CASES), help="cases")
    parser.add_argument("--arms", help="all of a case's by default")
    parser.add_argument("--test", type=int, default=500, help="test messages, drawn at random; 0 for all")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    from tailorbird.opening import set_threads

    set_threads()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "few_shot.json"
    for name in given.only.split(","):
        for arm in given.arms.split(",") if given.arms else CASES[name]:
            found = run_arm(name, arm, given, lambda line: print(line, flush=True))
            # Read only now: another call may have written meanwhile.
            records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            others = [a for a in records.get(name, {}).get("arms", []) if a["arm"] != arm]
            ids = " ".join(found.pop("ids"))  # of the same test messages in every arm
            order = {known: n for n, known in enumerate(CASES[name])}
            records[name] = {
                "ids": ids,
                "arms": sorted([*others, found], key=lambda a: order.get(a["arm"], 99)),
                "command": f"{COMMAND} --only {name}"
                + (f" --test {given.test}" if given.test != 500 else ""),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
                "machine": machine(),
            }
            path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
            (given.out / "few_shot.md").write_text(as_markdown(records), "utf-8")


if __name__ == "__main__":
    main()
