"""Our statistics give the numbers of scipy and statsmodels, or of the definition solved numerically."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from tailorbird.evaluation.bootstrap import bootstrap_mean_interval, paired_bootstrap
from tailorbird.evaluation.statistics import (
    examples_for_tie,
    examples_needed,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_interval,
    score_interval,
    sign_flip_p_value,
    tango,
    wilson,
)

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
SKEWED = np.random.default_rng(1).beta(6, 0.6, size=70)


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
@settings(deadline=None)
def test_wilsons_interval(counts, confidence):
    expected = proportion_confint(*counts, alpha=1 - confidence, method="wilson")
    assert wilson(*counts, confidence) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 80), st.integers(0, 80))
@settings(deadline=None)
def test_mcnemars_exact_test(a_only, b_only):
    if a_only + b_only == 0:
        assert mcnemar_exact(0, 0) == 1
        return
    expected = mcnemar([[5, a_only], [b_only, 5]], exact=True).pvalue
    assert mcnemar_exact(a_only, b_only) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_holms_correction(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_the_bca_bootstrap_of_skewed_scores():
    ours = bootstrap_mean_interval(SKEWED, resamples=50_000)
    theirs = stats.bootstrap(
        (SKEWED,), np.mean, method="BCa", n_resamples=50_000, rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02 * width)


def test_the_paired_bca_bootstrap():
    other = np.clip(SKEWED + np.random.default_rng(3).normal(-0.05, 0.2, size=SKEWED.size), 0, 1)
    ours = paired_bootstrap(SKEWED, other, resamples=50_000)
    theirs = stats.bootstrap(
        (SKEWED, other),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        method="BCa",
        n_resamples=50_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02 * (theirs.high - theirs.low))


@pytest.mark.parametrize("seed", range(5))
def test_the_permutation_test_of_every_flip(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(10), rng.random(10)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=2**10
    )
    assert sign_flip_p_value(a - b) == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize("distinct", [4, 90])
def test_the_permutation_test_by_random_flips(distinct):
    rng = np.random.default_rng(4)
    diffs = rng.choice(rng.normal(0.1, 0.5, size=distinct), size=90)
    theirs = stats.permutation_test(
        (diffs,), np.mean, permutation_type="samples", n_resamples=40_000, rng=np.random.default_rng(1)
    )
    ours = sign_flip_p_value(diffs, resamples=40_000)
    assert ours == pytest.approx(theirs.pvalue, abs=5 * math.sqrt(ours / 40_000) + 1e-4)


def constrained(b, c, n, delta):
    """The score statistic of a paired difference, its likelihood maximised over the other cells by search."""
    z_low, z_high = max(1e-12, -delta), (1 - delta) / 2

    def loss(q):
        cells = [(b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)

    q = optimize.minimize_scalar(loss, bounds=(z_low, z_high), method="bounded", options={"xatol": 1e-13}).x
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta * delta))


@pytest.mark.parametrize(("b", "c", "n"), [(12, 4, 60), (3, 3, 40), (1, 0, 100), (40, 25, 300), (7, 2, 20)])
def test_tangos_interval_inverts_the_score_test(b, c, n):
    z = stats.norm.ppf(0.975)
    low, high = tango(b, c, n)
    assert constrained(b, c, n, low) == pytest.approx(z, abs=1e-3)
    assert constrained(b, c, n, high) == pytest.approx(-z, abs=1e-3)


def clustered(rng, num_documents, each):
    groups = np.repeat(np.arange(num_documents), each)
    return groups, np.clip(
        0.6 + rng.normal(0, 0.2, num_documents)[groups] + rng.normal(0, 0.2, groups.size), 0, 1
    )


def test_the_interval_by_document_is_that_of_a_clustered_regression():
    groups, scores = clustered(np.random.default_rng(5), 40, 6)
    other = np.clip(scores + np.random.default_rng(6).normal(-0.03, 0.3, scores.size), 0, 1)
    fitted = sm.OLS(scores - other, np.ones(scores.size)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}, use_t=True
    )
    ours = paired_interval(scores, other, groups=groups.tolist())
    # What is added for rare differences that were not seen is next to nothing where 40 documents differ.
    assert (ours.low, ours.high) == pytest.approx(tuple(fitted.conf_int()[0]), rel=0.01, abs=2e-4)


def test_the_interval_of_a_score_by_document_is_wilsons_with_the_effective_number_of_examples():
    groups, scores = clustered(np.random.default_rng(7), 60, 5)
    fitted = sm.OLS(scores, np.ones(scores.size)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    mean, variance = float(scores.mean()), float(fitted.cov_params()[0, 0])
    effective = mean * (1 - mean) / variance
    alpha = 2 * stats.norm.sf(stats.t.ppf(0.975, 59))
    expected = proportion_confint(mean * effective, effective, alpha=alpha, method="wilson")
    ours = score_interval(scores, groups=groups.tolist())
    assert (ours.low, ours.high) == pytest.approx(expected, abs=5e-4)


def test_independent_paired_scores_have_students_interval():
    rng = np.random.default_rng(8)
    a, b = rng.random(200), rng.random(200)
    expected = stats.ttest_rel(a, b).confidence_interval()
    ours = paired_interval(a, b)
    assert (ours.low, ours.high) == pytest.approx(tuple(expected), abs=2e-4)


@pytest.mark.parametrize(("mean", "spread", "power"), [(0.05, 0.5, 0.8), (0.02, 0.3, 0.9), (0.1, 0.45, 0.5)])
def test_the_examples_needed_are_those_of_a_paired_z_test(mean, spread, power):
    half = np.array([1.0, -1.0]) * spread / math.sqrt(2)
    diffs = mean + half  # two values with exactly this mean and standard deviation (n − 1)
    expected = NormalIndPower().solve_power(effect_size=mean / spread, alpha=0.05, power=power, ratio=0)
    assert examples_needed(diffs, power=power) == pytest.approx(expected, rel=0.01, abs=1)
    margin = 0.2
    distance = NormalIndPower().solve_power(
        effect_size=(margin - mean) / spread, alpha=0.05, power=power, ratio=0
    )
    assert examples_for_tie(diffs, margin, power=power) == pytest.approx(distance, rel=0.01, abs=1)


@pytest.mark.parametrize("n", [155, 626, 3922])
def test_the_detectable_difference_is_found_as_often_as_promised(n):
    difference, discordant = minimum_detectable_difference(n), 0.2
    share = (discordant + difference) / 2 / discordant
    z = stats.norm.ppf(0.975)
    # McNemar's test by its normal form, over every number of discordant pairs and of those won.
    counts = np.arange(n + 1)
    chance = stats.binom.pmf(counts, n, discordant)
    found = 0.0
    for discordants in counts[chance > 1e-9]:
        won = np.arange(discordants + 1)
        significant = np.abs(2 * won - discordants) >= z * math.sqrt(max(discordants, 1))
        found += chance[discordants] * stats.binom.pmf(won, discordants, share)[significant].sum()
    assert found == pytest.approx(0.8, abs=0.03)
