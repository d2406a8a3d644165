"""Whole comparisons on public data with every arm that is taken by default: what they say, and what sharing saves.

    python benchmarks/compare_runs.py [--only CASE,…] [--shared DIR] [--together | --alone | --write]

banking77    10 labelled messages for each of 77 intents (the published 10-shot split), 300 of its test split
aws_docs     pages of seven services' documentation: which service is a page of? 280 labelled pages, 210 to test
xquad        192 paragraphs of XQuAD as documents, every fifth left out; 240 questions with answers, 200 to test
squadshifts  the same of SquadShifts' new Wikipedia, 500 questions to test

together   `tailor compare` as a user would run it: the arms race, and share what they have in common. Its report is
           kept beside the results.
alone      every arm by itself, `tailor compare --arms ARM --no-race`, in a project of its own, so that nothing is
           shared and nothing stops; what they find is judged together afterwards by the same rule.

Both take the same examples and splits; trainings are of two passes, for all arms alike. From the answers of `alone`
the race is then repeated on 100 resamplings of dev and test: does it pick what the full run picks, and at which part
of the seconds?

Writes benchmarks/results/compare_runs.json and .md, and benchmarks/results/compare_runs/CASE.html; works in
build/bench/compare_runs, where a run that was stopped goes on.
"""

import argparse
import collections
import datetime as dt
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from knowledge_answers import CASES as QUESTIONS
from knowledge_answers import LEFT_OUT, read_questions
from machine import machine, sentence
from main_job import SHARED, distinct, even_draw, read_intents
from resampled_races import contender, pauses_of, resampled_races

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "compare_runs"
COMMAND = "python benchmarks/compare_runs.py"
SEED = 17
LETTERS = 400
"""Of a page's beginning."""
DONE, STATE = "wall.json", ".tailorbird"


# -- data -------------------------------------------------------------------------------------------


def banking77(shared, folder):
    """The published 10-shot split, all of it given: what is held out to choose comes from it, too."""
    source = shared / "fewshot_intent_splits" / "BANKING77"
    known, test = (read_intents(source / part) for part in ("train_10", "test"))
    seen = {example.prompt.casefold() for example in known}
    test = [example for example in distinct(test) if example.prompt.casefold() not in seen]
    write_rows(folder / "examples.jsonl", rows_of(known))
    write_rows(folder / "test.jsonl", rows_of(even_draw(test, 300, SEED)))


def aws_docs(shared, folder):
    """The beginning of each page, and the service whose documentation it is of."""
    pages = []
    with tarfile.open(shared / "aws_docs" / "aws_docs.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".md"):
                text = archive.extractfile(member).read().decode("utf-8", "replace")
                service = member.name.split("/")[-2]
                pages.append({"prompt": text[:LETTERS].strip(), "completion": service})
    pages = sorted({page["prompt"]: page for page in pages}.values(), key=lambda page: page["prompt"])
    random.Random(SEED).shuffle(pages)
    counts, parts = collections.Counter(), {"examples": [], "test": []}
    for page in pages:
        number = counts[page["completion"]]
        counts[page["completion"]] += 1
        if number < 30:
            parts["test"].append(page)
        elif number < 30 + 40:
            parts["examples"].append(page)
    write_rows(folder / "examples.jsonl", parts["examples"])
    write_rows(folder / "test.jsonl", parts["test"])


def questions(name, num_examples, num_test):
    """Paragraphs as documents, every fifth left out; articles either teach or test."""

    def write(shared, folder):
        from tailorbird.records import NOT_IN_DOCUMENTS

        documents = folder / "documents"
        documents.mkdir()
        articles = read_questions(shared / QUESTIONS[name])
        random.Random(SEED).shuffle(articles)
        parts, counted = ([], []), 0
        for number, article in enumerate(articles):
            for document, text, asked in article:
                counted += 1
                absent = counted % LEFT_OUT == 0
                if not absent:
                    (documents / document).write_text(text, "utf-8")
                for question, right in asked:
                    row = {"prompt": question, "completion": NOT_IN_DOCUMENTS if absent else right[0]}
                    parts[number % 2].append(row if absent else {**row, "document": document})
        dice = random.Random(SEED)
        for part, file, count in zip(parts, ("examples", "test"), (num_examples, num_test), strict=True):
            write_rows(folder / f"{file}.jsonl", dice.sample(part, min(count, len(part))))

    return write


def rows_of(examples):
    return [{"prompt": example.prompt, "completion": example.completion} for example in examples]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


MADE = {
    "banking77": banking77,
    "aws_docs": aws_docs,
    "xquad": questions("xquad", 240, 200),
    "squadshifts": questions("squadshifts", 240, 500),
}
TRAINED = "[fine_tune]\nepochs = 2\n[from_scratch]\ndepth = 2\nepochs = 4\n[few_shot]\nk = 3\n"
"""Fewer passes, a smaller network and fewer examples than by default, so that two cores end within hours."""
PASSAGES = "[knowledge]\nk = 2\nmax_chars = 600\n"
SETTINGS = {"xquad": PASSAGES, "squadshifts": PASSAGES}


def data_of(case, shared):
    """The folder of a case's files, written once."""
    folder = WORK / case / "data"
    if not (folder / "tailor.toml").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        MADE[case](shared, folder)
        documents = 'documents = "documents"\n' if (folder / "documents").is_dir() else ""
        text = f'name = "{case}"\nexamples = "examples.jsonl"\ntest = "test.jsonl"\n{documents}'
        text += TRAINED + SETTINGS.get(case, "")
        (folder / "tailor.toml").write_text(text, "utf-8")
    return folder


# -- running ----------------------------------------------------------------------------------------


def tailor(project, data, *flags):
    """`tailor compare` in a project; seconds, with those of calls before that were stopped."""
    done = project / DONE
    before = json.loads(done.read_text())["seconds"] if done.is_file() else 0.0
    place_weights(project / STATE)
    # Relative, so that reports name no folder of this machine.
    config = os.path.relpath(data / "tailor.toml", project)
    began = time.perf_counter()
    command = [
        str(Path(sys.executable).with_name("tailor")),
        "compare",
        "--config",
        config,
        *flags,
    ]
    try:
        code = subprocess.run(command, cwd=project, env=environment(project), check=False).returncode
    finally:
        spent = before + time.perf_counter() - began
        done.write_text(json.dumps({"seconds": spent, "whole": False}))
    if code:
        sys.exit(f"{' '.join(command)} in {project} ended with {code}.")
    done.write_text(json.dumps({"seconds": spent, "whole": True}))


def place_weights(state):
    """The starter, converted: that is done once on a machine, whatever is compared, so neither way pays for it."""
    prepared = WORK / "prepared"
    if not list(prepared.glob("weights/*/config.json")):
        code = "from tailorbird.models.gguf_file import converted, starter_file; converted(starter_file())"
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "TAILORBIRD_HOME": str(prepared)}, check=True
        )
    if not (state / "weights").is_dir():
        shutil.copytree(prepared / "weights", state / "weights", copy_function=os.link)


def environment(project):
    """Nothing that other runs keep: neither a project's models nor embeddings."""
    return {
        **os.environ,
        "TAILORBIRD_HOME": str(project / STATE),
        "XDG_CACHE_HOME": str(project / "cache"),
    }


def is_whole(project):
    return (project / DONE).is_file() and json.loads((project / DONE).read_text())["whole"]


def run_together(case, data):
    project = WORK / case / "together"
    if not is_whole(project):
        tailor(project, data)
    return project


def run_alone(case, data, arms):
    for arm in arms:
        project = WORK / case / "alone" / arm
        if not is_whole(project):
            print(f"{case}: {arm} alone", flush=True)
            tailor(project, data, "--arms", arm, "--no-race")


def run_folder_of(project):
    state = project / STATE
    return state / "runs" / json.loads((state / "last_run").read_text())["run"]


# -- what came of it --------------------------------------------------------------------------------


def judged_together(runs, metric, floors, task):
    """The verdict on arms that ran alone."""
    from tailorbird.evaluation.verdict import decide

    groups = next(iter(runs.values())).test.groups
    things = "messages" if task == "classify" else "questions"
    return decide([contender(r, metric, floors) for r in runs.values()], things=things, groups=groups)


def record_of(case, data):
    """What both ways gave; None where one of them is not done."""
    from tailorbird.comparisons import Comparisons
    from tailorbird.evaluation.run_folder import read_arm
    from tailorbird.knowledge_bases import KnowledgeBases

    project = WORK / case / "together"
    if not is_whole(project):
        return None
    folder = run_folder_of(project)
    comparison = json.loads((folder / "comparison.json").read_text("utf-8"))
    target = RESULTS / "compare_runs"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "report.html", target / f"{case}.html")
    wall = {"together": json.loads((project / DONE).read_text())["seconds"]}
    record = {"case": case, "comparison": comparison, "wall_s": wall, "machine": machine()}
    record["date"] = dt.datetime.now(dt.UTC).date().isoformat()
    names = [arm["name"] for arm in comparison["arms"]]
    alone = {name: WORK / case / "alone" / name for name in names}
    if not all(is_whole(place) for place in alone.values()):
        return record
    state = project / STATE
    plan = Comparisons(state, project, KnowledgeBases(state, data / "tailor.toml")).plan(
        config=data / "tailor.toml"
    )
    runs = {name: read_arm(run_folder_of(place), name) for name, place in alone.items()}
    floors = {spec.name for spec in plan.arms if spec.floor}
    verdict = judged_together(runs, plan.metric, floors, plan.task.kind)
    record["alone"] = {
        "verdict": {"kind": verdict.kind, "arm": verdict.arm, "sentence": verdict.sentence},
        "candidate": verdict.candidate,
        "arms": {
            name: {
                "wall_s": json.loads((alone[name] / DONE).read_text())["seconds"],
                "score": run.test.mean(plan.metric) if run.test.rows else None,
                "train_s": run.train_s,
            }
            for name, run in runs.items()
        },
    }
    wall["alone"] = sum(arm["wall_s"] for arm in record["alone"]["arms"].values())
    record["races"] = resampled_races(
        runs, plan.metric, floors, plan.task.kind, plan.data.dev, pauses_of(folder), SEED
    )
    return record


def as_markdown(records):
    lines = ["# Whole comparisons on public data", "", f"`{COMMAND}`. {ABOUT}", ""]
    for case, record in records.items():
        comparison = record["comparison"]
        lines += [f"## {case}", "", f"{record['date']}. {sentence(record['machine'])}", ""]
        lines += [f"{comparison['verdict']['sentence']}", "", f"[The report](compare_runs/{case}.html).", ""]
        lines += [
            "| arm | score | 95 % interval | dev | alone | seconds together, training | why not measured |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [row_of(arm, record.get("alone")) for arm in comparison["arms"]]
        lines.append("")
        if "alone" in record:
            lines += said_of(record)
    return "\n".join(lines)


ABOUT = (
    "All arms that `tailor compare` takes by default. Together: raced and shared, as a user runs it. Alone: each arm "
    "in a project of its own, without a race, so that nothing is shared."
)


def row_of(arm, alone):
    score = "–" if arm["score"] is None else f"{arm['score']:.1%}"
    between = "–" if arm["score"] is None else f"{arm['low']:.1%} to {arm['high']:.1%}"
    dev = "–" if arm["dev_score"] is None else f"{arm['dev_score']:.1%} of {arm['num_dev']}"
    found = alone["arms"].get(arm["name"], {}).get("score") if alone else None
    by_itself = "–" if found is None else f"{found:.1%}"
    trained = "–" if arm["train_s"] is None else f"{arm['train_s']:.0f}"
    why = arm["stopped_why"] or arm["failed"]
    return f"| {arm['name']} | {score} | {between} | {dev} | {by_itself} | {trained} | {why} |"


def said_of(record):
    wall, races, alone = record["wall_s"], record["races"], record["alone"]
    times = (
        f"Together {wall['together'] / 60:.1f} min, one by one {wall['alone'] / 60:.1f} min: "
        f"{wall['alone'] / wall['together']:.2f} times. One by one: {alone['verdict']['sentence']}"
    )
    again = (
        f"The race on {races['resamplings']} resamplings of dev and test: it picks the full run's candidate in "
        f"{races['same_candidate']}, one within 3 points of it on test in {races['candidate_within_3_points']}, and "
        f"the verdict names the same arm in {races['same_arm']}; it takes {races['share_of_answer_seconds']:.0%} of "
        f"the seconds in which answers are given, and {races['share_of_all_seconds']:.0%} with making the models."
    )
    return [times, "", again, ""]


def write_results(cases, shared):
    path = RESULTS / "compare_runs.json"
    records = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for case in cases:
        if record := record_of(case, data_of(case, shared)):
            records[case] = record
    ordered = {case: records[case] for case in MADE if case in records}
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (RESULTS / "compare_runs.md").write_text(as_markdown(ordered) + "\n", "utf-8")


def main():
    parser = argparse.ArgumentParser(description="Whole comparisons on public data.")
    parser.add_argument("--only", default=",".join(MADE), help="cases")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--together", action="store_true", help="this way alone")
    parser.add_argument("--alone", action="store_true", help="this way alone, of a case that ran together")
    parser.add_argument("--write", action="store_true", help="run nothing: write what is there")
    given = parser.parse_args()
    if not given.shared.is_dir():
        sys.exit(f"{given.shared}: the public data sets are not there. Name their folder with --shared.")
    cases = given.only.split(",")
    for case in [] if given.write else cases:
        data = data_of(case, given.shared)
        project = WORK / case / "together" if given.alone else run_together(case, data)
        if not given.together:
            record = json.loads((run_folder_of(project) / "comparison.json").read_text("utf-8"))
            run_alone(case, data, [arm["name"] for arm in record["arms"]])
        write_results([case], given.shared)
    write_results(cases, given.shared)


if __name__ == "__main__":
    main()
