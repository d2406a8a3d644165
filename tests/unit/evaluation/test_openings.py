from dataclasses import replace

import pytest

from tailorbird.evaluation.openings import Opening, Openings, Seen, hash_of_test, openings_of

FIRST = Seen("t", "k1", "o1", "base", "run-1", "starter", "2026-01-01T10:00:00+0000")


def test_arms_of_one_comparison_are_one_opening_and_of_the_next_another():
    seen = [
        FIRST,
        replace(FIRST, key="k2", arm="few_shot"),
        replace(FIRST, key="k3", opening="o2", arm="fine_tune", run="run-2", date="2026-01-02T10:00:00+0000"),
    ]
    assert openings_of("t", seen) == (
        Opening("2026-01-01T10:00:00+0000", "run-1", "starter", ("base", "few_shot")),
        Opening("2026-01-02T10:00:00+0000", "run-2", "starter", ("fine_tune",)),
    )


def test_an_arm_that_was_measured_before_opens_nothing_again():
    assert len(openings_of("t", [FIRST, replace(FIRST, opening="o2", run="run-2")])) == 1


def test_another_test_set_has_openings_of_its_own():
    assert openings_of("other", [FIRST]) == ()


def test_the_order_of_examples_is_no_part_of_what_a_test_set_is():
    assert hash_of_test(["a", "b"]) == hash_of_test(["b", "a"]) != hash_of_test(["a", "c"])


def test_nothing_is_said_of_the_first_opening():
    assert Openings((Opening("d", "r", "b", ("a", "b")),), 10).sentences() == []


def test_from_the_second_opening_on_the_reader_is_told():
    each = tuple(Opening("d", f"r{i}", "b", ("a", "b", "c", "d")) for i in range(3))
    found = Openings(each, 10)
    assert found.sentences() == [
        (
            "This test set has been opened 3 times (12 arms in all): a best score of many is flattering; take a fresh "
            "test set for a last judgement."
        )
    ]
    assert found.to_json()["count"] == 3
    assert found.to_json()["num_arms"] == 12
    assert found.to_json()["each"][0] == {"date": "d", "run": "r0", "base": "b", "arms": ["a", "b", "c", "d"]}


def test_examples_that_stood_in_other_opened_test_sets_are_told_of():
    found = Openings(num_test=10, elsewhere=10, now_learnt=1).sentences()
    assert found[0].startswith("All of its 10 examples stood in other test sets that have been opened")
    assert found[1].startswith("1 example of other test sets that have been opened now teach or choose")
    assert Openings(num_test=10, elsewhere=4).sentences()[0].startswith("4 of its 10 examples")


@pytest.mark.parametrize("row", [{}, {**FIRST.to_json(), "key": 3}, {**FIRST.to_json(), "arm": None}])
def test_a_line_of_another_form_is_refused(row):
    with pytest.raises(ValueError, match="expected texts for test, key, opening, arm, run, base, date"):
        Seen.from_json(row)
