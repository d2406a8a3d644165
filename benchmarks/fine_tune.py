"""Fine-tuning against its peers: the same model, data, order, learning rate and steps, in one run.

    python benchmarks/fine_tune.py [--only short|metaprompt] [--steps N] [--rounds N] [--contenders a,b] [--trl PYTHON]

short        Banking77's published 10-shot split: one message, one label
metaprompt   the same messages, each behind a metaprompt of 5 fixed examples

Contenders, each in a process of its own, taking turns:

tailorbird            FineTune as it is; its time includes tokenizing and planning
trl_default           SFTTrainer as it comes (bfloat16, gradient checkpointing)
trl_tuned_bf16        without checkpointing, batches of like length
trl_tuned_fp32        the same in float32
llamafactory_default  LLaMA-Factory as it comes (float32 on a CPU, gradient checkpointing)
llamafactory_tuned    without checkpointing, batches of like length
plain                 the loop of a textbook over transformers and PEFT, padded, in float32

`--trl` names a Python that has trl and datasets besides the packages here; without it, an environment is
made in build/bench/trl, as one is for LLaMA-Factory, which wants older packages. Each trained adapter is then
asked, in float32, how likely the right labels of the same held-out messages are (the loss in nats a token; the
losses that contenders report are of different batches), and answers test messages by label scoring.
Writes benchmarks/results/fine_tune.json and .md; works in build/bench/fine_tune.
"""

import argparse
import datetime as dt
import json
import os
import statistics
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from machine import machine, sentence
from main_job import SEED, SHARED, distinct, even_draw, read_intents
from peers import environment, result_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "fine_tune"
CONTENDERS = (
    "tailorbird",
    "trl_default",
    "trl_tuned_bf16",
    "trl_tuned_fp32",
    "llamafactory_default",
    "llamafactory_tuned",
    "plain",
)
HELDOUT, HELDOUT_ROWS = 231, 16
"""Test messages whose labels' loss is taken, and how many at a time."""
SETTINGS = {"batch_size": 16, "learning_rate": 1e-3, "rank": 16}
CASES = {
    "short": {"steps": 96, "about": "Banking77, 10 examples of each of 77 intents"},
    "metaprompt": {"steps": 12, "about": "the same behind a metaprompt of 5 fixed examples"},
}


def environment_with_trl(given):
    """A Python that has TRL; made once, beside the packages of this one."""
    return given or environment("trl")


def python_of(contender, trl):
    """Which Python runs a contender."""
    if contender.startswith("llamafactory"):
        return environment("llamafactory")
    return environment_with_trl(trl) if contender.startswith("trl") else sys.executable


def rows_of(case, shared):
    """The training rows in one fixed shuffled order, as the weights see them; task and test messages."""
    import random

    from tailorbird.data.task import Data, infer_task
    from tailorbird.models.blank import Blank
    from tailorbird.models.model import as_seen_by_weights
    from tailorbird.techniques.few_shot import FewShot

    folder = shared / "fewshot_intent_splits" / "BANKING77"
    train, test = read_intents(folder / "train_10"), distinct(read_intents(folder / "test"))
    task = infer_task(train)
    random.Random(SEED).shuffle(train)
    model = Blank()
    if case == "metaprompt":
        model = FewShot(k=5, select="fixed").apply(model, Data(task, tuple(train)))
    rows = []
    for example in train:
        request = as_seen_by_weights(model, task.ask(example))
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        rows.append({"messages": messages, "completion": example.completion})
    return rows, task, model, test


def train(case, contender, steps, trl, round_number):
    """One contender's training, in a process of its own."""
    from tailorbird.models.gguf_file import converted, starter_file

    folder = WORK / case
    job = {
        **SETTINGS,
        "contender": contender,
        "base": str(converted(starter_file())),
        "rows": str(folder / "rows.jsonl"),
        "steps": steps,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 2),
        "out": str(folder / f"{contender}-{round_number}"),
    }
    path = folder / f"{contender}.json"
    path.write_text(json.dumps(job), "utf-8")
    found = result_of(python_of(contender, trl), "fine_tune_contender.py", path)
    return {**found, "adapter": job["out"]}


@contextmanager
def loaded(adapter):
    """The starter in float32 with an adapter in PEFT's format on it."""
    from tailorbird.models.local import new_adapter_name, open_local

    weights, name = open_local("starter"), new_adapter_name()
    weights.engine.load_adapter(name, Path(adapter))
    yield replace(weights, adapter=name)
    weights.engine.remove_adapter(name)


def heldout_loss(adapter, task, wrapper, examples):
    """The surprise at a token of the right label, in nats, the mean over these examples' label tokens."""
    import torch

    from tailorbird.data.task import Data
    from tailorbird.network.batches import Batch
    from tailorbird.network.loss import completion_loss
    from tailorbird.techniques.through_wrappers import to_sequences

    total = labels = 0.0
    with loaded(adapter) as tuned, tuned.engine.using(tuned.adapter), torch.no_grad():
        sequences = to_sequences(tuned, wrapper, Data(task, (), ()), examples)
        for start in range(0, len(sequences), HELDOUT_ROWS):
            batch = Batch(tuple(sequences[start : start + HELDOUT_ROWS]))
            loss, count = completion_loss(tuned.engine.network, batch)
            total, labels = total + float(loss), labels + count
    return total / labels


def accuracy(adapter, task, wrapper, test):
    """Correct answers of an adapter in PEFT's format, by label scoring, behind the case's metaprompt."""
    from tailorbird.models.model import as_seen_by_weights

    with loaded(adapter) as tuned:
        answers = tuned.answer([as_seen_by_weights(wrapper, task.ask(e)) for e in test])
    return sum(a.text == e.completion for a, e in zip(answers, test, strict=True))


def measure(case, given, tell):
    """All contenders of a case, taking turns."""
    folder = WORK / case
    folder.mkdir(parents=True, exist_ok=True)
    rows, task, wrapper, test = rows_of(case, given.shared)
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8"
    )
    steps = given.steps or CASES[case]["steps"]
    runs = {name: [] for name in given.contenders.split(",")}
    for number in range(given.rounds):
        for name, done in runs.items():
            found = train(case, name, steps, given.trl, number)
            done.append(found)
            size = f"{found['peak_bytes'] / 1e9:.2f} GB"
            tell(f"{case} {name}: {found['seconds']:.1f} s, {size}")
    chosen = even_draw(test, given.test, SEED) if given.test else []
    heldout = even_draw(test, HELDOUT, SEED)
    results = []
    for name, found in runs.items():
        loss = heldout_loss(found[0]["adapter"], task, wrapper, heldout)
        tell(f"{case} {name}: held-out loss {loss:.3f}")
        right = accuracy(found[0]["adapter"], task, wrapper, chosen) if chosen else None
        if chosen:
            tell(f"{case} {name}: {right} of {len(chosen)} right")
        results.append(
            {
                "contender": name,
                "seconds": [round(f["seconds"], 2) for f in found],
                "peak_bytes": max(f["peak_bytes"] for f in found),
                "heldout_loss": round(loss, 4),
                "right": right,
                "packages": found[0]["packages"],
            }
        )
    return {
        "case": case,
        "command": command_line(case, given),
        "about": CASES[case]["about"],
        "steps": steps,
        "num_test": len(chosen),
        "num_heldout": len(heldout),
        **SETTINGS,
        "results": results,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
    }


def command_line(case, given):
    """The command that repeats this case as it ran."""
    flags = [f"--only {case}", f"--rounds {given.rounds}", f"--test {given.test}"]
    if given.steps:
        flags.append(f"--steps {given.steps}")
    if given.contenders != ",".join(CONTENDERS):
        flags.append(f"--contenders {given.contenders}")
    return " ".join(["python benchmarks/fine_tune.py", *flags])


def run_line(found):
    """What was run, in a line."""
    return (
        f"`{found['command']}`, {found['date']}: {found['steps']} steps of "
        f"{found['batch_size']}, LoRA rank {found['rank']} on all linear layers, learning rate "
        f"{found['learning_rate']:g}. {sentence(found['machine'])}"
    )


def as_markdown(records):
    """Every case as a table; times as medians and as multiples of ours."""
    from tailorbird.evaluation.statistics import wilson

    lines = ["# Fine-tuning against its peers", ""]
    for found in sorted(records.values(), key=lambda record: (record["case"] != "short", record["steps"])):
        ours = next(r for r in found["results"] if r["contender"] == "tailorbird")
        base = statistics.median(ours["seconds"])
        lines += [
            f"## {found['case']}, {found['steps']} steps: {found['about']}",
            "",
            run_line(found),
            "",
            "| contender | seconds (each run) | times ours | peak memory | held-out loss | accuracy (95 % interval) |",
            "|---|---|---|---|---|---|",
        ]
        for result in found["results"]:
            seconds = statistics.median(result["seconds"])
            right = "–"
            if result["right"] is not None:
                low, high = wilson(result["right"], found["num_test"])
                right = f"{result['right'] / found['num_test']:.1%} ({low:.1%} to {high:.1%})"
            each = ", ".join(f"{s:.1f}" for s in result["seconds"])
            lines.append(
                f"| {result['contender']} | {each} | {seconds / base:.2f} | {result['peak_bytes'] / 1e9:.2f} GB | "
                f"{result['heldout_loss']:.3f} | {right} |"
            )
        lines.append("")
    lines += [
        f"The held-out loss, in nats a token, is that of {HELDOUT} test messages' labels, in float32.",
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Fine-tuning against its peers.")
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--steps", type=int, help="optimizer steps of every contender")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--test", type=int, default=231, help="test messages that each adapter answers; 0 for none"
    )
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--trl", help="a Python with trl and datasets")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "fine_tune.json"
    records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for case in [given.only] if given.only else CASES:
        key = f"{case}-{given.steps or CASES[case]['steps']}"
        records[key] = measure(case, given, lambda line: print(line, flush=True))
        path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
        (given.out / "fine_tune.md").write_text(as_markdown(records), "utf-8")
    print(f"written to {given.out / 'fine_tune.md'}")


if __name__ == "__main__":
    main()
