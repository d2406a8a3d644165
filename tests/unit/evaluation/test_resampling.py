import numpy as np
import pytest

from tailorbird.evaluation.resampling import resampled_means

DICE = np.random.default_rng(0)
SCORES = (DICE.random((2, 400)) < [[0.8], [0.6]]).astype(float)


def test_means_vary_as_a_mean_of_so_many_examples_does():
    found = resampled_means(SCORES, resamples=4000)
    assert found.shape == (4000, 2)
    assert found.mean(axis=0) == pytest.approx(SCORES.mean(axis=1), abs=0.002)
    assert found.std(axis=0) == pytest.approx(SCORES.std(axis=1) / 20, rel=0.05)


def test_all_models_get_the_same_examples_in_a_resample():
    twice = np.stack([SCORES[0], SCORES[0], 1 - SCORES[0]])
    found = resampled_means(twice, resamples=50)
    assert found[:, 0] == pytest.approx(found[:, 1])
    assert found[:, 0] + found[:, 2] == pytest.approx(np.ones(50))


def test_examples_of_one_document_are_drawn_together():
    apart = DICE.permutation(np.repeat([0.0, 1.0], 50))
    scores = np.repeat(apart, 4)[None]
    groups = [f"document {n // 4}" for n in range(400)]
    alone = resampled_means(scores, resamples=4000).std()
    together = resampled_means(scores, groups=groups, resamples=4000).std()
    assert together == pytest.approx(2 * alone, rel=0.05)


def test_clusters_of_unequal_size_keep_their_weight():
    scores = np.array([[1.0, 1.0, 1.0, 0.0]])
    found = resampled_means(scores, groups=["a", "a", "a", "b"], resamples=2000)
    assert set(np.round(found[:, 0], 6)) == {0.0, 0.75, 1.0}


def test_the_same_seed_gives_the_same_means():
    assert np.array_equal(resampled_means(SCORES, seed=3), resampled_means(SCORES, seed=3))
    assert not np.array_equal(resampled_means(SCORES, seed=3), resampled_means(SCORES, seed=4))


def test_nothing_to_draw_from_and_groups_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"scores have the shape \(1, 0\); expected models × examples"):
        resampled_means(np.zeros((1, 0)))
    with pytest.raises(ValueError, match="groups name 2 examples; expected 3"):
        resampled_means(np.zeros((1, 3)), groups=["a", "b"])
