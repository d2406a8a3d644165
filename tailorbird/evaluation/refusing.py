"""How well the gate in front of the answers tells what the documents don't, on questions it was not fitted to."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tailorbird.evaluation.abstention import auroc
from tailorbird.evaluation.statistics import Interval, score_interval
from tailorbird.records import Example
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.relevance import gate_of, relevance_cases

FOLDS = 5


@dataclass(frozen=True)
class RefusalScores:
    """What `knowledge` would refuse, by the gate that it would fit to such questions: shares with 95 % intervals.

    Each question is judged by a gate that was fitted to four fifths of the others. `kept` is the share of those with
    an answer that pass; `refused` of those without one that don't, None where there are none; `left_out` of those with
    an answer that don't where the document with it is taken out of what was found. `auroc` is the chance that a case
    that should pass gets more than one that should not, `similarity_auroc` what the best passage's similarity would
    make of it alone.
    """

    auroc: float
    similarity_auroc: float
    kept: Interval
    refused: Interval | None
    left_out: Interval | None
    answerable: int
    unanswerable: int


def refusal_scores(index: KnowledgeIndex, examples: Sequence[Example], k: int) -> RefusalScores | None:
    """When `knowledge` would refuse; None where there are too few cases of one kind to fit a gate to four fifths."""
    cases = relevance_cases(index, examples, k)
    questions = sorted({case.question for case in cases})
    random.Random(0).shuffle(questions)
    fold = {question: place % FOLDS for place, question in enumerate(questions)}
    chances = dict[int, float]()
    for number in range(FOLDS):
        gate = gate_of([case for case in cases if fold[case.question] != number])
        if gate is None:
            return None
        for place, case in enumerate(cases):
            if fold[case.question] == number:
                # Gates of several folds have scales of their own; what they share is the distance to the cut.
                chances[place] = gate.chance(case.figures) - gate.cut
    margins = [chances[place] for place in range(len(cases))]
    should = [case.should_pass for case in cases]
    told = auroc(margins, should), auroc([case.figures[0] for case in cases], should)
    if told[0] is None or told[1] is None:
        return None

    kept = [margin >= 0 for margin, case in zip(margins, cases, strict=True) if case.should_pass]
    refused = [
        (margin < 0, case.left_out)
        for margin, case in zip(margins, cases, strict=True)
        if not case.should_pass
    ]
    return RefusalScores(
        auroc=told[0],
        similarity_auroc=told[1],
        kept=score_interval(list(map(float, kept))),
        refused=_share([is_refused for is_refused, left_out in refused if not left_out]),
        left_out=_share([is_refused for is_refused, left_out in refused if left_out]),
        answerable=len(kept),
        unanswerable=sum(not left_out for _, left_out in refused),
    )


def _share(hits: Sequence[bool]) -> Interval | None:
    return score_interval(list(map(float, hits))) if hits else None
