"""How right is an answer? Metrics of one answer in [0, 1], by name, and a few measures of a whole set.

In what form answers are compared, and what a refusal is, says `answer_forms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tailorbird.data.task import Task
from tailorbird.evaluation.answer_forms import compared_texts, is_refusal, is_unanswerable, normalise
from tailorbird.evaluation.text_metrics import bleu, chrf, json_fields, rouge_l
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example

Metric = Callable[[Example, Completion], float]
"""A score in [0, 1] of one answer; 1 is best."""


def accuracy(example: Example, completion: Completion) -> float:
    """1 where the answer is exactly the label, spaces around it aside.

    >>> accuracy(Example.pair("Where is my card?", "delivery"), Completion(" delivery"))
    1.0
    """
    return float(completion.text.strip() == example.completion.strip())


def exact_match(example: Example, completion: Completion) -> float:
    """1 where the normalised texts are equal; of an unanswerable example, where the answer refuses.

    >>> exact_match(Example.pair("Where?", "Paris"), Completion("paris."))
    1.0
    """
    if is_unanswerable(example):
        return float(is_refusal(completion.text))
    expected, given = _compared(example, completion)
    return float(expected == given)


def _compared(example: Example, completion: Completion) -> tuple[str, str]:
    """The expected and the given answer, normalised."""
    expected, given = map(normalise, compared_texts(example, completion))
    return expected, given


def token_f1(example: Example, completion: Completion) -> float:
    """The harmonic mean of precision and recall over normalised tokens, as SQuAD counts them.

    F1 = 2PR / (P + R); where either text has no token at all, 1 if both have none, else 0.

    >>> round(token_f1(Example.pair("Who?", "Ada Lovelace"), Completion("Lovelace")), 3)
    0.667
    """
    expected, got = (text.split() for text in _compared(example, completion))
    if not expected or not got:
        return float(expected == got)
    shared = sum((Counter(expected) & Counter(got)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(got), shared / len(expected)
    return 2 * precision * recall / (precision + recall)


def answered_right(example: Example, completion: Completion) -> float:
    """`token_f1` that knows refusals: 1 for refusing the unanswerable, 0 for refusing the answerable.

    >>> answered_right(Example.pair("Who?", NOT_IN_DOCUMENTS), Completion("It was Ada."))
    0.0
    """
    refused = is_refusal(completion.text)
    if is_unanswerable(example):
        return float(refused)
    return 0.0 if refused else token_f1(example, completion)


def valid(example: Example, completion: Completion) -> float:  # noqa: ARG001 - a Metric takes both
    """1 where a model that was asked for one of a closed set named one of it."""
    return float(completion.valid)


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "token_f1": answered_right,
    "rouge_l": rouge_l,
    "chrf": chrf,
    "bleu": bleu,
    "json_fields": json_fields,
    "valid": valid,
}
"""Metrics by the names that runs and reports use; "token_f1" is the one that knows refusals."""


def default_metric(task: Task) -> tuple[str, Metric]:
    """The primary metric of a task and its name: accuracy of labels, fields of JSON, token F1 of free answers.

    Where a schema is kept to, token F1 would tell nothing: without punctuation a document is a word or two.
    """
    name = "accuracy" if task.kind == "classify" else "json_fields" if task.schema else "token_f1"
    return name, METRICS[name]


def default_metrics(task: Task) -> dict[str, Metric]:
    """All metrics of a task by name, the primary one first."""
    name, metric = default_metric(task)
    second = "valid" if task.kind == "classify" else "exact_match"
    return {name: metric, second: METRICS[second]}


def macro_f1(expected: Sequence[str], answered: Sequence[str]) -> float:
    """The mean of the F1 of every expected label: rare labels count as much as frequent ones.

    F1 of a label = 2·TP / (2·TP + FP + FN) (Sokolova & Lapalme 2009, Table 3). Answers outside the
    expected labels count as misses; in [0, 1]; 0 of an empty set.
    """
    true, said = Counter(expected), Counter(answered)
    hits = Counter(e for e, a in zip(expected, answered, strict=True) if e == a)
    scores = [2 * hits[label] / (true[label] + said[label]) for label in true]
    return sum(scores) / len(scores) if scores else 0.0


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often a model refused, apart for questions with and without an answer in the documents."""

    answerable: int
    answerable_refused: int
    unanswerable: int
    unanswerable_refused: int

    @property
    def wrongly_refused(self) -> float:
        """The share of answerable questions that were refused, in [0, 1]; 0 where there are none."""
        return self.answerable_refused / self.answerable if self.answerable else 0.0

    @property
    def rightly_refused(self) -> float:
        """The share of unanswerable questions that were refused, in [0, 1]; 0 where there are none."""
        return self.unanswerable_refused / self.unanswerable if self.unanswerable else 0.0


def refusals(expected: Sequence[str], answered: Sequence[str]) -> Refusals:
    """Counts refusals among answers, given the expected ones."""
    refusal = normalise(NOT_IN_DOCUMENTS)
    pairs = [(normalise(e) == refusal, is_refusal(a)) for e, a in zip(expected, answered, strict=True)]
    counts = Counter(pairs)
    return Refusals(
        answerable=counts[False, True] + counts[False, False],
        answerable_refused=counts[False, True],
        unanswerable=counts[True, True] + counts[True, False],
        unanswerable_refused=counts[True, True],
    )
