"""Our BM25 gives the scores of rank_bm25's BM25Okapi, to 1e-9."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from tailorbird.sources.bm25 import BM25

WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "the", "of", "card", "rate"])
TEXTS = st.lists(st.lists(WORDS, max_size=12), min_size=1, max_size=15).filter(any)


def assert_equal_scores(texts, query, **settings):
    theirs = BM25Okapi([text.split() for text in texts], **settings).get_scores(query.split())
    ours = BM25(texts, tokenize=str.split, **settings).scores(query)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@given(TEXTS, st.lists(WORDS, max_size=8))
def test_scores_are_equal_on_random_texts(texts, query):
    assert_equal_scores([" ".join(text) for text in texts], " ".join(query))


@pytest.mark.parametrize("settings", [{}, {"k1": 0.9, "b": 0.4}, {"k1": 2.0, "b": 1.0, "epsilon": 0.5}])
def test_scores_are_equal_for_any_setting_on_words_of_very_different_frequency(settings):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.zipf(1.3, size=rng.integers(1, 60)) % 500) for _ in range(300)]
    for text in texts[:40]:
        assert_equal_scores(texts, text, **settings)
