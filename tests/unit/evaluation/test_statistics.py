import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tailorbird.evaluation.bootstrap import bootstrap_mean_interval, paired_bootstrap
from tailorbird.evaluation.statistics import (
    examples_for_tie,
    examples_needed,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_interval,
    paired_p_value,
    score_interval,
    sign_flip_p_value,
    tango,
    wilson,
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50, deadline=None)
def test_wilson_agrees_with_scipy(counts):
    successes, n = counts
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_mcnemar_agrees_with_the_binomial_test(a_only, b_only):
    if a_only + b_only == 0:
        assert mcnemar_exact(0, 0) == 1
        return
    expected = stats.binomtest(a_only, a_only + b_only).pvalue
    assert mcnemar_exact(a_only, b_only) == pytest.approx(expected, abs=1e-12)


def test_holm_agrees_with_a_hand_example():
    # Sorted: .005·4 = .02, .01·3 = .03, .03·2 = .06, .04·1 = .04 → raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_percentile_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=80)
    ours = bootstrap_mean_interval(values, method="percentile")
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.01)


def test_the_bca_bootstrap_agrees_with_scipy_on_skewed_values():
    values = np.random.default_rng(1).exponential(size=60)
    ours = bootstrap_mean_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(2))
    low, high = theirs.confidence_interval
    percentile = bootstrap_mean_interval(values, method="percentile")
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.015)
    assert ours.high > percentile.high


def test_counting_equal_values_together_draws_from_the_same_distribution():
    few = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], size=150)
    many = few + np.linspace(0, 1e-9, 150)
    one, other = bootstrap_mean_interval(few), bootstrap_mean_interval(many)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.015)


def test_the_bootstrap_is_repeatable_and_bounds_the_mean():
    values = [0.1, 0.5, 0.9, 1.0, 0.3]
    first = bootstrap_mean_interval(values, seed=7)
    assert first == bootstrap_mean_interval(values, seed=7)
    assert first.low < first.mean < first.high


def test_equal_values_have_no_spread_to_resample():
    interval = bootstrap_mean_interval([0.5] * 9)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_a_bootstrap_needs_values_and_a_known_method():
    with pytest.raises(ValueError, match="needs at least one value"):
        bootstrap_mean_interval([])
    with pytest.raises(ValueError, match="Unknown bootstrap method 'magic'"):
        bootstrap_mean_interval([1.0], method="magic")
    with pytest.raises(ValueError, match="same examples; got 2 and 1"):
        paired_bootstrap([1.0, 0.0], [1.0])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    hits = {"score": 0, "difference": 0, "bootstrap": 0}
    for trial in range(300):
        a, b = rng.random(100) < 0.8, rng.random(100) < 0.7
        interval = score_interval(a.astype(float))
        hits["score"] += interval.low <= 0.8 <= interval.high
        difference = paired_interval(a.astype(float), b.astype(float))
        hits["difference"] += difference.low <= 0.1 <= difference.high
        values = rng.beta(2, 5, size=60)
        mean = bootstrap_mean_interval(values, resamples=1000, seed=trial)
        hits["bootstrap"] += mean.low <= 2 / 7 <= mean.high
    assert all(0.91 <= count / 300 <= 0.985 for count in hits.values()), hits


def test_equal_arms_are_called_different_about_as_seldom_as_promised():
    rng = np.random.default_rng(5)
    false_alarms = 0
    for trial in range(200):
        diffs = rng.normal(size=30)
        false_alarms += sign_flip_p_value(diffs, resamples=500, seed=trial) < 0.05
    assert false_alarms / 200 <= 0.09


def test_examples_of_one_document_are_not_counted_as_independent():
    rng = np.random.default_rng(6)
    naive = clustered = 0
    groups = [f"doc {i // 10}" for i in range(100)]
    for trial in range(150):
        diffs = np.repeat(rng.normal(size=10), 10)
        naive += sign_flip_p_value(diffs, resamples=300, seed=trial) < 0.05
        clustered += sign_flip_p_value(diffs, groups=groups) < 0.05
    assert naive / 150 > 0.3
    assert clustered / 150 < 0.1


def test_clusters_widen_the_interval():
    a = np.repeat(np.random.default_rng(8).random(12), 8)
    groups = [i // 8 for i in range(96)]
    alone, together = bootstrap_mean_interval(a), bootstrap_mean_interval(a, groups=groups)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_few_differences_are_flipped_in_every_way():
    diffs = [0.5, 0.2, -0.1, 0.4, 0.0]
    sums = [
        abs(sum(s * d for s, d in zip(signs, diffs[:4], strict=True)))
        for signs in itertools.product((1, -1), repeat=4)
    ]
    assert sign_flip_p_value(diffs) == np.mean([s >= 1.0 - 1e-9 for s in sums])
    assert sign_flip_p_value([0.0, 0.0]) == 1


def test_many_differences_agree_with_scipys_permutation_test():
    diffs = np.random.default_rng(9).normal(0.15, 0.5, size=60)
    theirs = stats.permutation_test(
        (diffs,), np.mean, permutation_type="samples", n_resamples=5000, rng=np.random.default_rng(1)
    )
    assert sign_flip_p_value(diffs) == pytest.approx(theirs.pvalue, abs=0.012)


def test_right_or_wrong_scores_are_tested_by_mcnemar():
    a, b = [1.0] * 8 + [0.0] * 2 + [1.0] * 20, [0.0] * 8 + [1.0] * 2 + [1.0] * 20
    assert paired_p_value(a, b) == mcnemar_exact(8, 2)
    assert paired_p_value([0.5, *a], [0.5, *b]) == pytest.approx(mcnemar_exact(8, 2), abs=0.02)


def test_tangos_bounds_invert_the_score_test():
    # Independent of the closed form: the constrained likelihood is maximised numerically.
    b, c, n = 12, 4, 60
    z = stats.norm.ppf(0.975)

    def statistic(delta):
        def loss(q):
            p_b = q + delta
            rest = 1 - p_b - q
            return -(b * math.log(p_b) + c * math.log(q) + (n - b - c) * math.log(rest))

        q = optimize.minimize_scalar(
            loss,
            bounds=(max(1e-9, 1e-9 - delta), (1 - delta) / 2 - 1e-9),
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))

    low, high = tango(b, c, n)
    assert statistic(low) == pytest.approx(z, abs=1e-4)
    assert statistic(high) == pytest.approx(-z, abs=1e-4)


def test_no_disagreement_among_few_examples_proves_little():
    z2 = stats.norm.ppf(0.975) ** 2
    interval = paired_interval([1.0] * 20, [1.0] * 20)
    assert (interval.low, interval.high) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)))
    partial = paired_interval([0.5] * 20, [0.5] * 20)
    assert (partial.low, partial.high) == pytest.approx((interval.low, interval.high))


def test_tango_is_antisymmetric_and_reaches_the_ends():
    low, high = tango(9, 3, 40)
    assert tango(3, 9, 40) == pytest.approx((-high, -low))
    assert tango(5, 0, 5)[1] == 1


@pytest.mark.parametrize(("points", "examples"), [(0.02, 3922), (0.05, 626), (0.10, 155)])
def test_detectable_differences_agree_with_connors_sample_sizes(points, examples):
    assert minimum_detectable_difference(examples) == pytest.approx(points, rel=0.005)


def test_few_examples_detect_only_what_they_can():
    assert minimum_detectable_difference(1) == 1
    assert 0.2 < minimum_detectable_difference(20) < 0.6
    assert minimum_detectable_difference(100) > minimum_detectable_difference(1000)


def test_the_promised_number_of_examples_gives_the_promised_power():
    diffs = np.repeat([1.0, -1.0, 0.0], [15, 8, 77])
    n = examples_needed(diffs)
    rng = np.random.default_rng(10)
    drawn = rng.multinomial(n, [0.15, 0.08, 0.77], size=400)
    power = np.mean([mcnemar_exact(int(b), int(c)) < 0.05 for b, c, _ in drawn])
    assert 0.7 < power < 0.88


def test_no_number_of_examples_tells_equal_means_apart_but_some_number_shows_a_tie():
    diffs = [1.0, -1.0] * 10 + [0.0] * 80
    assert examples_needed(diffs) is None
    assert examples_for_tie(diffs, 0.03) == pytest.approx(
        (2.8016 * np.std(diffs, ddof=1) / 0.03) ** 2, rel=0.01
    )
    assert examples_for_tie([0.1, 0.1], 0.03) is None
    assert examples_for_tie([0.0] * 5, 0.03) == 125


def test_examples_needed_never_goes_below_what_a_sign_test_needs():
    assert examples_needed([1.0, 1.0]) == 6


def test_one_document_tells_nothing_of_others():
    interval = score_interval([0.5, 0.7, 1.0], groups=["a", "a", "a"])
    assert (interval.mean, interval.low, interval.high) == (pytest.approx(2.2 / 3), 0, 1)
    difference = paired_interval([0.5, 0.7, 1.0], [0.2, 0.1, 0.3], groups=["a", "a", "a"])
    assert (difference.low, difference.high) == (-1, 1)
    assert score_interval([0.5]).low == 0


def test_one_document_with_nearly_all_examples_counts_as_one():
    few = [0] * 95 + [1, 2, 3, 4, 5]
    assert score_interval([0.5, 1.0] * 50, groups=few) == score_interval([0.5, 1.0] * 50, groups=[0] * 100)


def test_no_scores_have_no_interval():
    with pytest.raises(ValueError, match="needs at least one score; got none"):
        score_interval([])


def test_a_mistake_that_was_not_seen_may_still_be_there():
    for groups in (None, [i // 5 for i in range(50)]):
        interval = score_interval([1.0] * 49 + [0.99], groups=groups)
        assert interval.low < 0.97
        assert interval.mean < interval.high <= 1
    assert score_interval([1.0] * 50, groups=[i // 5 for i in range(50)]).low < 0.93


def test_documents_widen_intervals_by_their_number_not_by_that_of_examples():
    scores = np.repeat(np.random.default_rng(8).random(12), 8)
    groups = [i // 8 for i in range(96)]
    alone, together = score_interval(scores), score_interval(scores, groups=groups)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)
    other = np.repeat(np.random.default_rng(9).random(12), 8)
    alone, together = paired_interval(scores, other), paired_interval(scores, other, groups=groups)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_the_surer_one_wants_to_be_the_wider_the_interval():
    scores = np.random.default_rng(10).random(60)
    widths = [i.high - i.low for i in (score_interval(scores, confidence=c) for c in (0.8, 0.95, 0.99))]
    assert widths == sorted(widths)


def test_intervals_stay_within_what_is_possible():
    assert 0 < score_interval([0.0, 0.01] * 5).low < 0.005
    assert score_interval([0.0] * 9, groups=[0, 0, 0, 1, 1, 1, 2, 2, 2]).low == 0
    assert paired_interval([1.0, 0.9, 1.0], [0.0, 0.0, 0.1]).high == 1
