"""Answers and the passages they rest on: what training shows of them, and how much ground an answer needs.

Trained with what holds the answer among other passages, a model learns to find it there and not to trust the first
(Zhang et al. 2024, "RAFT: Adapting Language Model to Domain Specific RAG", arXiv 2403.10131); where it is missing, the
answer to be learnt is that the documents don't tell.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tailorbird.data.citing import Support, support_for
from tailorbird.evaluation.metrics import answered_right, is_refusal, is_unanswerable, normalise
from tailorbird.records import Completion, Example, Passage, Request
from tailorbird.sources.gate import Gate, fit_gate
from tailorbird.techniques.asking import answer_all

if TYPE_CHECKING:
    from tailorbird.data.task import Data
    from tailorbird.models.model import Model

log = logging.getLogger(__name__)

FURTHER = 20
"""Passages beyond those that are shown, among which what holds the answer is looked for."""
REFUSED = 0.1
"""The part of what training sees that is to be refused, where the examples have less."""
MOST_COUNTED = 1_000
MOST_DEV = 32
"""Dev examples whose answers the gate behind the answers is fitted to."""
ONLY_NUMBERS = Gate((0.0, 4.0, 4.0, 0.0), -4.0, 0.5)
"""The gate that nothing was fitted to: an answer with numbers that stand in none of its passages is withheld."""
RIGHT = 0.5
"""Score from which an answer counts as right."""


class Looking(Protocol):
    """What finds passages for a request, `k` of them, and shows them to a model."""

    @property
    def k(self) -> int: ...

    def found(self, request: Request, k: int) -> list[Passage]: ...

    def shown(self, request: Request, evidence: Sequence[Passage]) -> Request: ...

    def __call__(self, request: Request) -> Request: ...


def holds_answer(passage: Passage, example: Example) -> bool:
    """Whether the completion's words stand in a passage as they are, case and punctuation aside."""
    answer = normalise(example.completion)
    return bool(answer) and f" {answer} " in f" {normalise(passage.text)} "


def gold_of(example: Example, found: Sequence[Passage]) -> Passage | None:
    """The passage among these that holds an example's answer; None where none is known to.

    In the document that the example names, the first that holds the answer's words, or else its first. Where it names
    none, the first of all that holds them.
    """
    own = [p for p in found if example.document in (None, p.document)]
    holding = next((p for p in own if holds_answer(p, example)), None)
    return holding or (own[0] if own and example.document is not None else None)


def with_gold(example: Example, found: Sequence[Passage], k: int) -> Sequence[Passage]:
    """The k passages that training shows: the best ones, and among them what holds the answer.

    Where the search didn't bring it among the first k, it takes one's place, as likely any.
    """
    gold, best = gold_of(example, found), list(found[:k])
    if gold is not None and gold not in best and best:
        best[random.Random(f"gold/{example.id}").randrange(len(best))] = gold
    return best


def missing_share(examples: Sequence[Example]) -> float:
    """The share of the examples to be shown a second time without their answer, so that `REFUSED` are refused in all.

    Where so many are unanswerable already it is 0: a model that sees more refusals than it will need refuses too much.
    """
    first = examples[:MOST_COUNTED]
    if not first:
        return 0.0
    refused = sum(map(is_unanswerable, first)) / len(first)
    # of 1 + missing lessons an example, refused + missing are refusals
    return max(0.0, (REFUSED - refused) / (1 - REFUSED))


def without_gold(example: Example, found: Sequence[Passage], k: int, share: float) -> Sequence[Passage]:
    """The k best passages that don't hold the answer, for a `share` of the examples; else none."""
    gold = gold_of(example, found)
    if gold is None or random.Random(f"missing/{example.id}").random() >= share:
        return ()
    return [p for p in found if p.document != gold.document and not holds_answer(p, example)][:k]


def ground_figures(completion: Completion, support: Support) -> tuple[float, ...]:
    """What tells whether an answer has ground, all in [-1, 1].

    The best passage's similarity; the part of the answer's words, and of its numbers, that the evidence holds; the
    part of the question's telling words that stand around them.
    """
    evidence = completion.asked.evidence if completion.asked else ()
    return max((p.score for p in evidence), default=-1.0), support.share, support.numbers, support.near


def fit_ground(lookup: Looking, base: Model, data: Data) -> Gate:
    """The gate behind the answers; `ONLY_NUMBERS` where there are too few right answers, or nothing to refuse.

    Right answers should pass. What should not are answers to what the documents don't tell: to unanswerable examples,
    and to answerable ones that were shown other passages than those of their document.
    """
    dev = data.dev[:MOST_DEV]
    shown: list[tuple[Example | None, Request]] = []
    for example in dev:
        request = lookup(data.task.ask(example))
        if request.choices is None:
            shown.append((None if is_unanswerable(example) else example, request))
        # Deeper only where the answer is near the top: live sources, which may be paid for, are asked anew for more.
        if not is_unanswerable(example) and gold_of(example, lookup.found(data.task.ask(example), lookup.k)):
            found = lookup.found(data.task.ask(example), lookup.k + FURTHER)
            if others := without_gold(example, found, lookup.k, 1.0):
                shown.append((None, lookup.shown(data.task.ask(example), others)))
    answers = answer_all(base, [request for _, request in shown], "knowledge")
    good, bad = list[tuple[float, ...]](), list[tuple[float, ...]]()
    for (example, _), answer in zip(shown, answers, strict=True):
        support = support_for(answer)
        if support is None or is_refusal(answer.text):
            continue
        if example is None:
            bad.append(ground_figures(answer, support))
        elif answered_right(example, answer) >= RIGHT:
            good.append(ground_figures(answer, support))
    gate = fit_gate(good, bad)
    if gate is None and data.dev:
        log.info(
            "knowledge: answers are checked for invented numbers only: of %d dev examples %d are answered right and "
            "%d answers have no ground; 5 of each are needed to find how much ground an answer needs.",
            len(dev),
            len(good),
            len(bad),
        )
    return gate or ONLY_NUMBERS
