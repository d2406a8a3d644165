import re
from statistics import NormalDist

import numpy as np
import pytest

from tailorbird.evaluation.learning_curve import Measured, PowerLaw, learning_curve, round_step

NUM_LABELS = 400
NORMAL = NormalDist()


def models(law, *, num_test=300, seed=0, noise=0.01, draws=3, alike=0.7, shares=(0.25, 0.5)):
    """Right and wrong answers of models whose errors keep to a law, and which find the same examples hard."""
    dice = np.random.default_rng(seed)
    shared_N = dice.normal(size=num_test)

    def one(size, draw):
        error = 1 - law.score(size) + dice.normal() * noise
        own_N = dice.normal(size=num_test)
        luck_N = alike**0.5 * shared_N + (1 - alike) ** 0.5 * own_N
        right_N = luck_N > NORMAL.inv_cdf(min(0.999, max(0.001, error)))
        return Measured(size, draw, right_N.astype(float))

    small = [one(round(share * NUM_LABELS), draw) for share in shares for draw in range(draws)]
    return [*small, one(NUM_LABELS, 0)]


def exact(law, sizes=(100, 200, 400), draws=3, num_test=1000):
    """Scores whose means lie on the law, each example right in part, so that the test brings no chance."""
    return [
        Measured(size, draw, [law.score(size)] * num_test)
        for size in sizes
        for draw in range(draws if size < sizes[-1] else 1)
    ]


@pytest.mark.parametrize(
    "law",
    [
        PowerLaw(0.2, 0.5, 0.05, NUM_LABELS),
        PowerLaw(0.1, 0.3, 0.0, NUM_LABELS),
        PowerLaw(0.1, 0.8, 0.15, NUM_LABELS),
        PowerLaw(0.05, 0.6, 0.3, NUM_LABELS),
    ],
)
def test_a_power_law_is_found_again(law):
    found = learning_curve("arm", exact(law), resamples=50)
    for size in (100, 200, 400, 600, 800):
        assert found.law.score(size) == pytest.approx(law.score(size), abs=0.002)
    assert found.gain == pytest.approx(law.score(600) - law.score(400), abs=0.002)


def test_five_sizes_tell_the_rate_by_themselves():
    law = PowerLaw(0.1, 0.9, 0.1, NUM_LABELS)
    found = learning_curve("arm", exact(law, sizes=(25, 50, 100, 200, 400)), resamples=50)
    assert found.law.b == pytest.approx(0.9, abs=0.051)
    assert found.law.c == pytest.approx(0.1, abs=0.01)


def test_the_sentence_says_what_more_labels_bring_and_how_sure_that_is():
    found = learning_curve("few_shot", models(PowerLaw(0.25, 0.5, 0.02, NUM_LABELS), num_test=3000))
    assert found.kind == "gain"
    assert found.more_labels == 200
    assert 0 < found.low < found.gain < found.high
    least, about, most = (f"{100 * value:.1f}" for value in (found.low, found.gain, found.high))
    assert found.sentence == f"few_shot: +200 labels → about +{about} points ({least} to {most})."
    assert found.gain == pytest.approx(0.0459, abs=0.01)


def test_wide_intervals_are_told_without_decimals():
    found = learning_curve("few_shot", models(PowerLaw(0.3, 0.5, 0.02, NUM_LABELS), num_test=150))
    assert re.fullmatch(r"few_shot: \+200 labels → about \+\d points \(\d to \d+\)\.", found.sentence)


def test_a_flat_curve_says_that_more_labels_would_hardly_help():
    found = learning_curve("arm", models(PowerLaw(0.002, 0.5, 0.2, NUM_LABELS), num_test=5000, noise=0.001))
    assert found.kind == "hardly"
    most = f"{100 * found.high:.1f}"
    assert found.sentence == f"arm: more labels would hardly help: +200 labels → at most +{most} points."
    assert found.high <= 0.02


def test_a_small_test_set_says_that_it_cannot_tell():
    found = learning_curve("arm", models(PowerLaw(0.05, 0.5, 0.2, NUM_LABELS), num_test=40, noise=0.03))
    assert found.kind == "unclear"
    assert found.sentence.startswith("arm: can't tell what more labels would bring: +200 labels → between 0")
    assert found.high > 0.02


def test_labels_that_make_it_worse_are_no_gain():
    falling = [
        Measured(size, draw, [score] * 500)
        for size, score in ((100, 0.8), (200, 0.79), (400, 0.78))
        for draw in range(3)
    ]
    found = learning_curve("arm", falling, resamples=50)
    assert found.gain == 0
    assert found.kind == "hardly"


def test_too_few_sizes_or_draws_are_said_and_drawn_without_a_law():
    law = PowerLaw(0.2, 0.5, 0.05, NUM_LABELS)
    for measured, sizes, draws in [
        (exact(law, sizes=(200, 400)), 2, 3),
        (exact(law, draws=1), 3, 1),
        (exact(law, sizes=(400,)), 1, 0),
    ]:
        found = learning_curve("arm", measured)
        assert found.kind == "unclear"
        assert found.law is None
        assert found.band == ()
        assert len(found.points) == sizes
        assert (
            f"takes 3 numbers of labels and 2 draws of each; there are {sizes} and {draws}." in found.sentence
        )


def test_a_draw_that_is_missing_at_one_size_is_left_out_of_all():
    measured = models(PowerLaw(0.2, 0.5, 0.05, NUM_LABELS))
    whole = learning_curve("arm", [one for one in measured if one.draw != 2])
    torn = [one for one in measured if (one.num_labels, one.draw) != (100, 2)]
    assert learning_curve("arm", torn).gain == whole.gain


def test_the_band_covers_what_is_true_in_about_nineteen_of_twenty_cases():
    for law in (PowerLaw(0.15, 0.5, 0.05, NUM_LABELS), PowerLaw(0.08, 0.3, 0.1, NUM_LABELS)):
        true = law.score(600) - law.score(400)
        covered = 0
        for seed in range(60):
            found = learning_curve("arm", models(law, seed=seed, noise=0.012), resamples=300)
            covered += found.low <= true <= found.high
        assert covered >= 53, covered


def test_more_test_examples_and_steadier_draws_narrow_the_band():
    law = PowerLaw(0.2, 0.5, 0.05, NUM_LABELS)

    def width(**settings):
        found = [learning_curve("arm", models(law, seed=s, **settings), resamples=200) for s in range(5)]
        return np.mean([one.high - one.low for one in found])

    narrow = width(num_test=3000, noise=0.002, alike=0.98)
    assert narrow < 0.7 * width(num_test=150, noise=0.002, alike=0.98)
    assert narrow < 0.7 * width(num_test=3000, noise=0.03, alike=0.98)


def test_examples_of_one_document_widen_the_band():
    law = PowerLaw(0.2, 0.5, 0.05, NUM_LABELS)
    measured = [
        Measured(one.num_labels, one.draw, np.repeat(one.scores, 5))
        for one in models(law, num_test=60, noise=0.003)
    ]
    groups = [f"document {n // 5}" for n in range(300)]
    alone, together = learning_curve("arm", measured), learning_curve("arm", measured, groups=groups)
    assert together.high - together.low > 1.15 * (alone.high - alone.low)


def test_the_band_reaches_from_the_fewest_labels_to_twice_as_many_and_no_further():
    found = learning_curve("arm", models(PowerLaw(0.2, 0.5, 0.05, NUM_LABELS)))
    sizes = [at.num_labels for at in found.band]
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (100, 800)
    assert all(at.low <= at.score <= at.high for at in found.band)
    with pytest.raises(
        ValueError, match="801 labels: expected above 0 and at most 800, twice what was measured"
    ):
        found.law.score(801)


def test_the_same_scores_give_the_same_curve_as_json():
    measured = models(PowerLaw(0.2, 0.5, 0.05, NUM_LABELS))
    first, second = (learning_curve("arm", measured).to_json() for _ in range(2))
    assert first == second
    assert first["points"][0]["num_models"] == 3
    assert first["law"].keys() == {"a", "b", "c", "num_labels"}


def test_scores_of_other_examples_are_refused():
    measured = [*exact(PowerLaw(0.2, 0.5, 0.05, NUM_LABELS), num_test=10)[:-1], Measured(400, 0, [1.0] * 9)]
    with pytest.raises(ValueError, match=r"scores are of \[9, 10\] examples; expected the same ones"):
        learning_curve("arm", measured)


def test_steps_are_round_and_never_more_than_there_are():
    assert all(round_step(n) <= n < 2.5 * round_step(n) for n in range(1, 3000))
