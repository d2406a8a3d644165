"""Does looking up what was said before find the document of a follow-up question?

    python benchmarks/knowledge_follow_ups.py

28 questions that lean on the conversation before them and 10 that change the subject, over the sample's handbook
(follow_ups.jsonl, written for this), and 160 of the sample's own questions, which all stand alone, each behind another
one drawn by chance: how often the document that answers is among the first 1 and 3, for the last question alone, for it
after the whole conversation, and as `tailorbird.techniques.chat_queries` looks it up.
Writes benchmarks/results/knowledge_follow_ups.md.
"""

import datetime as dt
import json
import random
from pathlib import Path

from machine import machine, sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "python benchmarks/knowledge_follow_ups.py"
KINDS = {
    "leans": "leans on what was said",
    "alone": "changes the subject",
    "own": "the sample's, behind another",
}
DRAWN = 160


def behind_others():
    """Questions of the sample, each behind another one and its answer."""
    from tailorbird.data.formats import read_examples

    examples = [e for e in read_examples(ROOT / "sample" / "questions.jsonl") if e.document]
    dice = random.Random(3)
    for example in dice.sample(examples, DRAWN):
        other = dice.choice([e for e in examples if e.document != example.document])
        said = (("user", other.prompt), ("assistant", other.completion), ("user", example.prompt))
        yield {
            "kind": "own",
            "messages": [{"role": role, "content": content} for role, content in said],
            "document": example.document,
        }


def main():
    from tailorbird.evaluation.statistics import wilson
    from tailorbird.records import Message, Request
    from tailorbird.sources.relevance import synced_index
    from tailorbird.techniques.lookup import Lookup

    lookup = Lookup(synced_index(ROOT / "sample" / "handbook", 600), 3, -1.0)
    rows = [
        json.loads(line)
        for line in (ROOT / "benchmarks" / "follow_ups.jsonl").read_text("utf-8").splitlines()
    ]
    rows += behind_others()
    ways = {
        "the question alone": lambda turns: turns[-1:],
        "the whole conversation": lambda turns: [Message("user", "\n".join(t.content for t in turns))],
        "as Tailorbird looks it up": lambda turns: turns,
    }
    lines = [
        "# Follow-up questions",
        "",
        f"`{COMMAND}`, {dt.datetime.now(dt.UTC).date().isoformat()}. {sentence(machine())}",
        "",
        "| looked up | question | found first | among the first 3 | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for kind, what in KINDS.items():
        asked = [row for row in rows if row["kind"] == kind]
        for way, of in ways.items():
            first = among = 0
            for row in asked:
                turns = tuple(of([Message(**m) for m in row["messages"]]))
                found = [p.document for p in lookup.found(Request(turns), 3)]
                first += found[:1] == [row["document"]]
                among += row["document"] in found
            low, high = wilson(among, len(asked))
            lines.append(
                f"| {way} | {what} | {first} of {len(asked)} | {among} of {len(asked)} | {low:.0%} to {high:.0%} |"
            )
    (RESULTS / "knowledge_follow_ups.md").write_text("\n".join([*lines, ""]), "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
