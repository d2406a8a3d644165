"""The benchmark that repeats a race on resamplings counts what the race saves, and what it costs."""

import sys
from pathlib import Path

import pytest

from tailorbird.evaluation.arms import ArmRun
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.records import Completion, Example

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from resampled_races import raced_by_steps, resampled_races

DEV = [Example.pair(f"message {n}", "ab"[n % 2]) for n in range(48)]


def answered(scores):
    completions = (Completion("a", seconds=1.0) for _ in scores)
    return Evaluation(
        tuple(
            Row(str(n), "q", "a", {"accuracy": float(s)}, c)
            for n, (s, c) in enumerate(zip(scores, completions, strict=True))
        )
    )


def run(name, dev, test, train_s=0.0):
    return ArmRun(name, train_s, answered(dev), answered(test))


def often(share, num, start=0):
    """Right on this share of the examples, evenly spread."""
    return [((n + start) * share) % 1 < share for n in range(num)]


def found(runs, pauses=None):
    runs = {each.name: each for each in runs}
    return resampled_races(runs, "accuracy", {"floor"}, "classify", DEV, pauses or {}, seed=1)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(sys.modules["resampled_races"], "RESAMPLINGS", 10)


def test_arms_far_behind_are_not_paid_for_and_the_same_arm_is_picked():
    weak = [run(name, often(0.1, 48), often(0.1, 96)) for name in ("x", "y", "z")]
    said = found(
        [run("floor", often(0.2, 48), often(0.2, 96)), run("good", often(0.9, 48), often(0.9, 96)), *weak]
    )
    assert said["resamplings"] == said["same_candidate"] == said["same_arm"] == 10
    # The baseline and the best in full, the three others 16 of 144 answers each.
    assert said["share_of_answer_seconds"] == pytest.approx((2 * 144 + 3 * 16) / (5 * 144), abs=0.05)


def test_a_race_that_stops_the_arm_that_would_have_won_is_counted_against_it():
    scores = {"good": (0.9, 0.9), "w": (0.5, 0.5), "x": (0.5, 0.5)}
    runs = [run(name, often(dev, 48), often(test, 96), 100.0) for name, (dev, test) in scores.items()]
    ids = [example.id for example in DEV]
    pauses = {"good": {0.25: dict.fromkeys(ids, 0.0)}, "w": {0.25: dict.fromkeys(ids, 1.0)}}
    assert raced_by_steps(pauses, DEV) == {"good": 0.25}
    said = found(runs, pauses)
    assert said["same_candidate"] == said["candidate_within_3_points"] == 0
    assert said["share_of_all_seconds"] < 1


def test_trainings_are_held_against_each_other_at_the_same_share_alone():
    ids = [example.id for example in DEV]
    low, high = dict.fromkeys(ids, 0.0), dict.fromkeys(ids, 1.0)
    assert raced_by_steps({"a": {0.25: low, 0.5: low}, "b": {0.25: low, 0.5: high}}, DEV) == {"a": 0.5}
    assert raced_by_steps({"a": {0.25: low}, "b": {0.5: high}}, DEV) == {}
    assert raced_by_steps({}, DEV) == {}
