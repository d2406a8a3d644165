import numpy as np
import pytest

from tailorbird.evaluation.seed_spread import order_sentence, seed_spread, spread

SCORES = np.repeat([1.0, 0.0], [240, 60])


def test_each_kind_of_chance_is_told_apart():
    found = seed_spread("few_shot+fine_tune", SCORES, training=(0.80, 0.82, 0.84), examples=(0.70, 0.76))
    assert found.test == pytest.approx(np.sqrt(0.8 * 0.2 / 300), rel=0.05)
    assert found.training.deviation == pytest.approx(0.02)
    assert found.examples.deviation == pytest.approx(0.06 / np.sqrt(2))
    assert found.sentence == (
        "few_shot+fine_tune: 80.0 %, of which chance, as standard deviations in points: test examples "
        f"±{100 * found.test:.1f}, training seed ±2.0 (3 seeds), labels drawn ±4.2 (2 draws)."
    )
    assert found.to_json()["training"]["scores"] == (0.80, 0.82, 0.84)


def test_what_has_one_model_has_no_spread():
    found = seed_spread("tfidf_linear", SCORES, training=(), examples=(0.7,))
    assert (found.training, found.examples) == (None, None)
    assert "training seed" not in found.sentence


def test_the_interval_of_a_deviation_holds_the_true_one_in_nineteen_of_twenty_cases():
    dice = np.random.default_rng(0)
    found = [spread(dice.normal(0.8, 0.02, size=4)) for _ in range(2000)]
    covered = np.mean([one.low <= 0.02 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_half_draws_vary_as_fresh_labels_do():
    """The delete-half jackknife, on the plainest model there is: the mean of its labels."""
    dice = np.random.default_rng(1)
    fresh = np.std([dice.normal(size=200).mean() for _ in range(4000)])
    halves = []
    for _ in range(300):
        labels = dice.normal(size=200)
        halves.append(np.var([dice.permutation(labels)[:100].mean() for _ in range(5)], ddof=1))
    assert np.sqrt(np.mean(halves)) == pytest.approx(fresh, rel=0.06)


def test_examples_of_one_document_widen_the_tests_part():
    groups = [f"document {n // 10}" for n in range(300)]
    assert seed_spread("a", SCORES, groups=groups).test > 2 * seed_spread("a", SCORES).test


def test_seeds_that_move_two_arms_further_than_they_lie_apart_are_named():
    close, far = np.repeat([1.0, 0.0], [237, 63]), np.repeat([1.0, 0.0], [150, 150])
    a = seed_spread("fine_tune", SCORES, training=(0.79, 0.80, 0.81), examples=(0.78, 0.80))
    b = seed_spread("tfidf_linear", close)
    assert order_sentence(a, b) == (
        "Seeds and labels move fine_tune and tfidf_linear by ±1.7 points against one another, and they lie 1.0 apart: "
        "with others the order of the two may be another."
    )
    assert order_sentence(a, seed_spread("base", far)) == ""
    assert order_sentence(b, seed_spread("base", close)) == ""


def test_draws_that_two_arms_share_are_compared_one_by_one():
    close = np.repeat([1.0, 0.0], [238, 62])
    a = seed_spread("a", SCORES, examples=(0.70, 0.75, 0.80))
    alike = seed_spread("b", close, examples=(0.69, 0.74, 0.79))
    other = seed_spread("b", close, examples=(0.79, 0.74, 0.69))
    assert order_sentence(a, alike) == ""
    assert "by ±10.0 points against one another" in order_sentence(a, other)
    assert "by ±6.5 points" in order_sentence(a, seed_spread("b", close, examples=(0.69, 0.74, 0.79, 0.74)))
