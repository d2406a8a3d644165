"""Which metaprompt is best on dev: a race of candidates, within a budget of seconds or tokens.

Sequential halving (Karnin, Koren & Somekh 2013): all candidates answer the same first dev examples, the better half
goes on to twice as many, and so on. One that is clearly worse on the same examples is out at once. Two races are
run: over what is shown (which examples, how many, in which layout), then, from its winner, over how it is said.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tailorbird.data.task import LISTED_LABELS, Data
from tailorbird.errors import ContextTooLong
from tailorbird.evaluation.metrics import default_metric
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import Completion, Example, Layout
from tailorbird.sources.bm25 import words
from tailorbird.sources.keywords import STOP_WORDS
from tailorbird.techniques.asking import Pace
from tailorbird.techniques.metaprompt import Metaprompt
from tailorbird.techniques.selection import PER_REQUEST, Order, Select

log = logging.getLogger(__name__)

FIRST_BLOCK = 16
"""Dev examples that every candidate answers."""
CLEARLY = 2.0
"""Standard errors of a paired difference by which one must be worse to be out at once."""
SURENESS = 0.01
"""What the right label's probability adds to a score: few examples make many ties."""
KEYWORDS = 3
"""Words that describe a label."""

RACED_K = (5, 3, 8, 1, 0, 16)
RACED_SELECTS: tuple[Select, ...] = ("nearest", "balanced", "hybrid", "mmr")
CLASSIFY_INSTRUCTIONS = (
    "Name the category of the message.",
    "Read the message and answer with the one category that fits it best.",
)
ANSWER_INSTRUCTIONS = (
    "Answer the question in a few words.",
    "Give only the answer, without a sentence around it.",
)


@dataclass(frozen=True)
class Choice:
    """What the search chooses.

    `described` lists the labels with words that tell them apart; `examples` are the ids of those that are shown
    to every request, in order, where somebody chose them.
    """

    select: Select = "nearest"
    k: int = 5
    order: Order = "nearest_last"
    layout: Layout = "chat"
    instruction: str | None = None
    described: bool = False
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Space:
    """What may be chosen; one value where it is given."""

    selects: tuple[Select, ...]
    ks: tuple[int, ...]
    orders: tuple[Order, ...]
    layouts: tuple[Layout, ...]
    instructions: tuple[str | None, ...]
    descriptions: tuple[bool, ...]

    @property
    def first(self) -> Choice:
        """The first of everything: the usual, or what is given."""
        return Choice(
            self.selects[0],
            self.ks[0],
            self.orders[0],
            self.layouts[0],
            self.instructions[0],
            self.descriptions[0],
        )


@dataclass
class Tried:
    """A candidate and how it did: a score for each dev example answered, and the tokens that this took."""

    choice: Choice
    scores: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: str = ""

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores) if self.scores else -1.0

    def to_json(self) -> dict[str, Any]:
        """For the artefact: what was tried, and what came of it."""
        facts = {"select": self.choice.select, "k": self.choice.k, "layout": self.choice.layout}
        rest = {
            "order": self.choice.order,
            "described": self.choice.described,
            **({"instruction": self.choice.instruction} if self.choice.instruction is not None else {}),
            **({"shown": list(self.choice.examples)} if self.choice.examples else {}),
        }
        found = {"score": round(self.mean, 4), "examples": len(self.scores)}
        return {**facts, **rest, **({"failed": self.failed} if self.failed else found)}


@dataclass
class Budget:
    """Seconds and tokens that a search may take; it stops before what would probably be too much."""

    seconds: float
    tokens: int | None = None
    used_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def allows(self, seconds: float, tokens: float) -> bool:
        """Whether so much more is left."""
        in_time = time.monotonic() - self.started + seconds <= self.seconds
        return in_time and (self.tokens is None or self.used_tokens + tokens <= self.tokens)

    def rest(self) -> Budget:
        """What is left of it, as a budget that begins now."""
        tokens = None if self.tokens is None else max(0, self.tokens - self.used_tokens)
        return Budget(max(0.0, self.seconds - (time.monotonic() - self.started)), tokens)


def search(  # noqa: PLR0917 - who searches what, and how long
    model: Model,
    data: Data,
    build: Callable[[Choice], Metaprompt],
    space: Space,
    budget: Budget,
    proposed: Sequence[Tried] = (),
) -> list[Tried]:
    """All that were tried, the best first; at least the first candidate, whatever the budget.

    `proposed` are candidates that somebody found, with what they scored on the first dev examples; they come right
    after the first.
    """
    start, *others = shown_candidates(space.first, space)
    half = replace_seconds(budget, 0.5)
    known = {tried.choice: tried for tried in proposed}
    candidates = list(dict.fromkeys([start, *known, *others]))
    shown = race(model, data, build, candidates, half, known=known)
    budget.used_tokens = half.used_tokens
    said = [c for c in said_candidates(shown[0].choice, space) if c != shown[0].choice]
    if not said:
        return shown
    again = race(model, data, build, [shown[0].choice, *said], budget, known={shown[0].choice: shown[0]})
    return [*again, *shown[1:]]


def replace_seconds(budget: Budget, share: float) -> Budget:
    """A budget that ends after a part of the time and of the tokens."""
    tokens = None if budget.tokens is None else int(budget.tokens * share)
    return replace(budget, seconds=budget.seconds * share, tokens=tokens)


def shown_candidates(start: Choice, space: Space) -> Iterator[Choice]:
    """The start, then what differs from it in one thing, then in two."""
    yield start
    seen = {start}
    ones = [
        *(replace(start, layout=layout) for layout in space.layouts),
        *(replace(start, k=k) for k in space.ks),
        *(replace(start, select=select) for select in space.selects),
    ]
    twos = [replace(one, layout=layout) for one in ones for layout in space.layouts]
    for choice in (*ones, *twos):
        # Without examples it is all the same how they would have been chosen.
        plain = replace(choice, select=start.select) if choice.k == 0 else choice
        if plain not in seen:
            seen.add(plain)
            yield plain


def said_candidates(start: Choice, space: Space) -> Iterator[Choice]:
    """What differs from the start in its order, its instruction or whether labels are described."""
    yield start
    if start.select in PER_REQUEST and start.k > 1:
        yield from (replace(start, order=order) for order in space.orders if order != start.order)
    for described in space.descriptions:
        for instruction in space.instructions:
            choice = replace(start, instruction=instruction, described=described)
            if choice != start:
                yield choice


def race(  # noqa: PLR0917 - who races, where, and how long
    model: Model,
    data: Data,
    build: Callable[[Choice], Metaprompt],
    candidates: Sequence[Choice],
    budget: Budget,
    known: Mapping[Choice, Tried] | None = None,
) -> list[Tried]:
    """Sequential halving on growing parts of dev; all candidates that were asked anything, the best first."""
    known = known or {}
    running = [known.get(choice) or Tried(choice) for choice in candidates]
    made: dict[Choice, Metaprompt] = {}
    out: list[Tried] = []
    block, most = min(FIRST_BLOCK, len(data.dev)), len(data.dev)
    seconds = tokens = 0.0
    pace = Pace()
    while running:
        asked = list[Tried]()
        for tried in running:
            part = data.dev[len(tried.scores) : block]
            if part and asked and not budget.allows(seconds * len(part), tokens * len(part)):
                break
            if part:
                if tried.choice not in made:  # not counted: the first one made embeds the pool for all
                    made[tried.choice] = build(tried.choice)
                began, before = time.monotonic(), tried.tokens
                _ask(model, data, made[tried.choice], part, tried)
                seconds = (time.monotonic() - began) / len(part)
                tokens = (tried.tokens - before) / len(part)
                budget.used_tokens += tried.tokens - before
            asked.append(tried)
            if pace.is_due():
                log.info(
                    "few_shot: %d of %d metaprompts have answered %d dev examples; the best has %.2f.",
                    len(asked),
                    len(running),
                    block,
                    max(one.mean for one in asked),
                )
        ended = len(asked) < len(running)
        left_out = [tried for tried in running[len(asked) :] if tried.scores]
        running, lost = _better_half(asked, ended=ended)
        out = [*lost, *left_out, *out]
        if ended or len(running) <= 1 or block >= most:
            break
        block = min(2 * block, most)
    return [*running, *out]


def _ask(model: Model, data: Data, made: Metaprompt, part: Sequence[Example], tried: Tried) -> None:
    _, metric = default_metric(data.task)
    try:
        answers = Wrapped(model, made).answer([data.task.ask(e) for e in part])
    except ContextTooLong as error:
        tried.failed = str(error)
        tried.scores += [-1.0] * len(part)
        return
    tried.tokens += sum(a.usage.input_tokens + a.usage.output_tokens for a in answers)
    tried.scores += [score(metric, e, a) for e, a in zip(part, answers, strict=True)]


def score(metric: Callable[[Example, Completion], float], example: Example, answer: Completion) -> float:
    """The metric, and a little of the right label's probability."""
    return metric(example, answer) + SURENESS * (answer.probabilities or {}).get(example.completion, 0.0)


def _better_half(asked: Sequence[Tried], *, ended: bool) -> tuple[list[Tried], list[Tried]]:
    """Those that go on, best first, and those that are out. Cheaper goes before dearer where scores are equal."""
    common = min(len(tried.scores) for tried in asked)
    ordered = sorted(
        asked, key=lambda t: (-float(np.mean(t.scores[:common])), t.tokens / max(1, len(t.scores)))
    )
    best = ordered[0]
    going = ordered if ended else ordered[: math.ceil(len(ordered) / 2)]
    kept = [tried for tried in going if tried is best or not _clearly_worse(tried, best, common)]
    return kept, [tried for tried in ordered if tried not in kept]


def _clearly_worse(tried: Tried, best: Tried, common: int) -> bool:
    gaps = np.array(best.scores[:common]) - np.array(tried.scores[:common])
    error = gaps.std(ddof=1) / math.sqrt(common) if common > 1 else math.inf
    return bool(gaps.mean() > CLEARLY * error)


def instructions_for(data: Data) -> tuple[str | None, ...]:
    """What the task may be put as: its own words first."""
    task = data.task
    if task.kind == "answer":
        return (None, *ANSWER_INSTRUCTIONS)
    listed = "Name the category of the message. Categories: " + ", ".join(task.labels) + "."
    others = (
        CLASSIFY_INSTRUCTIONS if len(task.labels) <= LISTED_LABELS else (listed, CLASSIFY_INSTRUCTIONS[1])
    )
    return (None, *(text for text in others if text != task.instruction))


def keyword_descriptions(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, str]:
    """For each label the words that its examples hold and the others' don't.

    >>> found = keyword_descriptions([Example.pair("my card", "card"), Example.pair("my bill", "pay")], ["card", "pay"])
    >>> found["pay"]
    'bill'
    """
    counts = {label: Counter[str]() for label in labels}
    for example in examples:
        if example.completion in counts:
            counts[example.completion].update(set(words(example.prompt)) - STOP_WORDS)
    held = Counter(word for count in counts.values() for word in count)
    found: dict[str, str] = {}
    for label, count in counts.items():
        worth = {
            word: n * math.log(len(labels) / held[word])
            for word, n in count.items()
            if held[word] < len(labels)
        }
        best = sorted(worth, key=lambda word: (-worth[word], word))[:KEYWORDS]
        if best:
            found[label] = ", ".join(best)
    return found
