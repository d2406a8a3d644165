import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.network.schedule import schedule_factor


def factors(total, **how):
    return [schedule_factor(step, total, **how) for step in range(total)]


def test_warmup_rises_in_equal_steps_to_the_peak():
    assert factors(10, warmup_fraction=0.3, schedule="constant")[:4] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_is_halfway_down_in_the_middle():
    assert schedule_factor(5, 10, schedule="cosine") == pytest.approx(0.5)
    assert schedule_factor(0, 10, schedule="cosine") == 1.0


def test_linear_falls_in_equal_steps():
    assert factors(5, warmup_fraction=0.2, schedule="linear") == [0.5, 1.0, 0.75, 0.5, 0.25]


@given(st.integers(1, 60), st.floats(0, 0.99), st.sampled_from(["cosine", "linear", "constant"]))
def test_every_step_moves_and_none_exceeds_the_peak(total, warmup, schedule):
    found = factors(total, warmup_fraction=warmup, schedule=schedule)
    assert all(0 < factor <= 1 for factor in found)
    peak = found.index(max(found))
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)
