import random

import pytest

from tailorbird.evaluation.statistics import Interval, paired_interval, wilson
from tailorbird.evaluation.unpaired import mean_interval, unpaired_interval, unpaired_p_value


def of(hits, n):
    return Interval(hits / n, *wilson(hits, n))


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_of_wilsons_intervals_it_is_the_published_table_of_newcombe(a, b, low, high):
    """Newcombe 1998, Statistics in Medicine 17:873, Table II, method 10."""
    found = unpaired_interval(of(*a), of(*b))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_p_value_is_below_a_twentieth_exactly_where_the_interval_leaves_nothing_out():
    for hits in range(41):
        difference = unpaired_interval(of(20, 40), of(hits, 40))
        assert (unpaired_p_value(difference) < 0.05) == (not difference.low <= 0 <= difference.high)
    assert unpaired_p_value(unpaired_interval(of(20, 40), of(20, 40))) == 1.0


def test_of_two_equal_arms_about_a_twentieth_is_called_different():
    luck = random.Random(1)
    called = 0
    for _ in range(600):
        a, b = (sum(luck.random() < 0.7 for _ in range(80)) for _ in range(2))
        called += unpaired_p_value(unpaired_interval(of(a, 80), of(b, 80))) < 0.05
    assert 0.02 < called / 600 < 0.09


def test_it_is_wider_than_the_paired_interval_of_the_same_examples():
    luck = random.Random(2)
    a = [float(luck.random() < 0.7) for _ in range(100)]
    b = [score if luck.random() < 0.9 else 1 - score for score in a]
    paired = paired_interval(a, b)
    apart = unpaired_interval(mean_interval(a), mean_interval(b))
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)


def test_equal_scores_that_are_neither_right_nor_wrong_still_leave_room_for_doubt():
    found = mean_interval([0.5] * 20)
    assert found.low < 0.4
    assert found.high > 0.6
    assert mean_interval([0.5] * 20, groups=["one", "two"] * 10).low < found.low
    assert mean_interval([1.0] * 20) == of(20, 20)
