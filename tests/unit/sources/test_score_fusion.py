import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.errors import InputError
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.score_fusion import score_fusion

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-1, 1), min_size=1, max_size=20)


def test_scores_are_stretched_and_added():
    found = dict(score_fusion({"a": 8.0, "b": 2.0}, {"a": 0.2, "b": 0.6, "c": 0.1}))
    assert found == {
        "b": pytest.approx((2 / 8 + 1) / 2),
        "a": pytest.approx((1 + 0.1 / 0.5) / 2),
        "c": 0,
    }
    assert list(found) == ["b", "a", "c"]


def test_weights_decide_between_words_and_meaning():
    words, meaning = {"a": 8.0, "b": 2.0}, {"a": 0.1, "b": 0.6}
    assert score_fusion(words, meaning, meaning_weight=0)[0][0] == "a"
    assert score_fusion(words, meaning, words_weight=0)[0][0] == "b"


@given(SCORES, st.floats(0, 100))
def test_every_candidate_is_scored_once_between_0_and_1(meaning, most):
    words = {item: most * (item % 3) for item in meaning if item % 2}
    found = score_fusion(words, meaning)
    assert sorted(item for item, _ in found) == sorted(meaning)
    assert all(0 <= score <= 1 for _, score in found)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


@given(SCORES)
def test_what_no_word_finds_is_ordered_by_meaning_alone(meaning):
    ordered = sorted(meaning, key=lambda item: -meaning[item])
    found = [item for item, _ in score_fusion({}, {item: meaning[item] for item in ordered})]
    assert [meaning[item] for item in found] == pytest.approx([meaning[item] for item in ordered], abs=1e-8)


def test_nothing_is_fused_to_nothing():
    assert score_fusion({}, {}) == []


def test_ranks_are_fused_with_weights():
    rankings = [["a", "b"], ["b", "a"]]
    assert [item for item, _ in reciprocal_rank_fusion(rankings, 60, (2.0, 1.0))] == ["a", "b"]
    assert [item for item, _ in reciprocal_rank_fusion(rankings, 60, (1.0, 2.0))] == ["b", "a"]


def test_a_ranking_fuses_as_it_is_told():
    words, meaning = {1: 9.0, 2: 8.9}, {1: 0.1, 2: 0.5, 3: 0.6}
    by_scores = Ranking().fuse([1, 2], [3, 2, 1], words, meaning)
    assert [item for item, _ in by_scores] == [2, 3, 1]  # 3 and 1 tie, 3 is closer in meaning
    by_ranks = Ranking("ranks").fuse([1, 2], [3, 2, 1], words, meaning)
    assert by_ranks == reciprocal_rank_fusion([[1, 2], [3, 2, 1]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fusion": "votes"}, "fusion is 'votes'; expected one of scores, ranks"),
        ({"words_weight": -1.0}, "expected both at least 0, and one above it"),
        ({"words_weight": 0.0, "meaning_weight": 0.0}, "expected both at least 0, and one above it"),
        ({"meaning_weight": float("nan")}, "expected both at least 0, and one above it"),
        ({"words_weight": float("inf")}, "expected both at least 0, and one above it"),
        ({"words_weight": float("nan")}, "expected both at least 0, and one above it"),
        ({"fusion_k": 0}, "fusion_k is 0; expected 1 or more"),
        ({"rerank": 500}, "rerank is 500; expected 0 to 100 passages"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Ranking(**settings)


def test_a_ranking_is_made_again_from_plain_values():
    ranking = Ranking("ranks", 1.0, 2.0, 10, 5, "hf:org/name")
    assert Ranking(**ranking.to_json()) == ranking
