"""How right a model's answers are, and how well they cite the documents that hold them.

A citation is right where it is of the document that its question names. Precision is the share of right ones of an
answer's citations, recall whether there is a right one: as ALCE has them (Gao et al. 2023, arXiv:2305.14627), but held
against the documents that people named instead of against a judge's opinion. Of refusals nothing is cited, so both are
of the questions that were answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.errors import DataError
from tailorbird.evaluation.metrics import answered_right, is_refusal, is_unanswerable
from tailorbird.evaluation.statistics import Interval, score_interval
from tailorbird.records import Completion, Example

BATCH = 32


@dataclass(frozen=True)
class AnswerScores:
    """A model's answers to questions whose document is known, and to those that no document answers.

    Means with 95 % intervals, each in [0, 1], None where there is nothing to measure: `score` is token F1 that knows
    refusals, of all; `answered` and `refused` the shares of the answerable that got an answer and of the unanswerable
    that got none; `citation_precision` and `citation_recall` are of the answered, see above; `support` is the part of
    the answers' words that the cited evidence holds.
    """

    model: str
    questions: int
    score: Interval
    answered: Interval | None
    refused: Interval | None
    citation_precision: Interval | None
    citation_recall: Interval | None
    support: Interval | None

    def intervals(self) -> dict[str, Interval]:
        """What was measured, by name."""
        named = ("score", "answered", "refused", "citation_precision", "citation_recall", "support")
        found = {name: getattr(self, name) for name in named}
        return {name: interval for name, interval in found.items() if interval is not None}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rounded = {
            name: {"mean": round(i.mean, 4), "low": round(i.low, 4), "high": round(i.high, 4)}
            for name, i in self.intervals().items()
        }
        return {"model": self.model, "questions": self.questions, **rounded}


@dataclass(frozen=True)
class CitationScores:
    """Precision of every answer that cites, and recall (0 or 1) of every answer; see above."""

    precision: list[float]
    recall: list[float]


def citation_scores(answers: Iterable[tuple[str, Completion]]) -> CitationScores:
    """How well answers cite, given with the document that holds what was asked; refusals are none."""
    found = CitationScores([], [])
    for document, completion in answers:
        right = [citation.document == document for citation in completion.citations]
        found.recall.append(float(any(right)))
        if right:
            found.precision.append(sum(right) / len(right))
    return found


def answer_scores(
    model: str,
    answer: Callable[[Sequence[str]], Sequence[Completion]],
    examples: Sequence[Example],
    on_answers: Callable[[int, int], None] | None = None,
) -> AnswerScores:
    """Asks a model every question that can be judged.

    Args:
        model: its name.
        answer: gives the completions to questions, in their order.
        examples: questions; those that neither name a document nor are to be refused are left out.
        on_answers: called with how many are answered, of how many.

    Raises:
        DataError: none can be judged.
    """
    asked = [e for e in examples if e.document is not None or is_unanswerable(e)]
    if not asked:
        raise DataError(
            f"knowledge: none of {len(examples)} examples names its document or is to be refused. Give rows with "
            '"document": the name of the document that holds the answer.'
        )
    completions: list[Completion] = []
    for start in range(0, len(asked), BATCH):
        completions += answer([e.prompt for e in asked[start : start + BATCH]])
        if on_answers:
            on_answers(len(completions), len(asked))
    scores, answered, refused = list[float](), list[float](), list[float]()
    given, support = list[tuple[str, Completion]](), list[float]()
    for example, completion in zip(asked, completions, strict=True):
        scores.append(answered_right(example, completion))
        is_refused = is_refusal(completion.text)
        if is_unanswerable(example):
            refused.append(float(is_refused))
            continue
        answered.append(float(not is_refused))
        if is_refused:
            continue
        given.append((str(example.document), completion))
        if completion.support is not None:
            support.append(completion.support)

    cited = citation_scores(given)

    def interval(values: Sequence[float]) -> Interval | None:
        return score_interval(values) if values else None

    return AnswerScores(
        model,
        len(asked),
        score_interval(scores),
        *map(interval, (answered, refused, cited.precision, cited.recall, support)),
    )
