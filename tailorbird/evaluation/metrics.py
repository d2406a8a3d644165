"""How right is an answer? Metrics of one answer in [0, 1], and a few measures of a whole set.

Free answers are normalised as SQuAD does it (Rajpurkar et al. 2016, arXiv:1606.05250, official
script v1.1): lower case, no punctuation, no articles, single spaces. Examples whose completion is
`NOT_IN_DOCUMENTS` are unanswerable, as in SQuAD 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822): there
only a refusal is right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tailorbird.data.task import Task
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, uncited

Metric = Callable[[Example, Completion], float]
"""A score in [0, 1] of one answer; 1 is best."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(example: Example, completion: Completion) -> float:
    """1 where the answer is exactly the label, spaces around it aside.

    >>> accuracy(Example.pair("Where is my card?", "delivery"), Completion(" delivery"))
    1.0
    """
    return float(completion.text.strip() == example.completion.strip())


def normalise(text: str) -> str:
    """SQuAD's normal form of an answer.

    >>> normalise("The  Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def is_refusal(text: str) -> bool:
    """True where an answer says, first of all, that the documents do not hold it.

    >>> is_refusal("Not in the documents, I am afraid")
    True
    """
    refusal = normalise(NOT_IN_DOCUMENTS)
    normal = normalise(text)
    return normal == refusal or normal.startswith(refusal + " ")


def is_unanswerable(example: Example) -> bool:
    """True where the right answer of an example is a refusal."""
    return normalise(example.completion) == normalise(NOT_IN_DOCUMENTS)


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
    """The expected and the given answer, normalised; without citations where there were numbered passages to cite."""
    texts = example.completion, completion.text
    cites = bool(completion.asked and completion.asked.evidence)
    expected, given = (normalise(uncited(text) if cites else text) for text in texts)
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
    "valid": valid,
}
"""Metrics by the names that runs and reports use; "token_f1" is the one that knows refusals."""


def default_metric(task: Task) -> tuple[str, Metric]:
    """The primary metric of a task and its name: accuracy of labels, token F1 of free answers."""
    name = "accuracy" if task.kind == "classify" else "token_f1"
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
