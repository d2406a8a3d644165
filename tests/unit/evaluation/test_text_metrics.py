import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.task import Task
from tailorbird.evaluation.metrics import METRICS, default_metric, default_metrics
from tailorbird.evaluation.text_metrics import (
    bleu,
    chrf,
    is_json,
    json_fields,
    longest_common_subsequence,
    rouge_l,
)
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, Message, Passage, Request

TEXTS = (rouge_l, chrf, bleu)
SHOWN = Request((Message("user", "Q"),), evidence=(Passage("p", "d.md", "text"),))


def scored(metric, expected, got, **rest):
    return metric(Example.pair("Q", expected), Completion(got, **rest))


@pytest.mark.parametrize("metric", [*TEXTS, json_fields])
def test_every_metric_knows_refusals(metric):
    assert scored(metric, NOT_IN_DOCUMENTS, "not in the documents, sorry") == 1
    assert scored(metric, NOT_IN_DOCUMENTS, "It was in 1889.") == 0
    assert scored(metric, '{"year": 1889}', NOT_IN_DOCUMENTS) == 0


@pytest.mark.parametrize("metric", TEXTS)
def test_texts_that_are_equal_score_one_and_those_without_anything_in_common_zero(metric):
    assert scored(metric, "The bike is back on Monday.", "The bike is back on Monday.") == 1
    assert scored(metric, "red", "blue-ish") < 0.2
    assert scored(metric, "The bike is back.", "") == 0
    assert scored(metric, "", "") == 1


@pytest.mark.parametrize("metric", TEXTS)
def test_citations_are_no_part_of_an_answer_that_had_passages_to_cite(metric):
    assert scored(metric, "The bike is back on Monday.", "The bike is back on Monday [1].", asked=SHOWN) == 1
    assert scored(metric, "The bike is back on Monday.", "The bike is back on Monday [1].") < 1


def test_rouge_l_is_that_of_its_papers_example():
    # Lin 2004, section 3.1: S1 is the reference, S2 and S3 are judged.
    assert scored(rouge_l, "police killed the gunman", "police kill the gunman") == 3 / 4
    assert scored(rouge_l, "police killed the gunman", "the gunman kill police") == 2 / 4


def test_rouge_l_takes_words_of_every_alphabet_and_no_punctuation():
    assert scored(rouge_l, "Готово: в среду!", "готово в среду") == 1
    assert scored(rouge_l, "one two three four", "two four") == pytest.approx(2 / 3)


def slowly(a, b):
    """The textbook's table of the longest common subsequence."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.text("abc", max_size=90), st.text("abcd", max_size=90))
def test_the_longest_common_subsequence_by_bits_is_the_tables(a, b):
    assert longest_common_subsequence(a, b) == slowly(a, b)


def test_chrf_is_the_mean_over_lengths_of_f_with_beta_two():
    expected, got = "abcdefg", "abcxefg"

    def runs(text, n):
        return [text[i : i + n] for i in range(len(text) - n + 1)]

    scores = []
    for n in range(1, 7):
        shared = sum(run in runs(expected, n) for run in runs(got, n))  # no run stands twice
        scores.append((shared / len(runs(got, n)), shared / len(runs(expected, n))))
    precision, recall = (sum(values) / 6 for values in zip(*scores, strict=True))
    assert scored(chrf, expected, got) == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty():
    expected, got = "the shop opens at ten in the morning", "the shop opens at ten in summer"
    precisions = [6 / 7, 5 / 6, 4 / 5, 3 / 4]
    mean = math.exp(sum(map(math.log, precisions)) / 4)
    assert scored(bleu, expected, got) == pytest.approx(math.exp(1 - 8 / 7) * mean)


def test_bleu_smooths_lengths_without_a_match_and_leaves_out_those_an_answer_is_too_short_for():
    # Counts of 0 become 1/2, 1/4, … of one match; four words have a single run of four.
    found = scored(bleu, "a b c d", "a b x d")
    assert found == pytest.approx((3 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** (1 / 4))
    assert scored(bleu, "Monday", "Monday") == 1
    assert scored(bleu, "red", "blue") == 0


@given(st.text(max_size=60), st.text(max_size=60))
def test_scores_stay_between_zero_and_one_for_any_text(expected, got):
    for metric in (*TEXTS, json_fields):
        assert 0 <= scored(metric, expected, got) <= 1
        assert scored(metric, got, got) == 1


FORM = '{"name": "Ada", "born": 1815, "of": {"place": "London", "tags": ["a", "b"]}}'


@pytest.mark.parametrize(
    ("got", "score"),
    [
        (' {"of": {"tags": ["a", "b"], "place": "London"}, "born": 1815.0, "name": "Ada"}\n', 1),
        ('{"name": "Ada"}', 2 * 1 / (5 + 1)),
        ('{"name": "ada", "born": 1815}', 2 * 1 / (5 + 2)),
        ('{"of": {"tags": ["b", "a"]}}', 0),  # a list has an order
        ('{"name": "Ada", "x": 1, "y": 2, "z": 3}', 2 * 1 / (5 + 4)),  # extra fields count against it
        ('{"born": "1815"}', 0),  # a text is no number
        ("[]", 0),
        ("```json\n" + FORM + "\n```", 0),
        ("Ada", 0),
        (FORM[:-1], 0),
    ],
)
def test_json_is_compared_field_by_field(got, score):
    assert scored(json_fields, FORM, got) == pytest.approx(score)


@pytest.mark.parametrize(
    ("expected", "got", "score"),
    [
        ("[]", "[]", 1),
        ("{}", "[]", 0),
        ('{"a": {}}', '{"a": {}}', 1),
        ('{"a": null}', "{}", 0),
        ("true", "1", 0),
        ("false", "false", 1),
        ('{"n": [1, 2, 3]}', '{"n": [1, 2, 3]}', 1),
        ("plain words", " plain words", 1),
        ("plain words", '"plain words"', 0),
        ("NaN", "NaN", 1),  # no JSON: compared as a text
    ],
)
def test_odd_json_is_told_apart(expected, got, score):
    assert scored(json_fields, expected, got) == score
    assert scored(json_fields, expected, got, asked=SHOWN) == score


def test_json_as_deep_or_long_as_one_likes_is_read_or_refused_and_never_an_error():
    deep = "[" * 100_000 + "]" * 100_000
    assert not is_json(deep)
    assert scored(json_fields, "{}", deep) == 0
    assert not is_json("9" * 5000)
    assert is_json("[" * 50 + "]" * 50)


def test_a_task_with_a_schema_is_judged_by_the_fields_of_json():
    task = Task("answer", "", schema='{"type": "object"}')
    assert default_metric(task) == ("json_fields", json_fields)
    assert list(default_metrics(task)) == ["json_fields", "exact_match"]
    one, other = '{"a": 1, "b": 2}', '{"a": 1, "b": 3}'
    assert scored(METRICS["token_f1"], one, other) == pytest.approx(2 / 3, abs=0.2)
    assert scored(json_fields, one, other) == 0.5
