import random

import numpy as np
import pytest
from scripted_arms import CLASSIFY, LABELS

from tailorbird.data.citing import cited, support_for
from tailorbird.data.task import Task
from tailorbird.evaluation.abstention import abstention_curve
from tailorbird.evaluation.arms import ArmRun
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.evaluation.measures import (
    MEASURES,
    brier,
    calibration_error,
    measures_of,
    reliable_coverage,
    sureness,
)
from tailorbird.evaluation.metrics import METRICS
from tailorbird.models.model import Likelihood
from tailorbird.records import ABSTAINED, NOT_IN_DOCUMENTS, Completion, Message, Passage, Request

ANSWER = Task("answer", "Answer.")
FORM = Task("answer", "Answer.", schema='{"type": "object"}')


def row(expected, completion, document=None, **scores):
    return Row("id", "Where is it?", expected, scores or {"token_f1": 0.0}, completion, document)


def measured(rows, task=ANSWER, primary="token_f1", **rest):
    return measures_of(ArmRun("arm", 0.0, test=Evaluation(tuple(rows)), **rest), task, primary)


def chosen(expected, chances, **rest):
    label = max(chances, key=chances.get)
    return row(
        expected,
        Completion(label, "choice", probabilities=chances, **rest),
        accuracy=float(label == expected),
    )


def even(top, label):
    """A probability for one label, the rest shared by the others."""
    rest = (1 - top) / (len(LABELS) - 1)
    return {name: top if name == label else rest for name in LABELS}


def test_every_measure_and_metric_has_a_meaning():
    assert set(METRICS) - {"valid"} <= set(MEASURES)
    assert all(measure.meaning.endswith(".") for measure in MEASURES.values())


def test_labels_have_their_measures():
    rows = [chosen(LABELS[n % 2], even(0.7, LABELS[0])) for n in range(40)]
    found = measured(rows, CLASSIFY, "accuracy")
    assert found["macro_f1"] == pytest.approx(2 * 20 / (20 + 40) / 2)
    assert found["calibration_error"] == pytest.approx(0.2)
    assert found["aurc"] == 0.5  # all alike: abstaining is worth nothing
    assert found["reliable_coverage"] == 0
    assert found["invalid_rate"] == 0
    assert "abstained" not in found


def test_a_floors_numbers_are_not_taken_for_probabilities():
    run = ArmRun(
        "tfidf_linear", 0.0, test=Evaluation(tuple(chosen("refund", even(0.7, "refund")) for _ in range(5)))
    )
    assert "brier" in measures_of(run, CLASSIFY, "accuracy")
    assert set(measures_of(run, CLASSIFY, "accuracy", floor=True)) == {"macro_f1", "invalid_rate"}


def test_where_only_some_answers_have_probabilities_calibration_is_not_measured():
    rows = [chosen("refund", even(0.7, "refund")), row("refund", Completion("refund"), accuracy=1.0)]
    assert "brier" not in measured(rows, CLASSIFY, "accuracy")


def test_answers_outside_the_labels_and_unsure_ones_are_counted():
    rows = [
        row("refund", Completion("hello", valid=False), accuracy=0.0),
        chosen("refund", even(0.4, "refund")),
        row("refund", Completion(ABSTAINED, probabilities=even(0.3, "refund")), accuracy=0.0),
        chosen("refund", even(0.4, "delivery")),
    ]
    found = measured(rows, CLASSIFY, "accuracy")
    assert (found["invalid_rate"], found["abstained"]) == (0.25, 0.25)
    # Abstaining hides a label; its probability is judged all the same.
    assert sureness(Evaluation(tuple(rows[1:])))[1] == [True, True, False]


def test_probabilities_that_are_kept_have_a_small_calibration_error():
    dice = random.Random(0)
    sure = [dice.uniform(0.3, 1.0) for _ in range(20_000)]
    right = [dice.random() < p for p in sure]
    assert calibration_error(sure, right) < 0.02
    assert calibration_error([p**0.5 for p in sure], right) > 0.08


def test_calibration_is_over_parts_of_equal_size():
    # Nine of ten answers are sure of 0.95: in bins of equal width they would be one.
    sure = [0.95] * 90 + [0.5] * 10
    right = [True] * 90 + [False] * 10
    assert calibration_error(sure, right) == pytest.approx(0.9 * 0.05 + 0.1 * 0.5)
    assert calibration_error([0.8], [True]) == pytest.approx(0.2)


def test_the_brier_score_is_the_squared_distance_over_all_labels():
    dice = np.random.default_rng(0)
    p_NL = dice.dirichlet(np.ones(4), size=50)
    label_N = dice.integers(4, size=50)
    expected = ((p_NL - np.eye(4)[label_N]) ** 2).sum(1).mean()
    chances = [dict(zip(LABELS, map(float, p_L), strict=True)) for p_L in p_NL]
    assert brier(chances, [LABELS[n] for n in label_N]) == pytest.approx(expected)
    assert brier([{"a": 1.0}], ["b"]) == 2


def test_a_reliable_part_is_the_largest_and_holds_equal_probabilities_together():
    assert reliable_coverage([0.9, 0.8, 0.7], [False, True, True], wanted=0.6) == 1
    assert reliable_coverage([0.9, 0.9, 0.5], [True, False, True]) == 0
    assert reliable_coverage([0.9, 0.5, 0.5, 0.5], [True, True, True, False]) == 0.25
    assert reliable_coverage([], []) == 0


def test_the_area_beneath_the_risk_is_that_of_the_curve():
    rows = [chosen(LABELS[n % 4], even(0.3 + n / 200, LABELS[0])) for n in range(100)]
    curve = abstention_curve("p", [0.3 + n / 200 for n in range(100)], [n % 4 == 0 for n in range(100)])
    assert measured(rows, CLASSIFY, "accuracy")["aurc"] == curve.aurc


def test_refusals_are_right_or_wrong():
    expected = [NOT_IN_DOCUMENTS] * 4 + ["Monday"] * 6
    said = [NOT_IN_DOCUMENTS] * 3 + ["Monday"] * 6 + [NOT_IN_DOCUMENTS]
    found = measured([row(e, Completion(s)) for e, s in zip(expected, said, strict=True)])
    assert found == {"rightly_refused": 0.75, "wrongly_refused": 1 / 6, "refusal_correctness": 0.8}


def test_refusals_count_where_every_question_has_an_answer_too():
    found = measured([row("Monday", Completion(NOT_IN_DOCUMENTS)), row("Monday", Completion("Monday"))])
    assert found == {"wrongly_refused": 0.5, "refusal_correctness": 0.5}
    assert measured([row("Monday", Completion("Monday"))]) == {}


def shown(*documents, text="It is Monday."):
    passages = tuple(Passage(f"p{n}", name, text) for n, name in enumerate(documents))
    return Request((Message("user", "Where is it?"),), evidence=passages)


def test_what_was_shown_is_held_against_the_document_of_the_example():
    rows = [
        row("x", Completion("x", asked=shown("a.md", "a.md", "b.md")), "b.md"),
        row("x", Completion("x", asked=shown("b.md", "c.md")), "b.md"),
        row("x", Completion("x", asked=shown("c.md")), "b.md"),
        row("x", Completion(NOT_IN_DOCUMENTS, asked=shown()), "b.md"),  # a gate let nothing through
        row(NOT_IN_DOCUMENTS, Completion("x", asked=shown("b.md"))),
    ]
    found = measured(rows)
    assert found["retrieval_recall"] == 0.5
    assert found["retrieval_ndcg"] == pytest.approx((1 / np.log2(3) + 1) / 4)
    labels = [chosen("refund", even(0.7, "refund"), asked=shown("faq.md"))]
    labels = [
        Row(
            *(getattr(r, f) for f in ("example_id", "question", "expected", "scores", "completion")), "faq.md"
        )
        for r in labels
    ]
    assert measured(labels, CLASSIFY, "accuracy")["retrieval_recall"] == 1


def test_a_model_that_is_shown_nothing_retrieves_and_cites_nothing():
    assert measured([row("x", Completion("x", asked=shown()), "b.md")]) == {}


def test_citations_and_grounds_are_those_of_the_answers_given():
    def answered(text, *documents, document="b.md"):
        completion = Completion(text, asked=shown(*documents))
        support = support_for(completion)
        return row("Monday", cited(completion, support) if support else completion, document)

    rows = [
        answered("It is Monday.", "b.md"),
        answered("It is Monday.", "c.md"),
        answered("A parrot of 1,200 pounds sang.", "b.md"),
        row(
            "Monday",
            Completion(NOT_IN_DOCUMENTS, asked=shown("b.md"), withheld="Friday", support=0.1),
            "b.md",
        ),
    ]
    found = measured(rows)
    assert found["citation_precision"] == 0.5
    assert found["citation_recall"] == pytest.approx(1 / 3)
    assert found["groundedness"] == pytest.approx(2 / 3, abs=0.05)
    # What a model without the reviewing wrapper answered is held against its evidence here.
    bare = row("Monday", Completion("It is Monday.", asked=shown("b.md")), "b.md")
    assert measured([bare])["groundedness"] == pytest.approx(1)


def test_where_a_schema_is_kept_to_answers_that_are_no_json_are_invalid():
    rows = [row("{}", Completion(text)) for text in ("{}", '{"a": 1}', "{", NOT_IN_DOCUMENTS)]
    assert measured(rows, FORM)["invalid_rate"] == pytest.approx(1 / 3)


def test_other_metrics_stand_beside_the_one_that_decides():
    rows = [
        row("x", Completion("x"), token_f1=1.0, chrf=0.5),
        row("x", Completion("x"), token_f1=1.0, chrf=1.0),
    ]
    assert measured(rows) == {"chrf": 0.75}


def test_perplexity_is_there_where_it_was_measured():
    found = measured([row("x", Completion("x"))], surprise=Likelihood(np.log(2) * 12, 6, 4, 2))
    assert found == {"perplexity": pytest.approx(4), "bits_per_byte": pytest.approx(3)}
