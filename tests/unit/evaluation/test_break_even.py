import json

import numpy as np
import pytest
from scripted_arms import Builds, Scripted, classify_data, compared

from tailorbird.evaluation.break_even import Costed, break_evens, costed, front, summary
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics

RIGHT = np.repeat([1.0, 0.0], [80, 20])
BETTER = np.repeat([1.0, 0.0], [90, 10])
WORSE = np.repeat([1.0, 0.0], [40, 60])


def pairs(*arms):
    return [(p.arm, p.against, p.questions) for p in break_evens(arms, margin=0.03)]


def test_what_is_dearer_to_make_and_cheaper_to_ask_pays_back():
    fine_tune, few_shot = Costed("fine_tune", BETTER, 0.5, 0.0001), Costed("few_shot", RIGHT, 0.1, 0.0002)
    [found] = break_evens([few_shot, fine_tune], margin=0.03)
    assert (found.arm, found.against, found.questions) == ("fine_tune", "few_shot", 4000)
    assert (
        found.sentence
        == "fine_tune pays back against few_shot after about 4,000 questions (it scores +10.0 points)."
    )
    assert found.once == pytest.approx(0.4)
    assert found.answer == pytest.approx(0.0001)
    at = found.questions
    assert fine_tune.once + at * fine_tune.answer <= few_shot.once + at * few_shot.answer + 1e-9


def test_what_is_worse_never_pays_back_however_cheap_its_answers():
    assert pairs(Costed("cheap", WORSE, 0.5, 0.0001), Costed("good", RIGHT, 0.1, 0.0002)) == []


def test_what_is_a_little_worse_pays_back_only_if_the_test_shows_that_it_is_as_good():
    few, many = np.repeat([1.0, 0.0], [79, 21]), np.repeat([1.0, 0.0], [7990, 2010])
    assert pairs(Costed("a", few, 0.5, 0.0001), Costed("b", RIGHT, 0.1, 0.0002)) == []
    assert pairs(Costed("a", many, 0.5, 0.0001), Costed("b", np.repeat(RIGHT, 100), 0.1, 0.0002)) == [
        ("a", "b", 4000)
    ]


def test_of_two_that_are_as_good_the_dearer_one_is_said_never_to_pay_back():
    many, more = np.repeat([1.0, 0.0], [7990, 2010]), np.repeat([1.0, 0.0], [8000, 2000])
    cheap, dear = Costed("cheap", many, 0.1, 0.0001), Costed("dear", more, 0.5, 0.0003)
    [found] = break_evens([cheap, dear], margin=0.03)
    assert found.questions is None
    assert found.sentence == (
        "dear never pays back against cheap: it costs $0.4 more to make, and its answers cost no less (it scores "
        "+0.1 points)."
    )
    nearly = break_evens([cheap, Costed("dear", more, 5.0, 0.0001 - 1e-12)], margin=0.03)
    assert "its answers save next to nothing" in nearly[0].sentence


def test_that_the_better_arm_is_dearer_both_ways_is_not_held_against_it():
    assert pairs(Costed("dear", BETTER, 0.5, 0.0003), Costed("cheap", WORSE, 0.1, 0.0001)) == []


def test_arms_that_another_beats_in_everything_take_no_part():
    beaten = Costed("beaten", RIGHT, 0.6, 0.0003)
    kept = [Costed("few_shot", RIGHT, 0.1, 0.0002), Costed("fine_tune", BETTER, 0.5, 0.0001)]
    assert [arm.name for arm in front([beaten, *kept])] == ["few_shot", "fine_tune"]
    twins = [Costed("a", RIGHT, 0.1, 0.1), Costed("b", RIGHT, 0.1, 0.1)]
    assert front(twins) == twins
    assert pairs(*twins) == []


def test_the_soonest_comes_first_and_the_summary_is_of_the_arm_in_use():
    arms = [
        Costed("a", RIGHT, 0.1, 0.0004),
        Costed("b", RIGHT, 0.2, 0.0003),
        Costed("c", RIGHT, 0.9, 0.0001),
    ]
    found = break_evens(arms, margin=0.03)
    assert [(p.arm, p.against) for p in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert summary(found, "c") == found[1].sentence
    assert summary(found, "a") == found[0].sentence
    assert summary(found, None) == found[0].sentence
    assert summary([], "a") == (
        "Nothing pays back later: no arm that is as good as another costs more to make and less to ask."
    )


def test_the_costs_of_a_comparison_are_its_seconds_at_the_hours_price(tmp_path):
    data, builds = classify_data(), Builds()
    arms = [builds.arm("a", lambda: Scripted(0.9, "a")), builds.arm("b", lambda: Scripted(0.3, "b"))]
    result = compare(arms, data, default_metrics(data.task), primary="accuracy", price_per_hour=36.0)
    found = {arm.name: arm for arm in costed(result)}
    assert found["a"].answer == pytest.approx(0.5 * 36 / 3600)
    assert found["a"].once == pytest.approx(result.arm("a").train_s * 36 / 3600)
    assert found["a"].score == result.arm("a").score
    json.dumps([pair.to_json() for pair in break_evens(list(found.values()), margin=0.03)])


def test_what_is_clearly_worse_than_the_candidate_is_held_against_nothing():
    good, weak = Scripted(0.95, "g"), Scripted(0.1, "w")
    result = compared(classify_data(), good=good, weak=weak, as_weak=Scripted(0.1, "x"))
    assert [arm.name for arm in costed(result)] == ["good"]
