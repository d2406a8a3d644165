import math

import numpy as np
import pytest

from tailorbird.errors import Unsupported
from tailorbird.records import Completion, Message, Prior, Request
from tailorbird.techniques.calibration import (
    CONTENT_FREE,
    KINDS,
    NOT_CALIBRATED,
    TEMPERATURES,
    Calibration,
    Observed,
    choose_calibration,
    crossed_log_p,
    fit_calibration,
    log_softmax,
    log_votes,
    own_log_p,
    read_calibration,
    right_log_p,
    without_content,
)

LABELS = ("a", "b", "c")


def observed(count=300, *, lean=(0.0, 0.0, 0.0), sure=1.0, votes=None, seed=0):
    """Right labels of even chances, seen by a model that knows them fairly well and leans towards some labels."""
    dice = np.random.default_rng(seed)
    right = dice.integers(3, size=count)
    knows = np.eye(3)[right] * 1.5 + dice.normal(size=(count, 3))
    own = log_softmax(sure * knows + np.array(lean))
    free = log_softmax(np.array([lean, lean], dtype=float))
    if votes is not None:
        better = np.eye(3)[right] * votes + dice.normal(size=(count, 3))
        votes = np.array([log_softmax(better)] * len(TEMPERATURES))
    channel = log_softmax(np.eye(3)[right] * 3.0 + dice.normal(size=(count, 3)))
    return Observed(LABELS, own, right, free, votes, channel)


def accuracy(seen, calibration):
    return float((seen.log_p(calibration).argmax(axis=1) == seen.right_N).mean())


@pytest.mark.parametrize("kind", ["contextual", "batch", "affine"])
def test_a_lean_towards_a_label_is_taken_back(kind):
    seen = observed(lean=(4.0, 0.0, -1.0))
    assert accuracy(seen, NOT_CALIBRATED) < 0.5
    fitted, rest = fit_calibration(kind, seen), observed(lean=(4.0, 0.0, -1.0), seed=1)
    assert accuracy(rest, fitted) > accuracy(rest, NOT_CALIBRATED) + 0.25


def test_without_a_lean_only_the_sureness_is_mended():
    seen = observed(sure=4.0)
    fitted = fit_calibration("affine", seen)
    assert fitted.trust < 0.5
    assert max(map(abs, fitted.log_weights)) < 0.5
    before, after = (right_log_p(seen.log_p(c), seen.right_N).mean() for c in (NOT_CALIBRATED, fitted))
    assert after > before + 0.3


def test_neighbours_that_know_better_are_heard_more():
    seen = observed(votes=4.0)
    fitted = fit_calibration("neighbours", seen)
    assert fitted.vote > fitted.trust
    assert accuracy(seen, fitted) > accuracy(seen, NOT_CALIBRATED) + 0.1


def test_a_channel_that_knows_better_is_heard_more():
    seen = observed()
    fitted = fit_calibration("channel", seen)
    assert fitted.channel > fitted.trust
    assert accuracy(seen, fitted) > accuracy(seen, NOT_CALIBRATED) + 0.05


def test_the_kind_is_chosen_by_messages_that_it_was_not_fitted_to():
    kinds = [k for k in KINDS if k not in ("neighbours", "channel")]
    assert choose_calibration(observed(lean=(4.0, 0.0, 0.0)), kinds).kind in ("affine", "contextual", "batch")
    assert choose_calibration(observed(votes=4.0), [*kinds, "neighbours"]).kind == "neighbours"
    few = observed(count=12, sure=0.7)
    # A factor of each of many labels can be fitted to a handful of messages, and helps none of the others.
    noise = np.random.default_rng(0).integers(3, size=12)
    contradicting = Observed(LABELS, few.own_NL, noise)
    chosen = choose_calibration(contradicting, ["none", "batch", "affine"])
    crossed = {
        k: right_log_p(crossed_log_p(k, contradicting), noise).sum() for k in ("none", "batch", "affine")
    }
    assert chosen.kind == max(crossed, key=crossed.get)


def test_nothing_observed_calibrates_nothing():
    empty = Observed(LABELS, np.empty((0, 3)), np.empty(0, dtype=np.intp))
    assert all(fit_calibration(kind, empty) == NOT_CALIBRATED for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibration_comes_back_from_json(kind):
    fitted = fit_calibration(kind, observed(lean=(1.0, 0.0, 0.0), votes=2.0))
    again = read_calibration(fitted.to_json())
    votes = {"a": -1.0, "b": -2.0, "c": -0.5}
    assert again.prior(LABELS, lambda _: votes) == fitted.prior(LABELS, lambda _: votes)
    assert (again.prior(LABELS, lambda _: votes) is None) == (kind == "none")


def test_a_prior_is_in_the_order_of_the_choices_and_none_of_unknown_ones():
    fitted = Calibration("affine", LABELS, 0.5, (1.0, 2.0, 3.0))
    assert fitted.prior(("c", "a"), lambda _: {}) == Prior((3.0, 1.0), 0.5)
    assert fitted.prior(("c", "d"), lambda _: {}) is None


def test_votes_are_log_probabilities_and_nobody_is_ruled_out():
    votes = log_votes(LABELS, [("a", 0.9), ("a", 0.7), ("b", 0.8), ("strange", 1.0)], 0.1)
    assert math.isclose(sum(map(math.exp, votes.values())), 1.0)
    assert votes["a"] > votes["b"] > votes["c"] > -10
    assert set(log_votes(LABELS, [], 0.1).values()) == {math.log(1 / 3)}


def test_answers_without_probabilities_are_refused():
    with pytest.raises(
        Unsupported, match=r"few_shot: the model gives no probabilities of labels, which are needed"
    ):
        own_log_p([Completion("a")], LABELS, "few_shot")


def test_messages_without_content_take_the_place_of_the_last_one():
    request = Request(
        (
            Message("system", "Sort."),
            Message("user", "hi"),
            Message("assistant", "yes"),
            Message("user", "now"),
        )
    )
    asked = without_content(request)
    assert [r.question for r in asked] == list(CONTENT_FREE)
    assert all(r.messages[:-1] == request.messages[:-1] for r in asked)
