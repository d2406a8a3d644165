import math

import numpy as np
import pytest

from tailorbird.sources.bm25 import BM25, words

TEXTS = ["my card was stolen", "the exchange rate of my card", "transfer is pending", "the the the"]


def test_the_text_that_shares_rare_words_scores_best():
    scores = BM25(TEXTS).scores("stolen card")
    assert scores.argmax() == 0
    assert scores[2] == 0


def test_a_score_is_that_of_the_formula():
    texts = ["a a b", "b c", "d"]
    inverse = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = inverse * 2 * 2.2 / (2 + 1.2 * (1 - 0.75 + 0.75 * 3 / 2))
    scores = BM25(texts, k1=1.2, b=0.75, idf="lucene").scores("a")
    assert scores == pytest.approx([expected, 0, 0])


def test_a_word_asked_twice_counts_twice():
    bm25 = BM25(TEXTS)
    assert bm25.scores("card card") == pytest.approx(2 * bm25.scores("card"))


def test_lucene_scores_are_never_negative_for_words_that_stand_everywhere():
    bm25 = BM25(["a b", "a c", "a d"], idf="lucene")
    assert (bm25.scores("a") > 0).all()


def test_unknown_words_and_empty_queries_score_nothing():
    bm25 = BM25(TEXTS)
    for query in ("", "zebra", "?!"):
        assert not bm25.scores(query).any()


@pytest.mark.parametrize("texts", [[], ["", ""], ["?!"]])
def test_texts_without_words_give_zeros(texts):
    scores = BM25(texts).scores("card")
    assert scores.shape == (len(texts),)
    assert len(BM25(texts)) == len(texts)
    assert np.isfinite(scores).all()


def test_another_tokenizer_may_be_given():
    scores = BM25(["ab", "cd"], tokenize=list, idf="lucene").scores("b")
    assert scores[0] > 0 == scores[1]


def test_words_are_lower_case_and_without_punctuation():
    assert words("Ça va_bien, No. 42?") == ["ça", "va", "bien", "no", "42"]
