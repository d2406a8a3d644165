"""Does a comparison survive `kill -9`? Kill it at random moments, run it again, and look for any difference.

    python benchmarks/kill_compare.py [--trials 20] [--seed 0]

First `tailor compare` runs undisturbed: eight arms over a tiny random model, real messages and real
documents. Then, `--trials` times, in a fresh project: the same command is killed (SIGKILL, the whole
process group) at a moment drawn uniformly from the time in which the undisturbed run worked on its arms,
and run again to its end. The second run must end with the same answers, adapters, weights, scores and
verdict, and must not have repeated a finished arm. Training writes a checkpoint every half second here
instead of every twenty, so
that runs this short are cut after checkpoints too.

Writes benchmarks/results/kill_compare.json and .md; works in build/bench/kill_compare.
"""

import argparse
import contextlib
import datetime as dt
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from machine import machine, sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "kill_compare"
COMMAND = "python benchmarks/kill_compare.py"

CONFIG = """\
name = "kill"
base = "tiny"
examples = "tickets.jsonl"
documents = "handbook"
arms = ["majority", "tfidf_linear", "nearest", "few_shot", "knowledge", "fine_tune", "few_shot+fine_tune",
        "from_scratch"]

[few_shot]
k = 2

[knowledge]
k = 1

[fine_tune]
rank = 4
epochs = 3
batch_size = 8
learning_rate = 0.02

[from_scratch]
depth = 1
vocab_size = 512
context = 2048
text_epochs = 3
epochs = 3
"""
SUMMARY = """\
The undisturbed run of eight arms took {seconds} s. {trials} more runs were killed (SIGKILL, whole process
group) at a uniformly random moment while their arms ran ({first} to {last} s) and run again to the end.
All ended alike; no finished arm and no finished model was made again. {compared} things are compared with
the undisturbed run, bit by bit: all answers of all arms on dev and test with their probabilities, all
trained tensors, all scores, the verdict.
"""
LABELS, PER_LABEL, NUM_DOCUMENTS = 10, 12, 6
FIRST_ARM_S = 0.2
"""About what the first arm, a baseline, takes; its end is known, its beginning is not."""

LAUNCHER = """
import sys
from tailorbird.network import settings
check = settings.TrainSettings.__post_init__
def often(made):
    check(made)
    object.__setattr__(made, "checkpoint_every_s", 0.5)
settings.TrainSettings.__post_init__ = often
from tailorbird.cli.main import main
main(["compare"])
"""
"""`tailor compare` with checkpoints every half second."""


def prepare(work):
    """Writes what every project is a copy of: a tiny random model, messages, documents."""
    from tailorbird.testing.tiny import tiny_model

    template = work / "template"
    shutil.rmtree(template, ignore_errors=True)
    template.mkdir(parents=True)
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        tiny_model(context=2048).engine.save(template / "tiny")
    rows = [json.loads(line) for line in (ROOT / "sample" / "tickets.jsonl").read_text("utf-8").splitlines()]
    labels = [label for label, _ in Counter(row["completion"] for row in rows).most_common(LABELS)]
    rows.sort(key=lambda row: len(row["prompt"]))  # short ones: the tiny tokenizer makes many tokens
    kept = [row for label in labels for row in [r for r in rows if r["completion"] == label][:PER_LABEL]]
    (template / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    (template / "handbook").mkdir()
    for path in sorted((ROOT / "sample" / "handbook").glob("*.md"))[:NUM_DOCUMENTS]:
        shutil.copy(path, template / "handbook")
    (template / "tailor.toml").write_text(CONFIG, "utf-8")


def fresh_project(work):
    """A new project at the same path: paths are part of what identifies a run."""
    project = work / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(work / "template", project)
    # The index of the documents starts anew as well; the converted embedder may stay.
    shutil.rmtree(work / "cache" / "tailorbird" / "knowledge", ignore_errors=True)
    return project


def start(work, project, log):
    """The comparison as a process group of its own; what it prints goes to `log`."""
    kept = {key: value for key, value in os.environ.items() if key != "TAILORBIRD_HOME"}
    environment = {**kept, "XDG_CACHE_HOME": str(work / "cache")}
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_to_end(work, project, log):
    """Seconds that it took.

    Raises:
        RuntimeError: it did not end well.
    """
    began, process = time.perf_counter(), start(work, project, log)
    try:
        code = process.wait()
    finally:
        _end(process)
    if code != 0:
        raise RuntimeError(f"tailor compare ended with {code}:\n{log.read_text('utf-8')[-2000:]}")
    return time.perf_counter() - began


def kill_after(work, project, log, moment_s):
    """Starts a comparison and kills it; False if it had ended by then."""
    process = start(work, project, log)
    try:
        process.wait(timeout=moment_s)
    except subprocess.TimeoutExpired:
        return True
    finally:
        _end(process)
    return False


def _end(process):
    """SIGKILL to the whole process group, if it still runs: nothing in it gets to tidy up."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# -- what must be equal ---------------------------------------------------------------------------


def run_folder(project):
    """The one run of a project; None if it was killed before it made one."""
    folders = sorted((project / ".tailorbird" / "runs").glob("[!.]*"))
    if len(folders) > 1:
        raise AssertionError(f"the run was begun anew in another folder: {[f.name for f in folders]}")
    return folders[0] if folders else None


def snapshot(project):
    """Everything that a comparison is: answers and scores, trained tensors, results and verdict."""
    run = run_folder(project)
    found = {}
    for path in sorted(run.glob("arms/*/*.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found[str(path.relative_to(run))] = [_without_timings(row) for row in rows]
    for path in sorted(run.glob("models/**/*.safetensors")):
        found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    result = json.loads((run / "comparison.json").read_text("utf-8"))
    for arm in result["arms"]:
        for timing in ("train_s", "latency_p50_s", "latency_p95_s", "cost_per_1k"):
            del arm[timing]
    found["arms"], found["verdict"] = result["arms"], result["verdict"]
    return found


def _without_timings(value):
    if isinstance(value, dict):
        return {k: _without_timings(v) for k, v in value.items() if k != "seconds"}
    return [_without_timings(v) for v in value] if isinstance(value, list) else value


def differences(expected, got):
    """The names of what differs."""
    return sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))


def stamps(run, pattern):
    """Which file lies at each place: inode and time of the last change."""
    if run is None:
        return {}
    found = {path.parent.name: path.stat() for path in run.glob(pattern)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def place_of_kill(log):
    """In which arm a killed run was, from what it had printed."""
    lines = re.findall(r"^\[\d+/\d+\] (\S+): (.*)$", log.read_text("utf-8"), re.MULTILINE)
    if not lines:
        return "before the first arm"
    arm, said = lines[-1]
    return f"after {arm}" if re.match(r"\d+\.\d %", said) else arm


def trial(work, number, moment_s, expected):
    """Kills one comparison, finishes it, and says what came of it.

    Raises:
        AssertionError: anything differs from the undisturbed run, or finished work was repeated.
    """
    project, log = fresh_project(work), work / f"trial-{number}.log"
    killed = kill_after(work, project, log, moment_s)
    where = place_of_kill(log) if killed else "after the end"
    run = run_folder(project)
    arms, models = stamps(run, "arms/[!.]*/arm.json"), stamps(run, "models/[!.]*/model.json")
    checkpoints = sorted(path.name for path in run.glob("checkpoints/*")) if run else []
    again_s = run_to_end(work, project, again := work / f"trial-{number}-again.log")
    run = run_folder(project)
    reused = again.read_text("utf-8").count("from an earlier run")
    after_arms, after_models = stamps(run, "arms/[!.]*/arm.json"), stamps(run, "models/[!.]*/model.json")
    repeated = sorted(n for n in arms if after_arms.get(n) != arms[n])
    rebuilt = sorted(n for n in models if after_models.get(n) != models[n])
    wrong = differences(expected, snapshot(project))
    if wrong or repeated or rebuilt or reused != len(arms):
        raise AssertionError(
            f"trial {number}, killed after {moment_s:.2f} s in {where}: differs {wrong}; "
            f"arms repeated {repeated}; models rebuilt {rebuilt}; {reused} arms taken over, "
            f"expected {len(arms)}. The project is in {project}."
        )
    return {
        "trial": number,
        "moment_s": round(moment_s, 2),
        "where": where,
        "arms_finished": len(arms),
        "models_made": len(models),
        "checkpoints_of": checkpoints,
        "second_run_s": round(again_s, 2),
    }


def measure(work, trials, seed, tell):
    """The whole experiment.

    Raises:
        AssertionError: a trial ended differently from the undisturbed run.
    """
    prepare(work)
    tell("warming up: the embedder is converted once")
    run_to_end(work, fresh_project(work), work / "warm-up.log")
    project, began = fresh_project(work), time.time()
    undisturbed_s = run_to_end(work, project, work / "undisturbed.log")
    expected = snapshot(project)
    ends = [path.stat().st_mtime - began for path in run_folder(project).glob("arms/*/arm.json")]
    first_s, last_s = min(ends) - FIRST_ARM_S, max(ends)
    tell(f"undisturbed: {undisturbed_s:.1f} s, {len(expected)} things to be equal")
    draw, done = random.Random(seed), []
    for number in range(1, trials + 1):
        done.append(trial(work, number, draw.uniform(first_s, last_s), expected))
        tell("  ".join(f"{key} {value}" for key, value in done[-1].items()))
    return {
        "command": f"{COMMAND} --trials {trials} --seed {seed}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "undisturbed_s": round(undisturbed_s, 2),
        "arms_s": [round(first_s, 2), round(last_s, 2)],
        "compared": len(expected),
        "trials": done,
    }


def as_markdown(result):
    """The result as a page."""
    first, last = result["arms_s"]
    summary = SUMMARY.format(
        seconds=result["undisturbed_s"],
        trials=len(result["trials"]),
        compared=result["compared"],
        first=first,
        last=last,
    )
    lines = [
        "# A comparison killed at random moments",
        "",
        f"`{result['command']}`, {result['date']}. {sentence(result['machine'])}",
        "",
        summary,
        "| trial | killed after | in arm | arms finished by then | training checkpoints there | second run |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t['trial']} | {t['moment_s']:.2f} s | {t['where']} | {t['arms_finished']} | "
        f"{', '.join(t['checkpoints_of']) or '–'} | {t['second_run_s']:.1f} s |"
        for t in result["trials"]
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="Kill comparisons at random moments and run them again.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        result = measure(WORK, given.trials, given.seed, lambda line: print(line, flush=True))
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "kill_compare.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (given.out / "kill_compare.md").write_text(as_markdown(result), "utf-8")
    print(f"all {given.trials} trials ended alike; written to {given.out}")


if __name__ == "__main__":
    main()
