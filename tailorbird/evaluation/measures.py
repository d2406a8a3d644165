"""Measures of a whole set of answers, beside the metrics of each: what a mean of scores does not show.

Each is computed from the answers as they were kept, without the model, and left out where there is nothing to measure
it on: a model without evidence retrieves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from tailorbird.data.citing import support_for
from tailorbird.data.task import Task
from tailorbird.evaluation.abstention import AbstentionCurve, abstention_curve
from tailorbird.evaluation.answer_forms import expects_refusal, is_refusal
from tailorbird.evaluation.answering import citation_scores
from tailorbird.evaluation.arms import ArmRun
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.evaluation.metrics import macro_f1, refusals
from tailorbird.evaluation.retrieval import rank_scores
from tailorbird.evaluation.text_metrics import is_json
from tailorbird.records import ABSTAINED

BINS = 10
"""Of equally many answers each, over which calibration is measured."""
RELIABLE = 0.95
"""Of the answers that are given, how many must be right for a share of them to count as reliable."""
DEPTH = 10
"""Documents of a ranking that count for nDCG."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a measure says in one line, and how it is written: in percent, or as a number."""

    meaning: str
    is_share: bool = True


MEASURES: Mapping[str, Measure] = {
    "macro_f1": Measure("Mean F1 of the labels: rare ones count as much as frequent ones."),
    "invalid_rate": Measure("Answers that are none of the labels, or no JSON where a schema is kept to."),
    "abstained": Measure("Answers in which the model says that it is unsure."),
    "calibration_error": Measure(
        "How far stated probabilities lie from how often they are right, over ten equal parts of the answers; with few "
        "answers it looks larger than it is."
    ),
    "brier": Measure(
        "Squared error of the probabilities of all labels: 0 is perfect, 2 is sure and wrong.", is_share=False
    ),
    "aurc": Measure(
        "Mean share of wrong answers over all thresholds below which the model abstains: 0 where the wrong ones are "
        "always the least sure."
    ),
    "reliable_coverage": Measure(
        "The most that could be answered, the surest first, with 95 % of it right; the threshold is chosen on these "
        "same answers."
    ),
    "refusal_correctness": Measure(
        "Questions refused where no answer existed, or not refused where one did."
    ),
    "rightly_refused": Measure("Of the questions without an answer in the documents, those refused."),
    "wrongly_refused": Measure("Of the questions with an answer, those refused."),
    "retrieval_recall": Measure("The document that holds the answer is among those shown."),
    "retrieval_ndcg": Measure("How far up it stands there: 100 where it is always the first, nDCG@10."),
    "citation_precision": Measure("Of an answer's citations, those of the document that holds the answer."),
    "citation_recall": Measure("Answers with a citation of the document that holds the answer."),
    "groundedness": Measure(
        "The part of the answers' words that the passages shown hold, found by comparing words; no model judges."
    ),
    "perplexity": Measure(
        "How surprised the weights are at the completion that should come, per token: 1 is not at all. Of up to "
        "32 test examples, for weights on this machine alone; comparable only with one tokenizer.",
        is_share=False,
    ),
    "bits_per_byte": Measure(
        "The same in bits per byte of the completion, comparable between tokenizers.", is_share=False
    ),
    "accuracy": Measure("Answers that are exactly the completion that should come."),
    "exact_match": Measure("Answers that equal it but for case, punctuation and articles."),
    "token_f1": Measure("How many words answer and completion share, both ways (F1)."),
    "rouge_l": Measure("How long a run of words, others between them, both hold (F1)."),
    "chrf": Measure("How many runs of one to six characters both share, recall counting twice."),
    "bleu": Measure(
        "How many runs of one to four words of the answer stand in the completion, answer by answer."
    ),
    "json_fields": Measure(
        "How many fields of JSON both have with equal values, extra ones counting against it (F1)."
    ),
}
"""Every measure by name, in the order of the report, and then the built-in metrics."""


def measures_of(run: ArmRun, task: Task, primary: str, *, floor: bool = False) -> dict[str, float]:
    """Everything that was measured besides the deciding metric, by name: shares in [0, 1] unless `MEASURES` says else.

    Args:
        run: an arm with at least one test answer.
        task: what was asked.
        primary: the metric that decides, which is left out.
        floor: whether the numbers beside the labels only order them: a floor's are no probabilities.
    """
    evaluation = run.test
    rows = evaluation.rows
    found = {name: evaluation.mean(name) for name in rows[0].scores if name != primary}
    if task.kind == "classify":
        found["macro_f1"] = macro_f1(evaluation.expected, evaluation.answers)
        found |= _of_labels(evaluation, has_probabilities=not floor)
    else:
        if task.schema is not None:
            found["invalid_rate"] = _share(not is_json(r.completion.text) for r in rows if not _is_refused(r))
        found |= _of_refusals(evaluation)
    # A model that was shown nothing, ever, has found, cited and held on to nothing.
    if any(row.completion.asked and row.completion.asked.evidence for row in rows):
        found |= _of_retrieval(rows)
        found |= {} if task.kind == "classify" else _of_citations(rows)
    if run.surprise:
        found |= {"perplexity": run.surprise.perplexity, "bits_per_byte": run.surprise.bits_per_byte}
    return found


def sureness(evaluation: Evaluation) -> tuple[list[float], list[bool]]:
    """The likeliest label's probability of every answer that has probabilities, and whether that label is right."""
    sure, right = list[float](), list[bool]()
    for row in evaluation.rows:
        if chances := row.completion.probabilities:
            label, chance = max(chances.items(), key=lambda item: item[1])
            sure.append(chance)
            right.append(label == row.expected.strip())
    return sure, right


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Σ_b n_b/N · |share right in b − mean probability in b|, in [0, 1]; at least one answer.

    The expected calibration error over bins of equally many answers (Nguyen & O'Connor 2015, "Posterior calibration
    and exploratory analysis for natural language processing models", section 3.2), which edges of equal width would
    leave nearly all in one. Answers of equal probability stay in their order.
    """
    order = np.argsort(np.asarray(sure, dtype=float), kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    sure_N, right_N = np.asarray(sure, dtype=float), np.asarray(right, dtype=float)
    gaps = [len(part) * abs(float(right_N[part].mean() - sure_N[part].mean())) for part in parts]
    return sum(gaps) / len(order)


def brier(chances: Sequence[Mapping[str, float]], expected: Sequence[str]) -> float:
    """The mean over answers of Σ_labels (p − is right)², in [0, 2] (Brier 1950, equation 2); at least one answer.

    A label that has no probability counts as one of 0.

    >>> brier([{"a": 0.5, "b": 0.5}], ["a"])
    0.5
    """
    scores = [
        sum(p * p for p in shares.values()) - 2 * shares.get(label, 0.0) + 1
        for shares, label in zip(chances, expected, strict=True)
    ]
    return fmean(scores)


def reliable_coverage(sure: Sequence[float], right: Sequence[bool], wanted: float = RELIABLE) -> float:
    """The largest share of the answers, the surest first, of which `wanted` are right; 0 where there is none.

    Answers of equal probability are given together or not at all.

    >>> reliable_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True], wanted=0.9)
    0.5
    """
    order = sorted(range(len(sure)), key=lambda i: -sure[i])
    hits, best = 0, 0
    for place, index in enumerate(order, 1):
        hits += right[index]
        is_last_of_its_kind = place == len(order) or sure[order[place]] < sure[index]
        if is_last_of_its_kind and hits >= wanted * place:
            best = place
    return best / len(order) if order else 0.0


def selective_curve(evaluation: Evaluation) -> AbstentionCurve | None:
    """What the likeliest label's probability is worth for abstaining; None where there are no probabilities."""
    sure, right = sureness(evaluation)
    return abstention_curve("probability", sure, right) if sure else None


def _of_labels(evaluation: Evaluation, *, has_probabilities: bool) -> dict[str, float]:
    rows = evaluation.rows
    found = {"invalid_rate": _share(not row.completion.valid for row in rows)}
    if abstained := _share(row.completion.text == ABSTAINED for row in rows):
        found["abstained"] = abstained
    chances = [row.completion.probabilities or {} for row in rows]
    # Where only some answers have probabilities, those are no fair sample of all.
    if not has_probabilities or not all(chances):
        return found
    sure, right = sureness(evaluation)
    return {
        **found,
        "calibration_error": calibration_error(sure, right),
        "brier": brier(chances, [row.expected.strip() for row in rows]),
        "aurc": abstention_curve("probability", sure, right).aurc,
        "reliable_coverage": reliable_coverage(sure, right),
    }


def _of_refusals(evaluation: Evaluation) -> dict[str, float]:
    counted = refusals(evaluation.expected, evaluation.answers)
    if not counted.unanswerable and not counted.answerable_refused:
        return {}
    right = counted.unanswerable_refused + counted.answerable - counted.answerable_refused
    found = {
        "refusal_correctness": right / len(evaluation.rows),
        "wrongly_refused": counted.wrongly_refused,
    }
    return {**found, "rightly_refused": counted.rightly_refused} if counted.unanswerable else found


def _of_retrieval(rows: Sequence[Row]) -> dict[str, float]:
    """How well the documents shown are those that the examples name."""
    judged = [(str(row.document), _shown(row)) for row in rows if _names_document(row)]
    if not judged:
        return {}
    return {
        "retrieval_recall": _share(document in shown for document, shown in judged),
        "retrieval_ndcg": fmean(
            rank_scores(shown, {document}, DEPTH)[f"ndcg@{DEPTH}"] for document, shown in judged
        ),
    }


def _of_citations(rows: Sequence[Row]) -> dict[str, float]:
    """What of the answers rests on the evidence, refusals aside, which need none."""
    answered = [row for row in rows if not _is_refused(row)]
    cited = citation_scores((str(row.document), row.completion) for row in answered if _names_document(row))
    supported = [share for row in answered if (share := _supported(row)) is not None]
    named = {
        "citation_precision": cited.precision,
        "citation_recall": cited.recall,
        "groundedness": supported,
    }
    return {name: fmean(values) for name, values in named.items() if values}


def _shown(row: Row) -> list[str]:
    """The documents of the evidence in the order of their best passages."""
    asked = row.completion.asked
    return list(dict.fromkeys(passage.document for passage in asked.evidence)) if asked else []


def _supported(row: Row) -> float | None:
    if row.completion.support is not None:
        return row.completion.support
    support = support_for(row.completion)
    return support.share if support else None


def _names_document(row: Row) -> bool:
    return row.document is not None and not expects_refusal(row.expected)


def _is_refused(row: Row) -> bool:
    return is_refusal(row.completion.text)


def _share(marks: Iterable[bool]) -> float:
    values = [float(mark) for mark in marks]
    return fmean(values) if values else 0.0
