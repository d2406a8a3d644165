import json
from dataclasses import replace

import pytest
from scripted_arms import LABELS, Failing, Wrong, classify_data, compared, messages
from test_comparison_report import parsed

from tailorbird.data.task import Data
from tailorbird.errors import InputError
from tailorbird.evaluation.against import Against, against, check_comparable, sentences
from tailorbird.evaluation.report import render_report
from tailorbird.evaluation.statistics import paired_interval, paired_p_value
from tailorbird.records import Example


@pytest.fixture(scope="module")
def runs():
    """An earlier run, and one on other test examples: 40 gone, 20 new, 5 relabelled."""
    data = classify_data(120)
    then = compared(data, few_shot=Wrong(*range(100, 130)), gone=Wrong(), floor=Wrong(*range(40, 160)))
    relabelled = tuple(Example.pair(e.prompt, "delivery") for e in messages(100, 220)[40:46:4])
    changed = (*relabelled, *messages(100, 220)[40:], *messages(220, 240))
    test = tuple({e.prompt: e for e in reversed(changed)}.values())
    now = compared(
        Data(data.task, data.train, data.dev, test),
        few_shot=Wrong(*range(200, 240)),
        new=Wrong(),
        floor=Wrong(*range(40, 160)),
    )
    return then, now


def test_arms_of_one_name_are_paired_on_the_examples_that_both_runs_have(runs):
    found = against(*runs, run="run-1")
    change = found.change("few_shot")
    shared = {(row.example_id, row.expected) for row in runs[0].evaluations["few_shot"].rows} & {
        (row.example_id, row.expected) for row in runs[1].evaluations["few_shot"].rows
    }
    assert found.paired
    assert found.num_shared == len(shared) == change.num
    before, after = (
        {row.example_id: row.scores["accuracy"] for row in run.evaluations["few_shot"].rows} for run in runs
    )
    ids = [row.example_id for row in runs[1].evaluations["few_shot"].rows if row.example_id in before]
    a, b = [after[i] for i in ids], [before[i] for i in ids]
    interval = paired_interval(a, b)
    assert (change.difference.mean, change.difference.low) == (interval.mean, interval.low)
    assert change.difference.p == paired_p_value(a, b)
    assert change.kind == "worse"
    assert change.now.mean == sum(a) / len(a)


def test_examples_that_only_one_run_has_are_reported_apart(runs):
    change = against(*runs, run="run-1").change("few_shot")
    assert change.then_others.mean < 0.5  # of the 40 that are gone it was wrong on 30
    assert change.now_others.mean < 0.5  # it is wrong on all 20 that are new
    assert change.then.mean == 1.0


def test_test_examples_are_counted_as_added_removed_and_relabelled(runs):
    found = against(*runs, run="run-1")
    old = {row.question: row.expected for row in runs[0].evaluations["few_shot"].rows}
    new = {row.question: row.expected for row in runs[1].evaluations["few_shot"].rows}
    other = sum(old[q] != new[q] for q in old.keys() & new.keys())
    assert other > 0
    assert (found.num_relabelled, found.num_added, found.num_removed) == (
        other,
        len(new.keys() - old.keys()),
        len(old.keys() - new.keys()),
    )


def test_arms_of_one_run_only_are_named(runs):
    found = against(*runs, run="run-1")
    assert (found.missing, found.new) == (("gone",), ("new",))
    assert "Not measured this time: gone." in sentences(found)
    assert "Not measured then: new." in sentences(found)


def test_what_is_recommended_is_held_against_what_was(runs):
    found = against(*runs, run="run-1").recommended
    assert (found.arm_then, found.arm) == (runs[0].verdict.arm, runs[1].verdict.arm) == ("gone", "new")
    assert found.difference.mean == 0
    assert any(s.startswith("new is recommended now, gone was:") for s in sentences(against(*runs, run="r")))


def test_p_values_are_adjusted_for_the_number_of_arms():
    data = classify_data(120)
    then = compared(data, one=Wrong(), two=Wrong(), three=Wrong())
    now = compared(data, one=Wrong(*range(100, 106)), two=Wrong(), three=Wrong())
    [one] = [c for c in against(then, now, run="r").changes if c.arm == "one"]
    assert one.difference.p == pytest.approx(2 / 2**6)
    assert one.difference.p_adjusted == pytest.approx(3 * one.difference.p)
    assert one.kind == "unclear"


def test_a_run_against_itself_has_no_change():
    run = compared(classify_data(40), one=Wrong(101))
    found = against(run, run, run="r")
    assert (found.num_added, found.num_removed, found.num_relabelled) == (0, 0, 0)
    assert found.change("one").difference.mean == 0
    assert sentences(found)[0] == "On the 40 test examples that both runs have:"
    assert "no clear change" in sentences(found)[1]


def test_without_a_shared_example_whole_test_sets_are_compared_and_that_is_said():
    data = classify_data(100)
    later = replace(data, test=messages(400, 500))
    then, now = compared(data, one=Wrong()), compared(later, one=Wrong(*range(400, 440)))
    found = against(then, now, run="r")
    change = found.change("one")
    assert (found.paired, found.num_shared, change.paired) == (False, 0, False)
    assert change.difference.mean == pytest.approx(-0.4)
    assert change.difference.low < -0.4 < change.difference.high < 0
    assert change.kind == "worse"
    assert sentences(found)[0].startswith("The runs share no test example. Whole test sets are compared")


def test_without_the_earlier_answers_its_scores_and_intervals_are_used():
    data = classify_data(100)
    then, now = compared(data, one=Wrong()), compared(data, one=Wrong(*range(100, 140)))
    found = against(replace(then, evaluations={}), now, run="r")
    assert found.why_unpaired == "The answers of the earlier run are not at hand."
    assert found.change("one").difference.mean == pytest.approx(-0.4)
    assert found.change("one").kind == "worse"


def test_examples_of_one_document_are_resampled_together():
    def about(prompts, per):
        return tuple(
            Example.pair(f"message {n}", LABELS[n % 4], document=f"{n // per}.md") for n in range(*prompts)
        )

    data = replace(classify_data(), test=about((100, 160), 10))
    alone = replace(classify_data(), test=messages(100, 160))
    widths = []
    for given in (data, alone):
        then, now = compared(given, one=Wrong()), compared(given, one=Wrong(*range(100, 120)))
        difference = against(then, now, run="r").change("one").difference
        widths.append(difference.high - difference.low)
    assert widths[0] > 1.3 * widths[1]


def test_scores_of_different_metrics_are_not_held_against_each_other():
    run = compared(classify_data(40), one=Wrong(101))
    with pytest.raises(
        InputError, match="--against r: that run was judged by accuracy, and this comparison is by token_f1"
    ):
        check_comparable(run, "token_f1", "r")
    check_comparable(run, "valid", "r")  # measured beside accuracy


def test_arms_that_failed_are_held_against_nothing():
    data = classify_data(40)
    found = against(compared(data, one=Failing()), compared(data, one=Wrong()), run="r")
    assert found.changes == ()
    assert found.recommended is None
    assert "No arm was measured in both runs." in sentences(found)
    nothing = against(compared(data, one=Wrong()), compared(data, one=Failing()), run="r")
    assert nothing.missing == ("one",)


def test_it_is_read_back_from_json_as_it_was(runs):
    found = against(*runs, run="run-1", date="yesterday", what_changed=["Seed: 0 → 1."])
    assert Against.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.to_json()["sentences"] == sentences(found)


def test_the_report_shows_every_arm_then_and_now_and_escapes_what_it_is_told(runs):
    held = against(*runs, run="<script>run</script>", date="yesterday", what_changed=["<script>: k 5 → 3."])
    page = render_report(replace(runs[1], against=held.to_json()))
    text = parsed(page).text
    assert "<script" not in page
    assert "Held against <script>run</script> of yesterday. Then and now are on the" in text
    assert "clearly worse" in text
    assert "recommended now; then gone" in text
    assert "Not measured this time: gone." in text
    assert "<script>: k 5 → 3." in text
    assert "only then, %" in text
    assert "Since the last run" not in render_report(runs[1])


def test_the_report_says_where_nothing_is_paired(runs):
    held = against(replace(runs[0], evaluations={}), runs[1], run="r")
    text = parsed(render_report(replace(runs[1], against=held.to_json()))).text
    assert "The answers of the earlier run are not at hand. So whole test sets are compared" in text
    assert "only then, %" not in text
    nothing = against(compared(classify_data(40), other=Failing()), runs[1], run="r")
    assert "No arm was measured in both runs." in render_report(replace(runs[1], against=nothing.to_json()))
