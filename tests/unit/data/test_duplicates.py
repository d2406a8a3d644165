"""Near-duplicates: the fast search finds exactly what comparing all pairs finds."""

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.duplicates import (
    comparable_texts,
    near_groups,
    near_matches,
    normalise,
    prompt_key,
    shared_affixes,
    similarity,
)
from tailorbird.records import Example, Message

WORDS = """the card has not come yet please help me top up my account balance fee exchange rate""".split()  # noqa: SIM905


def slow_jaccard(a, b):
    def pieces(text):
        return {text[i : i + 5] for i in range(max(1, len(text) - 4))}

    return len(pieces(a) & pieces(b)) / len(pieces(a) | pieces(b))


def slow_groups(texts):
    group = list(range(len(texts)))
    for i, j in itertools.combinations(range(len(texts)), 2):
        if slow_jaccard(texts[i], texts[j]) >= 0.8:
            old, new = group[j], group[i]
            group = [new if g == old else g for g in group]
    members = {}
    for i, g in enumerate(group):
        members.setdefault(g, []).append(i)
    return sorted(tuple(m) for m in members.values() if len(m) > 1)


def noisy_texts(seed, count=60):
    """Sentences, many of them with one letter or word changed from another."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 25))) for _ in range(count // 3)]
    while len(texts) < count:
        text = list(rng.choice(texts))
        text[rng.randrange(len(text))] = rng.choice("abcx ")
        texts.append("".join(text))
    rng.shuffle(texts)
    return texts


def test_what_does_not_matter_is_normalised_away():
    assert normalise("  Where’s my\u200b CARD ?!") == normalise("where's my card") == "where's my card"
    assert normalise("ﬁve") == "five"


def test_symbols_keep_texts_apart():
    assert normalise("2+2") != normalise("2-2")
    assert normalise("???") == "???"


@pytest.mark.parametrize("seed", range(5))
def test_groups_equal_those_of_comparing_all_pairs(seed):
    texts = noisy_texts(seed)
    assert slow_groups(texts)
    assert sorted(near_groups(texts)) == slow_groups(texts)


@given(st.text("ab ", max_size=30), st.text("ab ", max_size=30))
def test_similarity_equals_the_definition(a, b):
    assert similarity(a, b) == pytest.approx(slow_jaccard(a, b))


@given(st.lists(st.text("abc ", max_size=12), max_size=12), st.randoms())
def test_groups_do_not_depend_on_the_order(texts, rng):
    shuffled = texts.copy()
    rng.shuffle(shuffled)

    def as_texts(order):
        return sorted(sorted(order[i] for i in group) for group in near_groups(order))

    assert as_texts(texts) == as_texts(shuffled)


def test_matches_across_two_sets_equal_those_of_comparing_all_pairs():
    texts, others = noisy_texts(1), noisy_texts(1)[::2] + noisy_texts(2)
    expected = {i for i, t in enumerate(texts) if any(slow_jaccard(t, o) >= 0.8 for o in others)}
    matches = near_matches(texts, others)
    assert set(matches) == expected
    assert all(slow_jaccard(texts[i], others[j]) >= 0.8 for i, j in matches.items())


def test_a_chain_through_others_of_the_same_set_is_no_match():
    base = "abcdefghijklmnopqrstuvwxyz0123456789"
    near, far = base + "AB", base + "ABCDEFGH"
    assert similarity(base, near) >= 0.8
    assert similarity(near, far) >= 0.8
    assert similarity(base, far) < 0.8 + 0.02
    assert set(near_matches([base + "ABCDEFGHIJK", near], [base])) == {1}


def test_empty_and_tiny_texts_are_compared_whole():
    assert near_groups([]) == []
    assert near_groups(["", "a", "b", "a", ""]) == [(0, 4), (1, 3)]


def test_a_template_that_all_prompts_share_is_left_out_of_the_comparison():
    start, end = "Decide whether the tweet is positive, neutral or negative. Tweet: ", " Sentiment please:"
    # fifty different letters and words between long equal ends
    bodies = [f"{chr(97 + i % 26) * 6} {WORDS[i % 7]} {i * 37}" for i in range(50)]
    examples = [Example.pair(start + body + end, "x") for body in bodies]
    assert near_groups([normalise(e.prompt) for e in examples])
    assert near_groups(comparable_texts(examples)) == []


def test_shared_affixes_are_whole_words_and_never_overlap():
    assert shared_affixes({"say one now", "say once now"}) == ("say ", " now")
    before, after = shared_affixes({"a a", "a a a"})
    assert len(before) + len(after) <= len("a a")


def test_system_messages_distinguish_prompts_but_do_not_make_them_similar():
    rules = Message("system", "You are a helpful assistant of the bank. " * 10)
    first = Example((rules, Message("user", "lost my card")), "a")
    second = Example((rules, Message("user", "exchange rates?")), "b")
    assert near_groups(comparable_texts([first, second])) == []
    assert prompt_key(first) != prompt_key(Example.pair("lost my card", "a"))


def test_ten_thousand_rows_take_seconds():
    rng = random.Random(0)
    texts = [
        f"what is {rng.randint(1, 99)} {rng.choice(['plus', 'minus'])} {rng.randint(1, 999)}"
        for _ in range(10_000)
    ]
    begin = time.perf_counter()
    near_groups(texts)
    assert time.perf_counter() - begin < 40
