"""Learning preferences (DPO) beside TRL: the same model, pairs, order, start, rates and steps, in one run.

    python benchmarks/preference.py [--only parity|starter] [--pairs N] [--epochs N] [--contenders a,b] [--trl PYTHON]

parity    a tiny random model in float32: loss and gradient norm of every step, margins on held-out pairs
starter   SmolLM2-135M and pairs from Banking77: a message, its label, another label

Contenders, each in a process of its own:

tailorbird             FineTune(objective="dpo"); its time includes tokenizing, planning and the reference
trl_default            DPOTrainer as it comes (bfloat16, gradient checkpointing)
trl_bf16               without checkpointing
trl_bf16_precomputed   and with the reference computed before
trl_fp32               without checkpointing, in float32
trl_fp32_precomputed   and with the reference computed before

TRL gets our token ids, fresh layers and learning rates, in the order of our training; its time includes
making the trainer, which is where it computes references. `--trl` names a Python that has trl and datasets
besides the packages here; without it, an environment is made in build/bench/trl. Every trained adapter then
judges the same held-out pairs. Writes benchmarks/results/preference.json and .md; works in
build/bench/preference.
"""

import argparse
import datetime as dt
import json
import os
import random
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from fine_tune import environment_with_trl
from machine import machine, sentence
from main_job import SEED, SHARED, distinct, even_draw, read_intents
from peers import result_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "preference"
CONTENDERS = (
    "tailorbird",
    "trl_default",
    "trl_bf16",
    "trl_bf16_precomputed",
    "trl_fp32",
    "trl_fp32_precomputed",
)
SETTINGS = {"batch_size": 8, "learning_rate": 1e-4, "rank": 16, "beta": 0.1}
CASES = {
    "parity": {
        "about": "a tiny random model, float32 (its times are fixed costs)",
        "contenders": ("tailorbird", "trl_fp32", "trl_fp32_precomputed"),
        "settings": {**SETTINGS, "learning_rate": 5e-3, "rank": 4},
        "precision": "float32",
    },
    "starter": {
        "about": "SmolLM2-135M, Banking77: a message, its label, another label",
        "contenders": CONTENDERS,
        "settings": SETTINGS,
        "precision": "auto",
    },
}


# -- pairs ----------------------------------------------------------------------------------------


def with_rejected(examples, labels, seed):
    """Each example with another label as the answer that should not come."""
    dice = random.Random(seed)
    return [
        replace(e, rejected=dice.choice([label for label in labels if label != e.completion]), id="")
        for e in examples
    ]


def tiny_case():
    """A tiny model, its training and its held-out pairs."""
    from tailorbird.testing.tiny import tiny_data, tiny_model

    data = tiny_data()
    train = with_rejected(data.train, data.task.labels, SEED)
    held_out = with_rejected([*data.dev, *data.test], data.task.labels, SEED + 1)
    folder = WORK / "parity" / "base"
    tiny_model().engine.save(folder)
    return str(folder), data.task, train, held_out


def starter_case(shared, num_pairs):
    """The starter, pairs of Banking77's published 10-shot split, and as many of its test split."""
    from tailorbird.data.task import infer_task
    from tailorbird.models.gguf_file import converted, starter_file

    folder = shared / "fewshot_intent_splits" / "BANKING77"
    train, test = read_intents(folder / "train_10"), distinct(read_intents(folder / "test"))
    task = infer_task(train)
    chosen = even_draw(train, num_pairs, SEED), even_draw(test, num_pairs, SEED)
    found = [with_rejected(part, task.labels, SEED + n) for n, part in enumerate(chosen)]
    return str(converted(starter_file())), task, *found


def rows_in_order(weights, task, examples, epochs, batch_size):
    """The pairs as token ids, in the order in which our loop learns from them."""
    from tailorbird.data.task import Data
    from tailorbird.network.batches import plan_epoch
    from tailorbird.techniques.through_wrappers import to_preferences

    pairs = to_preferences(weights, weights, Data(task, tuple(examples)), examples)
    lengths = list(map(len, pairs))
    order = [
        n for e in range(epochs) for step in plan_epoch(lengths, batch_size, seed=SEED, epoch=e) for n in step
    ]
    return [
        {
            "prompt_ids": list(pairs[n].preferred.prompt),
            "chosen_ids": list(pairs[n].preferred.completion),
            "rejected_ids": list(pairs[n].rejected.completion),
        }
        for n in order
    ]


def save_start(weights, task, examples, settings, folder):
    """The fresh layers that every contender starts from."""
    from tailorbird.data.task import Data
    from tailorbird.techniques.fine_tune import FineTune

    technique = FineTune(objective="dpo", rank=settings["rank"], on_estimate=lambda _: False)
    untrained = technique.apply(weights, Data(task, tuple(examples)))
    folder.mkdir(parents=True, exist_ok=True)
    weights.engine.save_adapter(untrained.adapter, folder)
    weights.engine.remove_adapter(untrained.adapter)


# -- contenders -----------------------------------------------------------------------------------


def train(job, contender, python):
    """One contender's training, in a process of its own."""
    folder = Path(job["folder"])
    path = folder / f"{contender}.json"
    path.write_text(json.dumps({**job, "contender": contender, "out": str(folder / contender)}), "utf-8")
    runner = python if contender.startswith("trl") else sys.executable
    before = Cpu()
    found = result_of(runner, "preference_contender.py", path)
    return {**found, "others_cores": before.others_since()}


class Cpu:
    """Processor time from now on: what the whole machine spends, and what our child processes do."""

    def __init__(self):
        self.at, self.busy_s, self.own_s = time.perf_counter(), self._busy_s(), self._own_s()

    def others_since(self):
        """Cores that others kept busy on average since; None where the system doesn't tell."""
        busy_s = self._busy_s()
        if self.busy_s is None or busy_s is None:
            return None
        others_s = busy_s - self.busy_s - (self._own_s() - self.own_s)
        return max(0.0, others_s / (time.perf_counter() - self.at))

    @staticmethod
    def _busy_s():
        try:
            user, nice, system = map(int, Path("/proc/stat").read_text("utf-8").split()[1:4])
        except (OSError, ValueError):
            return None
        return (user + nice + system) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def _own_s():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def gaps(weights, task, examples):
    """log π(preferred) - log π(rejected) of every pair."""
    import torch

    from tailorbird.data.task import Data
    from tailorbird.network.settings import TrainSettings
    from tailorbird.network.untrained import referenced
    from tailorbird.techniques.through_wrappers import to_preferences

    engine = weights.engine
    pairs = to_preferences(weights, weights, Data(task, tuple(examples)), examples)
    with engine.using(weights.adapter):
        found = referenced(engine.network, pairs, TrainSettings(beta=1.0), torch.device(engine.device))
    return [pair.reference for pair in found]


def judged(base, adapter, task, held_out, beta):
    """Reward accuracy and mean margin on held-out pairs, and in how many the right answer is likelier."""
    from tailorbird.models.local import open_local

    weights = open_local(base)
    tuned = weights.with_adapter(Path(adapter))
    before, after = gaps(weights, task, held_out), gaps(tuned, task, held_out)
    weights.engine.remove_adapter(tuned.adapter)
    margins = [beta * (now - was) for now, was in zip(after, before, strict=True)]
    return {
        "reward_accuracy": sum(m > 0 for m in margins) / len(margins),
        "margin": sum(margins) / len(margins),
        "margins": margins,
        "likelier_before": sum(g > 0 for g in before) / len(before),
        "likelier": sum(g > 0 for g in after) / len(after),
    }


def measure(case, given, python, tell):
    """All contenders of a case, one after another."""
    from tailorbird.models.local import open_local

    facts, settings = CASES[case], CASES[case]["settings"]
    folder = WORK / case
    folder.mkdir(parents=True, exist_ok=True)
    epochs = given.epochs
    base, task, train_pairs, held_out = (
        tiny_case() if case == "parity" else starter_case(given.shared, given.pairs)
    )
    weights = open_local(base)
    rows = rows_in_order(weights, task, train_pairs, epochs, settings["batch_size"])
    save_start(weights, task, train_pairs, settings, folder / "start")
    examples = [
        {
            "messages": [{"role": m.role, "content": m.content} for m in e.messages],
            "completion": e.completion,
            "rejected": e.rejected,
        }
        for e in train_pairs
    ]
    task_facts = {
        "kind": task.kind,
        "instruction": task.instruction,
        "labels": list(task.labels),
        "max_tokens": task.max_tokens,
    }
    job = {
        **settings,
        "folder": str(folder),
        "base": base,
        "task": task_facts,
        "examples": examples,
        "rows": rows,
        "epochs": epochs,
        "precision": facts["precision"],
        "start": str(folder / "start"),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 2),
    }
    results = []
    for name in [n for n in facts["contenders"] if n in given.contenders.split(",")]:
        found = train(job, name, python)
        found |= judged(base, folder / name, task, held_out, settings["beta"])
        results.append(found)
        tell(
            f"{case} {name}: {found['seconds']:.1f} s, {found['peak_bytes'] / 1e9:.2f} GB, "
            f"loss {found['losses'][0]:.4f} to {found['losses'][-1]:.4f}, "
            f"held out {found['reward_accuracy']:.1%}, margin {found['margin']:.4f}"
        )
    return {
        "case": case,
        "command": command_line(case, given),
        "about": facts["about"],
        "num_pairs": len(train_pairs),
        "num_held_out": len(held_out),
        "epochs": epochs,
        **settings,
        "results": results,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
    }


def command_line(case, given):
    """The command that repeats this case as it ran."""
    flags = [f"--only {case}", f"--epochs {given.epochs}"]
    if case == "starter":
        flags.append(f"--pairs {given.pairs}")
    if given.contenders != ",".join(CONTENDERS):
        flags.append(f"--contenders {given.contenders}")
    return " ".join(["python benchmarks/preference.py", *flags])


# -- results --------------------------------------------------------------------------------------


def differences(ours, theirs):
    """The largest differences of two runs: loss, gradient norm (relative), margins on held-out pairs."""
    norms = zip(ours["gradient_norms"], theirs["gradient_norms"], strict=True)
    return {
        "loss": max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True)),
        "gradient_norm": max(abs(a - b) / b for a, b in norms),
        "margin": max(abs(a - b) for a, b in zip(ours["margins"], theirs["margins"], strict=True)),
    }


def run_line(found):
    """What was run, in a line."""
    trl = next((r["packages"]["trl"] for r in found["results"] if "trl" in r["packages"]), "–")
    return (
        f"`{found['command']}`, {found['date']}: {found['num_pairs']} pairs, {found['epochs']} times, in steps of "
        f"{found['batch_size']}; {found['num_held_out']} held out; LoRA rank {found['rank']} on all linear layers, "
        f"learning rate {found['learning_rate']:g}, beta {found['beta']:g}; trl {trl}. {sentence(found['machine'])}"
    )


def others(result):
    """How many cores others kept busy meanwhile."""
    cores = result.get("others_cores")
    return "–" if cores is None else f"{cores:.2f}"


def as_markdown(records):
    """Every case as a table, and how far each contender is from ours."""
    lines = ["# Learning preferences beside TRL", ""]
    for found in records.values():
        ours = next(r for r in found["results"] if r["contender"] == "tailorbird")
        lines += [
            f"## {found['case']}: {found['about']}",
            "",
            run_line(found),
            "",
            "| contender | seconds | times ours | cores others used | memory | reward accuracy | margin | likelier |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['contender']} | {r['seconds']:.1f} | {r['seconds'] / ours['seconds']:.2f} | {others(r)} | "
            f"{r['peak_bytes'] / 1e9:.2f} GB | {r['reward_accuracy']:.1%} | {r['margin']:.4f} | "
            f"{r['likelier_before']:.1%} before, {r['likelier']:.1%} after |"
            for r in found["results"]
        ]
        rest = [r for r in found["results"] if r is not ours]
        lines += [
            "",
            "Held-out pairs: the share with a margin above 0, the mean margin, and where the right answer is likelier.",
            "",
            "Largest difference from ours:",
            "",
            "| contender | loss of a step | gradient norm of a step, relative | margin of a held-out pair |",
            "|---|---|---|---|",
        ]
        for r in rest:
            d = differences(ours, r)
            lines.append(
                f"| {r['contender']} | {d['loss']:.1e} | {d['gradient_norm']:.1e} | {d['margin']:.1e} |"
            )
        lines += ["", "Loss of every step:", "", "```text"]
        width = max(len(r["contender"]) for r in found["results"])
        lines += [
            f"{r['contender']:<{width}}  " + " ".join(f"{loss:.4f}" for loss in r["losses"])
            for r in found["results"]
        ]
        lines += ["```", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Learning preferences beside TRL.")
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--pairs", type=int, default=64, help="pairs to learn from, and as many held out")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--trl", help="a Python with trl and datasets")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.only != "parity" and not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    python = environment_with_trl(given.trl)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "preference.json"
    records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for case in [given.only] if given.only else CASES:
        records[case] = measure(case, given, python, lambda line: print(line, flush=True))
        path.write_text(json.dumps(records, indent=1) + "\n", "utf-8")
        (given.out / "preference.md").write_text(as_markdown(records), "utf-8")
    print(f"written to {given.out / 'preference.md'}")


if __name__ == "__main__":
    main()
