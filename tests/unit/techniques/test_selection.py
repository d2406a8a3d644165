from collections import Counter

import numpy as np
import pytest

from tailorbird.records import Example, Message
from tailorbird.techniques.selection import (
    SELECTS,
    Neighbours,
    by_task,
    medoids,
    nearly_equal,
    one_set,
    voted,
)
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data

TRAIN = tiny_data().train
TEXTS = [
    "my red bike is broken",
    "my red bike is broken again",
    "a red bike is for sale",
    "tax forms are due",
    "the tax is paid",
]


def everything(_):
    return True


def clusters(*sizes, seed=0, dimensions=16):
    """Unit vectors around one direction a cluster, and each one's cluster."""
    dice = np.random.default_rng(seed)
    centres = np.linalg.qr(dice.normal(size=(dimensions, dimensions)))[0][: len(sizes)]
    of = np.repeat(np.arange(len(sizes)), sizes)
    vectors = centres[of] + 0.05 * dice.normal(size=(len(of), dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), of


@pytest.mark.parametrize("likeness", ["words", "meaning", "both"])
def test_the_nearest_come_first_and_only_allowed_ones(likeness):
    pool = Neighbours(TEXTS, WordHash())
    assert pool.nearest("my red bike is broken", 2, everything, likeness) == [0, 1]
    assert pool.nearest("my red bike is broken", 2, lambda i: i != 0, likeness)[0] == 1
    assert pool.nearest("tax", 2, lambda i: i < 3, likeness)
    assert 3 not in pool.nearest("tax forms", 5, lambda i: i < 3, likeness)


def test_maximal_marginal_relevance_weighs_likeness_to_the_request_against_likeness_to_the_chosen():
    vectors, _ = clusters(6, 6, 6, seed=1)

    class Fixed(WordHash):
        def embed(self, texts):
            return vectors[: len(texts)]

    pool = Neighbours([f"text {n}" for n in range(18)], Fixed(), vectors)
    chosen, near = [], vectors @ vectors[0]
    while len(chosen) < 4:
        left = [i for i in range(18) if i not in chosen]
        worth = [
            0.7 * near[i] - 0.3 * max([vectors[i] @ vectors[j] for j in chosen], default=0) for i in left
        ]
        chosen.append(left[int(np.argmax(worth))])
    assert pool.diverse("q", 4, everything, "meaning") == chosen
    assert pool.nearest("q", 4, everything, "meaning") != chosen


def test_medoids_stand_for_every_cluster_however_small():
    vectors, of = clusters(40, 5, 12)
    for seed in range(5):
        assert sorted(of[medoids(vectors, 3, seed)]) == [0, 1, 2]


def test_vote_k_takes_from_the_largest_cluster_first_and_then_from_others():
    vectors, of = clusters(30, 20, 12)
    chosen = voted(vectors, 3, 0)
    assert of[chosen[0]] in (0, 1)
    assert set(of[chosen]) == {0, 1, 2}


@pytest.mark.parametrize("choose", [medoids, voted])
def test_of_few_vectors_all_are_taken_and_none_twice(choose):
    vectors, _ = clusters(2, 1)
    assert sorted(choose(vectors, 9, 0)) == [0, 1, 2]
    assert choose(vectors, 0, 0) == []
    same = np.repeat(vectors[:1], 6, axis=0)
    assert len(set(choose(same, 4, 0))) == 4


@pytest.mark.parametrize("select", [s for s in SELECTS if s not in ("nearest", "mmr", "hybrid")])
def test_one_set_has_k_different_examples_and_the_same_for_the_same_seed(select):
    drawn = one_set(select, TRAIN, 6, 3, WordHash)
    assert len({e.id for e in drawn}) == 6
    assert drawn == one_set(select, TRAIN, 6, 3, WordHash)


def test_random_draws_differ_by_seed_and_balanced_ones_are_even():
    assert one_set("random", TRAIN, 6, 0, WordHash) != one_set("random", TRAIN, 6, 1, WordHash)
    balanced = one_set("balanced", TRAIN, 6, 0, WordHash)
    assert set(Counter(e.completion for e in balanced).values()) == {2}


def test_examples_are_told_apart_by_their_own_instruction():
    sorting = Example((Message("system", "Sort."), Message("user", "a")), "x")
    plain = Example.pair("b", "y")
    assert by_task([sorting, plain, sorting]) == {"Sort.": [0, 2], None: [1]}


def test_examples_that_nearly_say_the_same_are_one_group():
    long = "when will my parcel with the two blue bicycle lamps be delivered to my house"
    pool = [
        Example.pair(long, "a"),
        Example.pair("quite another thing altogether", "b"),
        Example.pair(long + "?!", "c"),
    ]
    assert nearly_equal(pool) == {0: frozenset({0, 2}), 2: frozenset({0, 2})}
