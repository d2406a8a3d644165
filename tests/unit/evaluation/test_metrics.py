import pytest
from sklearn.metrics import f1_score

from tailorbird.data.task import Task
from tailorbird.evaluation.metrics import (
    METRICS,
    accuracy,
    answered_right,
    default_metric,
    default_metrics,
    exact_match,
    is_refusal,
    macro_f1,
    normalise,
    refusals,
    token_f1,
)
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example


def scored(metric, expected, got, **rest):
    return metric(Example.pair("Q", expected), Completion(got, **rest))


def test_accuracy_wants_the_exact_label_but_forgives_spaces_around_it():
    assert scored(accuracy, "refund", " refund\n") == 1
    assert scored(accuracy, "refund", "Refund") == 0
    assert scored(accuracy, "refund", "refund please") == 0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat's, a DOG!", "cats dog"),
        ("an apple and a pear", "apple and pear"),
        ("theatre", "theatre"),
        ("  ", ""),
    ],
)
def test_normalise_follows_the_squad_script(text, normal):
    assert normalise(text) == normal


def test_exact_match_ignores_case_punctuation_and_articles():
    assert scored(exact_match, "the Eiffel Tower", "eiffel tower.") == 1
    assert scored(exact_match, "Eiffel Tower", "the tower") == 0


def test_token_f1_counts_repeated_tokens_once_each():
    assert scored(token_f1, "red red blue", "red green") == pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3))
    assert scored(token_f1, "red", "blue") == 0
    assert scored(token_f1, "the", "a") == 1
    assert scored(token_f1, "red", "") == 0


def test_refusals_are_right_for_unanswerable_examples_only():
    assert scored(answered_right, NOT_IN_DOCUMENTS, "Not in the documents") == 1
    assert scored(answered_right, NOT_IN_DOCUMENTS, "not in the documents, sorry!") == 1
    assert scored(answered_right, NOT_IN_DOCUMENTS, "In 1889") == 0
    assert scored(answered_right, "in 1889", "Not in the documents.") == 0
    assert scored(answered_right, "in 1889", "1889") == pytest.approx(2 / 3)


def test_a_refusal_comes_first_and_in_whole_words():
    assert is_refusal("Not in the documents.")
    assert not is_refusal("It is not in the documents")
    assert not is_refusal("Not in documentsX")


def test_valid_reports_answers_outside_a_closed_set():
    assert scored(METRICS["valid"], "refund", "hello", valid=False) == 0
    assert scored(METRICS["valid"], "refund", "delivery") == 1


def test_each_task_has_its_default_metric():
    assert default_metric(Task("classify", "", ("a", "b"))) == ("accuracy", accuracy)
    assert default_metric(Task("answer", "")) == ("token_f1", answered_right)
    assert list(default_metrics(Task("answer", ""))) == ["token_f1", "exact_match"]


def test_macro_f1_agrees_with_scikit_learn():
    expected = ["a"] * 10 + ["b"] * 3 + ["c"] * 2
    answered = ["a"] * 8 + ["b"] * 4 + ["c"] + ["x"] * 2
    labels = ["a", "b", "c"]
    assert macro_f1(expected, answered) == pytest.approx(
        f1_score(expected, answered, labels=labels, average="macro")
    )
    assert macro_f1([], []) == 0


def test_refusals_are_counted_apart_for_both_kinds_of_question():
    found = refusals(
        ["Paris", "Rome", NOT_IN_DOCUMENTS, NOT_IN_DOCUMENTS, NOT_IN_DOCUMENTS],
        ["Paris", NOT_IN_DOCUMENTS, NOT_IN_DOCUMENTS, "Oslo", "not in the documents"],
    )
    assert (found.answerable, found.answerable_refused) == (2, 1)
    assert (found.unanswerable, found.unanswerable_refused) == (3, 2)
    assert found.wrongly_refused == 0.5
    assert found.rightly_refused == pytest.approx(2 / 3)
