import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.sources.fusion import reciprocal_rank_fusion

RANKINGS = st.lists(st.lists(st.integers(0, 20), unique=True, max_size=12), max_size=4)


def test_scores_are_those_of_the_formula():
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b", "c"]], k=60))
    assert fused == {
        "b": pytest.approx(1 / 62 + 1 / 61),
        "a": pytest.approx(1 / 61),
        "c": pytest.approx(1 / 62),
    }


def test_an_item_in_both_rankings_beats_the_first_of_one():
    assert reciprocal_rank_fusion([["a", "x"], ["b", "x"]])[0][0] == "x"


def test_equal_scores_stand_in_the_order_of_the_items():
    assert [item for item, _ in reciprocal_rank_fusion([["b", "a"], ["a", "b"], ["c"]])] == ["a", "b", "c"]


def test_nothing_fuses_to_nothing():
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], []]) == []


@given(RANKINGS)
def test_every_item_comes_once_and_the_order_of_rankings_does_not_matter(rankings):
    fused = reciprocal_rank_fusion(rankings)
    assert sorted(item for item, _ in fused) == sorted({item for ranking in rankings for item in ranking})
    assert fused == reciprocal_rank_fusion(rankings[::-1])


@given(st.lists(st.integers(), unique=True))
def test_a_single_ranking_keeps_its_order(ranking):
    assert [item for item, _ in reciprocal_rank_fusion([ranking])] == ranking


def test_a_ranking_counts_by_its_weight():
    words, meaning = ["a", "b", "c"], ["c", "b"]
    assert reciprocal_rank_fusion([words, meaning], weights=(1, 1)) == reciprocal_rank_fusion(
        [words, meaning]
    )
    assert [item for item, _ in reciprocal_rank_fusion([["a"], ["b"]], weights=(1, 2))] == ["b", "a"]
    assert [item for item, _ in reciprocal_rank_fusion([words, meaning], weights=(1, 0))] == words
    assert [item for item, _ in reciprocal_rank_fusion([words, meaning], weights=(0, 1))] == ["c", "b", "a"]
    score = dict(reciprocal_rank_fusion([["a"], ["b", "a"]], k=9, weights=(0.5, 2)))["a"]
    assert score == 0.5 / 10 + 2 / 11
