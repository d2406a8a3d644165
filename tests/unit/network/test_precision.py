import pytest
import torch

from tailorbird.errors import RecipeError
from tailorbird.network import precision
from tailorbird.network.precision import bfloat16_gain, compute_type


@pytest.mark.parametrize(("gain", "expected"), [(2.0, torch.bfloat16), (1.0, torch.float32)])
def test_bfloat16_is_taken_where_it_is_faster(gain, expected, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_gain", lambda width: gain)
    assert compute_type("auto", 576) is expected


def test_a_narrow_network_stays_in_float32(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_gain", lambda width: 5.0)
    assert compute_type("auto", 64) is torch.float32


def test_a_type_that_is_named_is_taken_unprobed(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_gain", None)
    assert compute_type("float32", 576) is torch.float32
    assert compute_type("bfloat16", 32) is torch.bfloat16
    assert compute_type("auto", 576, device="cuda") is torch.bfloat16


def test_the_probe_measures_a_ratio_of_speeds():
    assert 0.01 < bfloat16_gain(64) < 100


def test_an_unknown_type_is_refused():
    with pytest.raises(
        RecipeError, match=r"precision is 'half'; expected one of \['auto', 'float32', 'bfloat16'\]"
    ):
        compute_type("half", 576)


def test_a_probe_that_was_kept_waiting_still_measures(monkeypatch):
    monkeypatch.setattr(precision, "PROBE_S", -1.0)
    bfloat16_gain.cache_clear()
    assert 0 < bfloat16_gain(64) < float("inf")
    bfloat16_gain.cache_clear()
