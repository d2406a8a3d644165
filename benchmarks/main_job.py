"""The main job on public data: which customization sorts bank messages best, which answers questions best?

    python benchmarks/main_job.py [--only banking77|xquad] [--shared DIR] [--quick] [--arms a,b,c]

banking77   5 training examples for each of 77 intents (the published 5-shot split), 154 from its valid split
            to choose, 500 of its test split, drawn evenly over the intents with a fixed seed.
xquad       240 paragraphs of SQuAD as documents; of the 1,190 questions on them 300 to learn from, 60 to
            choose, 200 to test. The gold answer is the first one given.

Both run over the starter model through the workbench, as `tailor compare` does. A run that was stopped goes
on. Results: benchmarks/results/main_job.json and .md; work and reports: build/bench/main_job.
"""

import argparse
import collections
import dataclasses
import datetime as dt
import json
import random
import sys
import time
from pathlib import Path

from machine import machine, sentence

from tailorbird.bases import bases_of
from tailorbird.data.duplicates import normalise
from tailorbird.data.task import Data, infer_task
from tailorbird.evaluation.comparison import money, p_value, percent, seconds
from tailorbird.planning import Plan, default_metric_name
from tailorbird.recipe_file import ArmSpec, RecipeFile, Step
from tailorbird.records import Example
from tailorbird.workbench import TrainingProgress, Workbench

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench"
SEED = 0
NEVER_S = -1e9
NEAREST_FIVE = {"k": 5, "select": "nearest"}
COLUMNS = "95 % interval | p (Holm) | training | p50 | cost of 1,000 | tokens in, cached, out"


@dataclasses.dataclass(frozen=True)
class Job:
    """A data set, and the arms compared on it."""

    title: str
    about: str
    arms: tuple[str, ...]
    settings: dict
    data: Data
    note: str = ""
    specs: tuple[ArmSpec, ...] = ()


# -- Banking77 ------------------------------------------------------------------------------------


def banking77(shared, work, quick):  # noqa: ARG001 - every job is made alike
    """The published 5-shot split."""
    folder = shared / "fewshot_intent_splits" / "BANKING77"
    train, valid, test = (read_intents(folder / part) for part in ("train_5", "valid", "test"))
    # A message that stands in train and in test measures memory; one in dev and in test leaks the choice.
    known = {normalise(e.prompt) for e in train}
    test = [e for e in distinct(test) if normalise(e.prompt) not in known]
    drawn = even_draw(test, 60 if quick else 500, SEED)
    known |= {normalise(e.prompt) for e in drawn}
    dev = even_draw(
        [e for e in distinct(valid) if normalise(e.prompt) not in known], 40 if quick else 154, SEED
    )
    task = infer_task(train)
    return Job(
        title="Banking77, 5 examples a label",
        about=(
            f"{len(task.labels)} intents of bank customers' messages (Casanueva et al. 2020, CC BY 4.0); "
            f"{len(train)} training examples, {len(dev)} to choose, {len(drawn)} to test."
        ),
        arms=("majority", "tfidf_linear", "nearest", "base", "few_shot", "fine_tune", "few_shot+fine_tune"),
        settings={"few_shot": NEAREST_FIVE, "fine_tune": {"epochs": 6, "batch_size": 16}},
        specs=(
            ArmSpec(
                "few_shot+fine_tune",
                (Step("few_shot", NEAREST_FIVE), Step("fine_tune", {"epochs": 3, "batch_size": 16})),
            ),
        ),
        data=Data(task, tuple(train), tuple(dev), tuple(drawn)),
        note="few_shot+fine_tune learns for 3 epochs, fine_tune for 6: its prompts are six times as long.",
    )


def read_intents(folder):
    """The messages of a split with their labels."""
    texts = (folder / "seq.in").read_text("utf-8").splitlines()
    labels = (folder / "label").read_text("utf-8").splitlines()
    return [
        Example.pair(text.strip(), label.strip(), file=folder.name, line=line)
        for line, (text, label) in enumerate(zip(texts, labels, strict=True), 1)
    ]


def distinct(examples):
    """Examples with different prompts; the first of equals stays."""
    return list({normalise(e.prompt): e for e in reversed(examples)}.values())[::-1]


def even_draw(examples, count, seed):
    """So many examples, the labels taking turns in a shuffled order."""
    order = random.Random(seed)
    groups = collections.defaultdict(list)
    for example in sorted(examples, key=lambda e: e.id):
        groups[example.completion].append(example)
    queues = [groups[label] for label in sorted(groups)]
    for queue in queues:
        order.shuffle(queue)
    order.shuffle(queues)
    drawn = []
    while len(drawn) < count and any(queues):
        drawn += [queue.pop() for queue in queues if queue]
    return drawn[:count]


# -- XQuAD ----------------------------------------------------------------------------------------


def xquad(shared, work, quick):
    """English XQuAD: every paragraph a document."""
    articles = json.loads((shared / "xquad_en" / "xquad.en.json").read_text("utf-8"))["data"]
    documents = work / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    examples = []
    for article in articles:
        for number, paragraph in enumerate(article["paragraphs"], 1):
            name = f"{article['title']}-{number}.md"
            title = article["title"].replace("_", " ")
            (documents / name).write_text(f"# {title}\n\n{paragraph['context']}\n", "utf-8")
            examples += [
                Example.pair(
                    qa["question"].strip(), qa["answers"][0]["text"], document=name, line=len(examples)
                )
                for qa in paragraph["qas"]
            ]
    shuffled = sorted(distinct(examples), key=lambda e: e.id)
    random.Random(SEED).shuffle(shuffled)
    num_test, num_dev, num_train = (30, 20, 60) if quick else (200, 60, 300)
    test, dev = shuffled[:num_test], shuffled[num_test : num_test + num_dev]
    train = shuffled[num_test + num_dev :][:num_train]
    return Job(
        title="XQuAD, questions on 240 paragraphs",
        about=(
            f"English XQuAD (Artetxe et al. 2020, CC BY-SA 4.0): {len(list(documents.iterdir()))} paragraphs "
            f"as documents, {len(train)} questions to learn from, {len(dev)} to choose, {len(test)} to test."
        ),
        arms=("nearest", "base", "knowledge", "fine_tune", "knowledge+fine_tune"),
        settings={"knowledge": {"k": 2}, "fine_tune": {"epochs": 1}},
        data=Data(infer_task([*train, *dev]), tuple(train), tuple(dev), tuple(test), documents),
        note="Test and training questions may share a paragraph; intervals take paragraphs as clusters.",
    )


JOBS = {"banking77": banking77, "xquad": xquad}
FLOORS = {"banking77": ("majority", "tfidf_linear", "nearest"), "xquad": ("majority", "nearest")}


# -- running --------------------------------------------------------------------------------------


def run(name, job, work, arms):
    """Compares; what a killed call has finished is taken over. The comparison as in comparison.json."""
    recipe = RecipeFile(settings=job.settings, arm_specs=job.specs)
    plan = Plan(
        name=name,
        bases=bases_of("starter", {}),
        task=job.data.task,
        arms=tuple(recipe.arm(arm) for arm in arms),
        data=job.data,
        metric=default_metric_name(job.data.task),
        seed=SEED,
        command=f"python benchmarks/main_job.py --only {name}",
    )
    plan = dataclasses.replace(plan, folder=work / "runs" / plan.key)
    outcome = Workbench(work).comparisons.run(plan, out=work / "report", on_event=Teller())
    return outcome.comparison.to_json()


class Teller:
    """Prints a line for each step of an arm, and for its training now and then."""

    def __init__(self):
        self.told_s = NEVER_S

    def __call__(self, event):
        now = time.monotonic()
        if isinstance(event, TrainingProgress):
            text = f"{event.arm}: training {event.step} of {event.total_steps}, loss {event.loss:.3f}"
        else:
            text = self.text(event)
        stage = isinstance(event, TrainingProgress) or hasattr(event, "stage")
        if text and (not stage or now - self.told_s >= 10):
            self.told_s = now
            print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    @staticmethod
    def text(event):
        if hasattr(event, "stage"):
            return f"{event.arm}: {event.stage} {event.done} of {event.total}"
        if hasattr(event, "status"):
            score = "" if event.score is None else f" {percent(event.score)}"
            earlier = ", from an earlier run" if event.reused else ""
            return f"{event.arm}: {event.status}{score}{earlier} {event.message}".rstrip()
        return f"{event.arm}: started" if hasattr(event, "index") else ""


# -- results --------------------------------------------------------------------------------------


def record(job, comparison):
    """What is kept of one job."""
    return {
        "title": job.title,
        "about": job.about,
        "note": job.note,
        "settings": job.settings,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "comparison": comparison,
    }


def as_markdown(records):
    """All jobs as a page."""
    lines = ["# The main job on public data", ""]
    for name, found in records.items():
        comparison, on = found["comparison"], sentence(found["machine"])
        base = comparison["reproduce"]["base"]
        lines += [
            f"## {found['title']}",
            "",
            f"{found['about']} {found['note']}".strip(),
            "",
            f"`python benchmarks/main_job.py --only {name}`, {found['date']}, base model {base}. {on}",
            "",
            f"| arm | {comparison['metric']} | {COLUMNS} |",
            "|---|---|---|---|---|---|---|---|",
            *(row(arm) for arm in comparison["arms"]),
            "",
            f"Verdict ({comparison['verdict']['kind']}): {comparison['verdict']['sentence']}",
            "",
            f"Costs are this machine's time at ${comparison['price_per_hour']:.2f} an hour.",
            "",
        ]
    return "\n".join(lines)


def row(arm):
    """One arm's line; why it has none, if it has none."""
    if arm["score"] is None:
        return f"| {arm['name']} | {arm['failed'] or 'not started'} | | | | | | |"
    tokens = arm["tokens"]
    cells = (
        arm["name"],
        percent(arm["score"]),
        f"{percent(arm['low'])} to {percent(arm['high'])}",
        p_value(arm["p_adjusted"]),
        seconds(arm["train_s"]),
        seconds(arm["latency_p50_s"]),
        money(arm["cost_per_1k"]),
        ", ".join(f"{tokens[kind]:,}" for kind in ("input", "cached", "output")),
    )
    return f"| {' | '.join(cells)} |"


def write_results(work, out):
    """Every job finished in this working folder, in one file for programs and one for people."""
    files = {name: work / name / "record.json" for name in JOBS}
    records = {n: json.loads(p.read_text("utf-8")) for n, p in files.items() if p.is_file()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "main_job.json").write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / "main_job.md").write_text(as_markdown(records), "utf-8")
    print(f"written to {out / 'main_job.md'}")


def main():
    parser = argparse.ArgumentParser(description="The main job on public data.")
    parser.add_argument("--only", choices=sorted(JOBS))
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of public data sets")
    parser.add_argument("--quick", action="store_true", help="a few examples and the floors: does it run?")
    parser.add_argument("--arms", help="these instead, joined by commas")
    given = parser.parse_args()
    if not given.shared.is_dir():
        print(
            f"{given.shared}: the public data sets are not there. Name their folder with --shared.",
            file=sys.stderr,
        )
        sys.exit(2)
    work = WORK / ("main_job_quick" if given.quick else "main_job")
    for name in [given.only] if given.only else JOBS:
        (work / name).mkdir(parents=True, exist_ok=True)
        job = JOBS[name](given.shared, work / name, given.quick)
        arms = given.arms.split(",") if given.arms else FLOORS[name] if given.quick else job.arms
        print(f"{job.title}: {', '.join(arms)}", flush=True)
        comparison = run(name, job, work / name, arms)
        print(comparison["verdict"]["sentence"], flush=True)
        kept = json.dumps(record(job, comparison), ensure_ascii=False)
        (work / name / "record.json").write_text(kept, "utf-8")
    # A smoke test must not overwrite what was measured.
    write_results(work, work if given.quick else RESULTS)


if __name__ == "__main__":
    main()
