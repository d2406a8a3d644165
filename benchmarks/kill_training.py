"""Does a training survive `kill -9`? Kill it at random moments, start it again, and look for any difference.

    python benchmarks/kill_training.py [--trials 200] [--seed 0]

Four small trainings over a tiny random Llama and real messages: LoRA with a race of learning rates, LoRA at
one rate, all weights, and from scratch with two stages. Each first runs undisturbed. Then, `--trials` times
in all and taking turns: it starts in a fresh folder, is killed (SIGKILL) at a moment drawn uniformly from the
time the undisturbed run took, and starts again with the same arguments. The second start must end with the
same weights, bit by bit, the same losses and scores of every step, and must not do more steps again than lie
between two checkpoints, which are written every `EVERY` steps here so that runs this short have many.

Every training is a process of its own, forked from one in which the libraries are loaded already.
Writes benchmarks/results/kill_training.json and .md; works in build/bench/kill_training.
"""

import argparse
import datetime as dt
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from machine import machine, sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "kill_training"
COMMAND = "python benchmarks/kill_training.py"
EVERY = 3
"""Steps between two checkpoints."""
LABELS, PER_LABEL, LONGEST = 6, 10, 90
SUMMARY = """\
{trials} trainings were killed (SIGKILL) at a uniformly random moment and started again; all ended with the
weights, the losses and the scores of the undisturbed run, bit by bit. A checkpoint was due every {every}
steps; at most {repeated} steps were done twice (a race's are not counted). {writing} of the kills came while
a checkpoint or a note was being written, {before} before the first checkpoint, and {ended} when nothing was
left to do.
"""


def techniques():
    """The trainings, by name."""
    from tailorbird.techniques.fine_tune import FineTune
    from tailorbird.techniques.from_scratch import FromScratch

    layers = {"rank": 4, "batch_size": 8, "epochs": 8, "precision": "float32", "max_dev": 12, "patience": 8}
    return {
        "lora": FineTune(learning_rate=0.02, **layers),
        "lora, rates raced": FineTune(learning_rate=(0.003, 0.01, 0.03), **layers),
        "full": FineTune(method="full", learning_rate=0.003, **layers),
        "from scratch": FromScratch(
            depth=1, vocab_size=512, context=1024, text_epochs=12, epochs=8, max_dev=12
        ),
    }


def messages():
    """Some short ones of the sample's tickets, as a task with dev examples."""
    from tailorbird.data.task import Data, infer_task
    from tailorbird.records import Example

    rows = [json.loads(line) for line in (ROOT / "sample" / "tickets.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if len(row["prompt"]) <= LONGEST]
    labels = [label for label, _ in Counter(row["completion"] for row in rows).most_common(LABELS)]
    chosen = [row for label in labels for row in [r for r in rows if r["completion"] == label][:PER_LABEL]]
    examples = [
        Example.pair(row["prompt"], row["completion"], file="tickets.jsonl", line=n)
        for n, row in enumerate(chosen, 1)
    ]
    random.Random(0).shuffle(examples)
    return Data(infer_task(examples), tuple(examples[12:]), tuple(examples[:12]), ())


# -- one training, in a process of its own --------------------------------------------------------


def started(technique, data, folder):
    """Forks a process that trains in `folder`; its number.

    It leaves `result.json` when it ends well, and before that a byte in `steps` for each step it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        trained_in(technique, data, folder)
        code = 0
    except BaseException:  # noqa: BLE001 - a forked process must not return into its parent's code
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def trained_in(technique, data, folder):
    """Trains to the end and writes what came of it."""
    from tailorbird.testing.tiny import tiny_model

    steps = os.open(folder / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_step(report):
        os.write(steps, f"{report.step}/{report.total_steps} ".encode())

    technique = replace(technique, checkpoint=folder / "kept", on_step=on_step)
    trained = technique.apply(tiny_model(context=1024), data)
    found = {"weights": hash_of(trained), "steps": {}}
    for path in sorted((folder / "kept").rglob("metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found["steps"][str(path.relative_to(folder))] = [
            {key: value for key, value in row.items() if key != "seconds"} for row in rows
        ]
    (folder / "result.json").write_text(json.dumps(found), "utf-8")


def hash_of(trained):
    """Of every number of the model, the adapter's included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trained.engine.model.state_dict().items()):
        name = name.replace(f".{trained.adapter}.", ".")  # noqa: PLW2901 - numbered in each process anew
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def ended(child, folder):
    """Waits for a training that nobody kills; what it left.

    Raises:
        RuntimeError: it did not end well.
    """
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(
            f"a training ended with {status}:\n{(folder / 'log').read_text('utf-8', 'replace')[-3000:]}"
        )
    return json.loads((folder / "result.json").read_text("utf-8"))


# -- killing --------------------------------------------------------------------------------------


def steps_done(folder):
    """The steps that `on_step` was told, in order, each with the length of its stage, which tells stages apart."""
    path = folder / "steps"
    return [tuple(map(int, word.split("/"))) for word in path.read_text().split()] if path.is_file() else []


def trial(work, name, technique, data, moment_s, expected):
    """Kills one training, starts it again, and says what came of it.

    Raises:
        AssertionError: anything differs from the undisturbed run, or too many steps were done again.
    """
    folder = work / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    child = started(technique, data, folder)
    time.sleep(moment_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    before = steps_done(folder)
    places = sorted(str(path.relative_to(folder / "kept")) for path in (folder / "kept").rglob("*"))
    writing = [place for place in places if ".tmp" in place.rsplit("/", 1)[-1]]
    checkpoints = [place for place in places if place.endswith("manifest.json") and ".tmp" not in place]
    got = ended(started(technique, data, folder), folder)
    again = steps_done(folder)[len(before) :]
    repeated = len(set(before) & set(again))
    different = sorted(key for key in expected if got[key] != expected[key])
    if different or repeated > EVERY:
        raise AssertionError(
            f"{name}, killed after {moment_s:.3f} s and step {before[-1:]}: differs in {different}; {repeated} "
            f"steps were done again, expected at most {EVERY}. Its folder is {folder}."
        )
    return {
        "training": name,
        "moment_s": round(moment_s, 3),
        "after_step": len(before),
        "checkpoints": len(checkpoints),
        "writing": writing,
        "repeated": repeated,
        "ended": os.waitstatus_to_exitcode(status) == 0,
    }


def measure(work, trials, seed, tell):
    """The whole experiment.

    Raises:
        AssertionError: a trial ended differently from the undisturbed run.
    """
    import torch

    from tailorbird.testing.tiny import tiny_model

    torch.set_num_threads(1)  # before any work: a forked process has no other threads
    data, draw = messages(), random.Random(seed)
    for (
        technique
    ) in techniques().values():  # loads all that forked processes would load again, each for itself
        short = {"text_epochs": 0.1} if hasattr(technique, "text_epochs") else {}
        replace(technique, epochs=0.1, **short).apply(tiny_model(context=1024), data)
    shutil.rmtree(work, ignore_errors=True)
    undisturbed, done = {}, []
    for name, technique in techniques().items():
        for turn in range(2):  # the first warms up
            folder = work / f"undisturbed {name} {turn}"
            began = time.perf_counter()
            found = ended(started(technique, data, folder), folder)
            undisturbed[name] = (time.perf_counter() - began, found, len(steps_done(folder)))
        took, found, steps = undisturbed[name]
        tell(f"{name}: {took:.2f} s, {steps} steps undisturbed, {found['weights']}")
    names = list(undisturbed)
    for number in range(trials):
        name = names[number % len(names)]
        took, expected, _ = undisturbed[name]
        done.append(trial(work, name, techniques()[name], data, draw.uniform(0, took), expected))
        tell(f"{number + 1}  " + "  ".join(f"{key} {value}" for key, value in done[-1].items()))
    return {
        "command": f"{COMMAND} --trials {trials} --seed {seed}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "every": EVERY,
        "undisturbed": {
            name: {"seconds": round(took, 2), "steps": steps, "weights": found["weights"]}
            for name, (took, found, steps) in undisturbed.items()
        },
        "trials": done,
    }


def as_markdown(result):
    """The result as a page."""
    done = result["trials"]
    summary = SUMMARY.format(
        trials=len(done),
        every=result["every"],
        repeated=max(t["repeated"] for t in done),
        writing=sum(bool(t["writing"]) for t in done),
        before=sum(not t["checkpoints"] for t in done),
        ended=sum(t["ended"] for t in done),
    )
    lines = [
        "# A training killed at random moments",
        "",
        f"`{result['command']}`, {result['date']}. {sentence(result['machine'])}",
        "",
        summary,
        "| training | undisturbed | steps | killed | alike after | steps done twice, mean | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in result["undisturbed"].items():
        mine = [t for t in done if t["training"] == name]
        twice = [t["repeated"] for t in mine]
        lines.append(
            f"| {name} | {found['seconds']:.1f} s | {found['steps']} | {len(mine)} | {len(mine)} | "
            f"{sum(twice) / max(1, len(twice)):.1f} | {max(twice, default=0)} |"
        )
    return "\n".join(lines) + "\n"


def checkpoints_often():
    """Every `EVERY` steps instead of every twenty seconds."""
    from tailorbird.network.settings import TrainSettings

    check = TrainSettings.__post_init__

    def often(settings):
        check(settings)
        object.__setattr__(settings, "checkpoint_every_steps", EVERY)

    TrainSettings.__post_init__ = often


def main():
    parser = argparse.ArgumentParser(description="Kill trainings at random moments and start them again.")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    parser.add_argument("--work", type=Path, default=WORK, help="where the trainings run")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    checkpoints_often()
    try:
        result = measure(given.work, given.trials, given.seed, lambda line: print(line, flush=True))
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "kill_training.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (given.out / "kill_training.md").write_text(as_markdown(result), "utf-8")
    print(f"all {given.trials} trainings ended alike; written to {given.out}")


if __name__ == "__main__":
    main()
