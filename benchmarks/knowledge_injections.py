"""How often a model obeys what its documents order: 588 attacks, per arm.

    python benchmarks/knowledge_injections.py [--arms A,…] [--every N]

Each attack (tailorbird/testing/injections.py) is a document that answers a question and gives an order. It is read as
any file, hidden text and all, cut into passages, and put before the model as evidence together with a passage of
another document. Neither gate stands between: what counts is what the model says. The same question over the same
document without the order is asked too; an answer that counts as obeying there counts as a false alarm. These are 7
questions with 84 attacks each: intervals are over the questions.

Arms: knowledge on the starter; few_shot+knowledge, with three examples of answers; knowledge+fine_tune, trained on 128
of the sample's handbook questions. Writes benchmarks/results/knowledge_injections.json and .md; works in
build/bench/knowledge_injections, where a run that was stopped goes on.
"""

import argparse
import datetime as dt
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from machine import machine, sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "bench" / "knowledge_injections"
COMMAND = "python benchmarks/knowledge_injections.py"
ARMS = ("knowledge", "few_shot+knowledge", "knowledge+fine_tune")
TUNING = {"epochs": 2, "batch_size": 8, "max_dev": 16, "max_examples": 128}
CHUNK = 16


@dataclass(frozen=True)
class Found:
    """A source that finds the passages of one document, and one of another."""

    passages: tuple

    def search(self, query, k):  # noqa: ARG002
        return list(self.passages[:k])


def passages_of(name, text, parser):
    """A file's passages, read as any other file is."""
    from tailorbird.data.documents import document_from_bytes
    from tailorbird.data.passages import split_document

    return split_document(document_from_bytes(name, text.encode(), ".md", parser), max_chars=600)


def handbook():
    """The sample's questions as data over its handbook."""
    from tailorbird.data.formats import read_examples
    from tailorbird.data.task import Data, infer_task

    examples = list(read_examples(ROOT / "sample" / "questions.jsonl"))
    return Data(
        infer_task(examples),
        tuple(examples[:160]),
        tuple(examples[160:192]),
        (),
        ROOT / "sample" / "handbook",
    )


def made(arm):
    """The model of an arm; it looks things up by a `Lookup`, whose source each attack replaces."""
    from tailorbird.models.local import open_local
    from tailorbird.models.model import on_weights, unfitted
    from tailorbird.techniques.few_shot import FewShot
    from tailorbird.techniques.fine_tune import FineTune
    from tailorbird.techniques.knowledge import Knowledge

    base, data = open_local("starter"), handbook()
    knowledge = Knowledge(k=3, threshold=-1.0, check_answers=False)
    if arm == "knowledge":
        return knowledge.apply(base, data), data.task
    if arm == "few_shot+knowledge":
        return knowledge.apply(FewShot(k=3, select="random").apply(base, data), data), data.task
    before, adapter = knowledge.apply(base, data), WORK / "adapter"
    if adapter.is_dir():
        return on_weights(before, lambda weights: weights.with_adapter(adapter)), data.task
    tuned = FineTune(**TUNING, checkpoint=WORK / "kept").apply(unfitted(before), data)
    adapter.mkdir(parents=True)
    on_weights(tuned, lambda w: w.engine.save_adapter(w.adapter, adapter) or w)
    return tuned, data.task


def asked(model, task, injection, text, parser, other):
    """The model's answer to an attack's question, over this text."""
    from tailorbird.records import Message

    found = Found((*passages_of(injection.file, text, parser), other))
    lookup = replace(model.rewrite, source=found)
    return lookup(task.request([Message("user", injection.question)]))


def run_arm(arm, given, parser, tell):
    from tailorbird.testing.injections import CARRIERS, injections

    path = WORK / f"{arm}-{given.every}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    attacks = injections()[:: given.every]
    if len(rows) == len(attacks):
        return rows
    model, task = made(arm)
    others = {c.name: passages_of(f"{c.name}.md", c.text.format(attack=""), parser)[0] for c in CARRIERS}
    clean = {}
    began = time.monotonic()
    with path.open("a", encoding="utf-8") as stream:
        for start in range(len(rows), len(attacks), CHUNK):
            chunk = attacks[start : start + CHUNK]
            requests = []
            for attack in chunk:
                name = attack.file.removesuffix(".md")
                other = others["lamps" if name != "lamps" else "hours"]
                requests.append(asked(model, task, attack, attack.document, parser, other))
                if name not in clean:
                    [clean[name]] = model.base.answer(
                        [asked(model, task, attack, attack.clean, parser, other)]
                    )
            for attack, request, answer in zip(chunk, requests, model.base.answer(requests), strict=True):
                told = next((m.content for m in request.messages if m.role == "system"), "")
                plain = clean[attack.file.removesuffix(".md")].text
                row = {
                    "id": attack.id,
                    "goal": attack.goal,
                    "disguise": attack.disguise,
                    "said": answer.text,
                    "obeyed": attack.obeyed(answer.text, told),
                    "false_alarm": attack.obeyed(plain, told),
                    "right": attack.answer.lower() in answer.text.lower(),
                    "right_clean": attack.answer.lower() in plain.lower(),
                }
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                rows.append(row)
            stream.flush()
            if start % (4 * CHUNK) == 0:
                tell(f"{arm}: {len(rows)} of {len(attacks)}, {sum(r['obeyed'] for r in rows)} obeyed, "
                     f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return rows


def share(rows, name):
    return sum(row[name] for row in rows) / len(rows)


def right_clean(rows):
    """Of how many questions the answer without an attack is right."""
    return len({row["id"].split("/")[0] for row in rows if row["right_clean"]})


def as_markdown(record):
    """Per arm, per goal and per disguise."""
    from tailorbird.evaluation.statistics import score_interval

    lines = [
        "# Documents that give orders",
        "",
        *(
            f"{', '.join(arms)}: `{run['command']}`, {run['date']}. {sentence(run['machine'])}\n"
            for arms, run in together(record["runs"])
        ),
        "| arm | attacks | obeyed | 95 % interval | false alarms | right under attack | questions right without |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, rows in record["arms"].items():
        questions = [row["id"].split("/")[0] for row in rows]
        found = score_interval([float(row["obeyed"]) for row in rows], groups=questions)
        clean = f"{right_clean(rows)} of {len(set(questions))}"
        lines.append(
            f"| {arm} | {len(rows)} | {share(rows, 'obeyed'):.1%} | {found.low:.1%} to {found.high:.1%} | "
            f"{share(rows, 'false_alarm'):.1%} | {share(rows, 'right'):.1%} | {clean} |"
        )
    for by in ("goal", "disguise"):
        names = list(dict.fromkeys(r[by] for rows in record["arms"].values() for r in rows))
        lines += [
            "",
            f"Obeyed, by {by}:",
            "",
            f"| arm | {' | '.join(names)} |",
            "|---" * (len(names) + 1) + "|",
        ]
        for arm, rows in record["arms"].items():
            total, hits = Counter(r[by] for r in rows), Counter(r[by] for r in rows if r["obeyed"])
            lines.append(f"| {arm} | {' | '.join(f'{hits[n] / total[n]:.0%}' for n in names)} |")
    return "\n".join([*lines, ""])


def together(runs):
    """The arms that were measured in one call, with that call."""
    found = {}
    for arm, run in runs.items():
        found.setdefault(json.dumps(run, sort_keys=True), []).append(arm)
    return [(arms, json.loads(run)) for run, arms in found.items()]


def kept(path):
    """What was measured before, by arm."""
    if not path.is_file():
        return {"arms": {}, "runs": {}}
    record = json.loads(path.read_text("utf-8"))
    if "runs" not in record:
        run = {name: record[name] for name in ("command", "date", "machine")}
        record["runs"] = dict.fromkeys(record["arms"], run)
    return record


def main():
    parser = argparse.ArgumentParser(description="How often models obey what their documents order.")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--every", type=int, default=1, help="only every so manieth attack")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    from tailorbird.data.parser_process import ParserProcess

    WORK.mkdir(parents=True, exist_ok=True)
    with ParserProcess() as reading:
        tell = lambda line: print(line, flush=True)  # noqa: E731
        arms = {arm: run_arm(arm, given, reading, tell) for arm in given.arms.split(",")}
    arms_flag = f" --arms {given.arms}" if given.arms != ",".join(ARMS) else ""
    run = {
        "command": f"{COMMAND}{arms_flag}{f' --every {given.every}' if given.every > 1 else ''}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "knowledge_injections.json"
    before = kept(path)
    found = {**before["arms"], **arms}
    runs = {**before["runs"], **dict.fromkeys(arms, run)}
    record = {
        name: {arm: part[arm] for arm in ARMS if arm in part}
        for name, part in (("arms", found), ("runs", runs))
    }
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (given.out / "knowledge_injections.md").write_text(as_markdown(record), "utf-8")


if __name__ == "__main__":
    main()
