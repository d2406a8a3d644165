"""Answers a second with a metaprompt of 5 examples, on 77 labels, beside lm-evaluation-harness and DSPy.

    python benchmarks/few_shot_speed.py [--questions N] [--contenders a,b]

The questions are messages of Banking77's test split, each behind the five examples nearest to it of the full training
split, in the starter's own chat template. Contenders, each in a process of its own, taking turns:

tailorbird          all questions at once, as a comparison asks; probabilities of all labels
tailorbird_single   one question after another, as a user does
lm_eval_default     lm-evaluation-harness's hf model: every label after every prompt, batch size 1, as it comes
lm_eval_best        the same, batch size 16
dspy_default        a dspy.Predict program with the same examples as demonstrations and a closed set of labels, over
                    llama.cpp's server with the same weights, one question after another
dspy_best           four at once, the server having four slots

Loading is not timed, nor is the choice of the examples. Peers are installed into environments of their own in
build/bench. Writes benchmarks/results/few_shot_speed.json and .md; works in build/bench/few_shot_speed.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import sys
from pathlib import Path

from fine_tune_accuracy import case_of, drawn
from machine import machine, sentence
from main_job import SHARED
from peers import environment, result_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "few_shot_speed"
CASE = "banking77-full"
CONTENDERS = (
    "tailorbird", "tailorbird_single", "lm_eval_default", "lm_eval_best", "dspy_default", "dspy_best",
)  # fmt: skip
SLOTS = 4


def job_of(shared, count):
    """The questions with their examples, as turns and as the text of the prompt."""
    from tailorbird.data.task import Data
    from tailorbird.models.blank import Blank
    from tailorbird.models.gguf_file import converted, starter_file
    from tailorbird.models.local import open_local_template
    from tailorbird.models.model import as_seen_by_weights
    from tailorbird.techniques.few_shot import FewShot

    task, train, _, test = case_of(CASE, shared, None)
    model = FewShot(k=5, calibrate="none").apply(Blank(), Data(task, tuple(train), ()))
    template, questions = open_local_template("starter"), []
    for example in drawn(test, count):
        seen = as_seen_by_weights(model, task.ask(example))
        questions.append(
            {
                "message": example.prompt,
                "expected": example.completion,
                "turns": [[m.role, m.content] for m in seen.conversation],
                "examples": [[e.prompt, e.completion] for e in seen.examples],
                "prompt": template.text_of(seen.conversation),
            }
        )
    return {
        "folder": str(converted(starter_file())),
        "gguf": str(starter_file()),
        "labels": list(task.labels),
        "questions": questions,
        "slots": SLOTS,
    }


@contextlib.contextmanager
def llama_server(gguf, slots):
    """llama.cpp's own server with the starter's file, in this process; its address."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx, params.n_parallel = 4096 * slots, slots
    params.fit_params, params.verbosity = False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ["OMP_NUM_THREADS"])
    server = xllamacpp.Server(params)
    yield server.listening_address


def run(contender, job):
    """What a contender answers, and how long it takes."""
    python = sys.executable
    if contender.startswith("lm_eval"):
        python = environment("lm_eval")
    elif contender.startswith("dspy"):
        python = environment("dspy")
    path = WORK / f"{contender}.json"
    slots = SLOTS if contender == "dspy_best" else 1
    serving = llama_server(job["gguf"], slots) if contender.startswith("dspy") else contextlib.nullcontext("")
    with serving as url:
        path.write_text(json.dumps({**job, "contender": contender, "url": url}), "utf-8")
        found = result_of(python, "few_shot_contender.py", path)
    right = [said == q["expected"] for said, q in zip(found["said"], job["questions"], strict=True)]
    return {"contender": contender, "seconds": found["seconds"], "said": found["said"], "right": sum(right)}


def as_markdown(record):
    """The contenders as a table."""
    runs = {run["contender"]: run for run in record["runs"]}
    ours, count = runs["tailorbird"], record["questions"]
    about = (
        f"`{record['command']}`, {record['date']}: {count} messages of Banking77, each behind its 5 nearest examples, "
        f"77 labels, SmolLM2-135M. {sentence(record['machine'])}"
    )
    lines = [
        "# Few-shot: answers a second",
        "",
        about,
        "",
        "| contender | seconds an answer | times ours | same label as ours | no label | right |",
        "|---|---|---|---|---|---|",
    ]
    for run_ in record["runs"]:
        same = sum(a == b for a, b in zip(run_["said"], ours["said"], strict=True))
        none = sum(said not in record["labels"] for said in run_["said"])
        lines.append(
            f"| {run_['contender']} | {run_['seconds'] / count:.2f} | {run_['seconds'] / ours['seconds']:.1f} | "
            f"{same} of {count} | {none} | {run_['right']} |"
        )
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(description="Answers a second, beside peers.")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    WORK.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    job, runs = job_of(given.shared, given.questions), []
    for contender in given.contenders.split(","):
        runs.append(run(contender, job))
        each = runs[-1]["seconds"] / given.questions
        print(f"{contender}: {each:.2f} s an answer, {runs[-1]['right']} right", flush=True)
    record = {
        "runs": runs,
        "labels": job["labels"],
        "questions": given.questions,
        "command": f"python benchmarks/few_shot_speed.py --questions {given.questions}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    (given.out / "few_shot_speed.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (given.out / "few_shot_speed.md").write_text(as_markdown(record), "utf-8")


if __name__ == "__main__":
    main()
