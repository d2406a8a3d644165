from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_arms import Wrong, classify_data, compared

from tailorbird.evaluation.against import against
from tailorbird.evaluation.comparison import ArmResult, Comparison
from tailorbird.evaluation.gates import GateResult, Gates, judge
from tailorbird.evaluation.junit import junit_xml
from tailorbird.evaluation.verdict import Verdict

FOUND = Comparison(
    "classify",
    "accuracy",
    100,
    (
        ArmResult("few_shot", 0.85, 0.767, 0.907, train_s=1.5),
        ArmResult("majority", 0.3, 0.219, 0.396, floor=True),
        ArmResult("remote", failed="The endpoint does not answer."),
        ArmResult("late", stopped=True),
    ),
    Verdict("winner", "few_shot", "Use few_shot."),
)


def held(then_wrong, now_wrong, **more):
    """A comparison of one arm held against an earlier one, in which the arm was wrong elsewhere."""
    data = classify_data(100)
    earlier = compared(data, few_shot=Wrong(*then_wrong), floor=Wrong(*range(40, 190)), **more)
    now = compared(data, few_shot=Wrong(*now_wrong), floor=Wrong(*range(40, 190)))
    return replace(now, against=against(earlier, now, run="run-1").to_json())


@pytest.mark.parametrize(("share", "passed"), [(0.8, True), (0.85, True), (0.851, False)])
def test_the_score_of_the_recommended_arm_is_held_against_the_gate(share, passed):
    [result] = judge(Gates(under=share), FOUND)
    assert (result.arm, result.passed) == ("few_shot", passed)
    assert "the score of few_shot, 85.0 %," in result.sentence


@pytest.mark.parametrize(("share", "passed"), [(0.76, True), (0.77, False)])
def test_so_is_the_lower_bound_of_its_interval(share, passed):
    [result] = judge(Gates(under_low=share), FOUND)
    assert result.passed == passed
    assert "the lower bound of few_shot, 76.7 %," in result.sentence


def test_without_gates_nothing_is_judged():
    assert not Gates().any
    assert judge(Gates(), FOUND) == []


def test_a_gate_that_no_arm_can_be_held_against_is_not_passed():
    nothing = replace(FOUND, verdict=Verdict("undecided", None, "No arm has been measured."), arms=())
    for gates in (Gates(under=0.0), Gates(under_low=0.0), Gates(if_worse=True)):
        [result] = judge(gates, nothing)
        assert not result.passed
        assert result.arm == ""


def test_clearly_worse_than_in_the_earlier_run_by_more_than_the_margin_fails():
    [result] = judge(Gates(if_worse=True), held([], range(100, 112)))
    assert not result.passed
    assert result.arm == "few_shot"
    assert "few_shot, −12.0 points" in result.sentence
    assert "is clearly worse than in run-1, by more than 3 points." in result.sentence


def test_worse_by_chance_or_better_passes():
    assert judge(Gates(if_worse=True), held([], range(100, 105)))[0].passed
    assert judge(Gates(if_worse=True), held(range(100, 130), []))[0].passed


def test_clearly_worse_within_the_margin_passes():
    [result] = judge(Gates(if_worse=True), replace(held([], range(100, 112)), margin=0.2))
    assert result.passed
    assert "is not clearly worse than in run-1 by more than 20 points" in result.sentence


def test_what_is_recommended_now_must_not_be_worse_than_what_was_recommended_then():
    """The recommended arm is as it was, but a better one that was recommended then is gone."""
    found = held(range(100, 130), range(100, 130), best=Wrong())
    [result] = judge(Gates(if_worse=True), found)
    assert not result.passed
    assert "few_shot (then best), −30.0 points" in result.sentence


def cases(found):
    return {case.get("name"): case for case in found.iter("testcase")}


def test_junit_has_a_case_for_every_arm_with_its_score():
    gates = judge(Gates(under=0.9), FOUND)
    root = ET.fromstring(junit_xml(FOUND, gates, "tickets"))
    suite = root.find("testsuite")
    assert {k: suite.get(k) for k in ("name", "tests", "failures", "errors", "skipped", "time")} == {
        "name": "tickets",
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
        "time": "1.500",
    }
    found = cases(root)
    assert list(found) == ["few_shot", "majority", "remote", "late"]
    properties = {p.get("name"): p.get("value") for p in found["few_shot"].iter("property")}
    assert properties == {"score": "0.85", "low": "0.767", "high": "0.907", "floor": "false"}
    assert found["few_shot"].find("failure").get("message") == gates[0].sentence
    assert found["majority"].find("failure") is None
    assert found["remote"].find("error").get("message") == "The endpoint does not answer."
    assert found["late"].find("skipped") is not None


def test_a_gate_that_no_arm_could_be_held_against_is_a_case_of_its_own():
    nothing = replace(FOUND, verdict=Verdict("undecided", None, "Nothing."), arms=FOUND.arms[2:])
    root = ET.fromstring(junit_xml(nothing, judge(Gates(under=0.5), nothing), "tickets"))
    assert cases(root)["fail-under"].find("failure") is not None
    assert root.find("testsuite").get("failures") == "1"


@given(st.text(), st.text(min_size=1), st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_can_stand_in_junit(name, arm, why):
    result = replace(FOUND, arms=(ArmResult(arm, failed=why or "x"),), verdict=Verdict("undecided", arm, why))
    root = ET.fromstring(junit_xml(result, [GateResult("fail-under", arm, False, why)], name))
    [case] = root.iter("testcase")
    kept = "".join(c for c in arm if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")
    assert all(c in case.get("name") for c in kept)
