import random

import pytest

from tailorbird.sources.gate import Gate, best_cut, fit_gate


def cases(mean, count, seed):
    dice = random.Random(seed)
    return [(dice.gauss(mean, 0.2), dice.random()) for _ in range(count)]


def test_a_gate_lets_good_cases_pass_and_few_bad_ones():
    gate = fit_gate(cases(0.8, 80, 1), cases(0.2, 80, 2))
    passed = [gate.passes(case) for case in cases(0.8, 200, 3)]
    stopped = [not gate.passes(case) for case in cases(0.2, 200, 4)]
    assert sum(passed) >= 180
    assert sum(stopped) >= 160


def test_what_tells_nothing_hardly_weighs():
    gate = fit_gate(cases(0.8, 80, 1), cases(0.2, 80, 2))
    assert abs(gate.weights[1]) < abs(gate.weights[0]) / 5


def test_a_gate_that_can_not_tell_refuses_almost_nothing():
    gate = fit_gate(cases(0.5, 60, 1), cases(0.5, 60, 2))
    assert sum(gate.passes(case) for case in cases(0.5, 200, 3)) >= 150


@pytest.mark.parametrize(("good", "bad"), [(4, 50), (50, 4), (0, 0)])
def test_too_few_cases_make_no_gate(good, bad):
    assert fit_gate(cases(0.8, good, 1), cases(0.2, bad, 2)) is None


def test_figures_that_are_all_alike_are_no_trouble():
    gate = fit_gate([(1.0, 0.5)] * 6, [(1.0, 0.2)] * 6)
    assert gate.passes((1.0, 0.5))


def test_a_gate_is_kept_as_plain_values():
    gate = fit_gate(cases(0.8, 10, 1), cases(0.2, 10, 2))
    assert Gate.from_json(gate.to_json()) == gate


def test_a_chance_is_one_however_far_out():
    gate = Gate((1000.0,), 0.0, 0.5)
    assert gate.chance((1000.0,)) == 1.0
    assert gate.chance((-1000.0,)) == 0.0


def test_the_least_of_equally_good_cuts_is_taken():
    assert best_cut([0.5, 0.6], [0.1, 0.2]) == 0.5
    assert best_cut([0.5, 0.5], [0.5, 0.5], 0.15) == 0.15
