"""A quick form of benchmarks/compare_statistics.py: do intervals and verdicts keep what they promise?"""

import sys
from pathlib import Path

import numpy as np
import pytest

from tailorbird.evaluation.statistics import paired_interval, score_interval
from tailorbird.evaluation.verdict import Contender, decide

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
SETS = 600
ALLOWED = (0.92, 0.985)
"""93 to 97 %, and what chance adds over 600 sets."""


@pytest.fixture(scope="module")
def scores():
    """The simulator of the benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import simulated_scores

        return simulated_scores
    finally:
        sys.path.remove(str(BENCHMARKS))


def covered(scores, kind, means, size, *, grouped):
    groups = scores.documents(size) if grouped else None
    arms = scores.simulate(np.random.default_rng(0), kind, means, SETS, size, groups)
    interval = score_interval if len(means) == 1 else paired_interval
    truths = [scores.true_mean(kind, mean) for mean in means]
    truth = truths[0] - sum(truths[1:])
    found = [interval(*(arm[i] for arm in arms), groups=groups) for i in range(SETS)]
    return np.mean([i.low <= truth <= i.high for i in found])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", ["right_wrong", "token_f1"])
@pytest.mark.parametrize("means", [(0.5,), (0.9,), (0.97,), (0.5, 0.5), (0.9, 0.85), (0.97, 0.9)])
def test_intervals_hold_the_truth_in_about_95_of_100_test_sets(scores, kind, means, grouped):
    assert ALLOWED[0] <= covered(scores, kind, means, 100, grouped=grouped) <= ALLOWED[1]


@pytest.mark.parametrize("means", [(0.9,), (0.97,), (0.97, 0.9)])
def test_six_documents_make_intervals_wide_enough(scores, means):
    assert covered(scores, "token_f1", means, 50, grouped=True) >= ALLOWED[0]


def simulated(scores, num_sets, means, *, grouped, size=100, kind="right_wrong"):
    rng, groups = np.random.default_rng(1), scores.documents(size) if grouped else None
    dev, test = (scores.simulate(rng, kind, means, num_sets, size, groups) for _ in range(2))
    for number in range(num_sets):
        arms = [
            Contender(f"arm_{i}", dev[i][number].tolist(), test[i][number].tolist(), 1.0)
            for i in range(len(means))
        ]
        yield decide(arms, groups=groups, resamples=400)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("kind", "num_arms"), [("right_wrong", 2), ("token_f1", 2), ("right_wrong", 8)])
def test_of_equal_arms_few_are_called_winners(scores, kind, num_arms, grouped):
    verdicts = list(simulated(scores, 200, (0.8,) * num_arms, grouped=grouped, kind=kind))
    assert sum(v.kind == "winner" for v in verdicts) / 200 <= 0.05


def test_a_true_gap_of_ten_points_is_mostly_found_with_300_examples(scores):
    verdicts = list(simulated(scores, 100, (0.9, 0.8, 0.8, 0.8), grouped=False, size=300))
    assert sum(v.kind == "winner" and v.arm == "arm_0" for v in verdicts) >= 75
    assert not any(v.kind == "winner" and v.arm != "arm_0" for v in verdicts)


def test_arms_that_differ_by_twice_the_margin_are_hardly_ever_called_tied(scores):
    verdicts = list(simulated(scores, 150, (0.86, 0.8), grouped=False, size=1000))
    assert sum(v.kind == "tie" for v in verdicts) <= 3


def test_taking_the_examples_of_a_document_as_independent_would_claim_too_much(scores):
    arms = scores.simulate(np.random.default_rng(2), "token_f1", (0.9,), 300, 100, scores.documents(100))
    found = [score_interval(values) for values in arms[0]]
    assert np.mean([i.low <= scores.true_mean("token_f1", 0.9) <= i.high for i in found]) < 0.9
