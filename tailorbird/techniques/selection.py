"""Which examples are shown: for each request by likeness, or one set for all.

The nearest examples beat any fixed choice by far on tasks with many labels; a set that is the same for every
request costs its tokens once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tailorbird.records import Example
from tailorbird.sources.bm25 import BM25
from tailorbird.sources.embedder import Embedder, Vectors
from tailorbird.sources.fusion import reciprocal_rank_fusion

Select = Literal["nearest", "mmr", "hybrid", "balanced", "random", "fixed", "k_medoids", "vote_k"]
"""The first three choose for each request (`hybrid` its last ones), the others one set for all."""
Likeness = Literal["both", "words", "meaning"]
"""What makes examples near: BM25 of their words, sentence embeddings, or the two fused by reciprocal rank."""
Order = Literal["nearest_last", "nearest_first"]
ORDERS: tuple[Order, ...] = get_args(Order)
SELECTS: tuple[Select, ...] = get_args(Select)
LIKENESSES: tuple[Likeness, ...] = get_args(Likeness)
PER_REQUEST: tuple[Select, ...] = ("nearest", "mmr", "hybrid")

CANDIDATES = 50
"""So many of the nearest by either likeness are fused, and chosen among."""
MMR_LIKENESS = 0.7
"""λ of maximal marginal relevance: how much likeness to the request counts against unlikeness to the chosen."""
VOTERS = 10
"""Neighbours that each example votes for in vote-k."""
VOTE_DISCOUNT = 10.0
"""ρ of vote-k: each chosen neighbour of a voter divides its vote by it."""
MOST_CLUSTERED = 2000
"""Examples beyond that many, drawn at random, take no part in k-medoids and vote-k, which compare all pairs."""
MOST_ROUNDS = 50


class Neighbours:
    """Ranks a pool of texts by likeness to a query.

    Args:
        texts: the pool.
        embedder: makes their vectors.
        vectors: the pool's, [N, D], where they are there already.
    """

    def __init__(self, texts: Sequence[str], embedder: Embedder, vectors: Vectors | None = None) -> None:
        self.bm25 = BM25(list(texts))
        self.embedder = embedder
        self.vectors: Vectors = embedder.embed(list(texts)) if vectors is None else vectors

    def nearest(
        self, query: str, k: int, allowed: Callable[[int], bool], likeness: Likeness = "both"
    ) -> list[int]:
        """Indexes of the k most similar allowed texts, most similar first, ties by index."""
        return self._ranked(self.similarities(query), query, allowed, likeness)[:k]

    def diverse(
        self, query: str, k: int, allowed: Callable[[int], bool], likeness: Likeness = "both"
    ) -> list[int]:
        """K allowed texts that are near the query and not all alike, the first chosen first.

        Maximal marginal relevance (Carbonell & Goldstein 1998): each next one has the greatest
        λ·sim(query) - (1 - λ)·max sim(chosen), cosines both.
        """
        near_N = self.similarities(query)
        left, chosen = self._ranked(near_N, query, allowed, likeness), list[int]()
        while left and len(chosen) < k:
            alike = self.vectors[left] @ self.vectors[chosen].T if chosen else np.zeros((len(left), 1))
            worth = MMR_LIKENESS * near_N[left] - (1 - MMR_LIKENESS) * alike.max(axis=1)
            chosen.append(left.pop(int(worth.argmax())))
        return chosen

    def similarities(self, query: str) -> Vectors:
        """The cosine of the query with every text, [N]."""
        return self.vectors @ self.embedder.embed([query])[0]

    def _ranked(
        self, near_N: Vectors, query: str, allowed: Callable[[int], bool], likeness: Likeness
    ) -> list[int]:
        rankings: list[npt.NDArray[np.floating]] = []
        if likeness != "meaning":
            rankings.append(self.bm25.scores(query))
        if likeness != "words":
            rankings.append(near_N)
        firsts = [_first(scores, allowed) for scores in rankings]
        return firsts[0] if len(firsts) == 1 else [i for i, _ in reciprocal_rank_fusion(firsts)]


def _first(scores: npt.NDArray[np.floating], allowed: Callable[[int], bool]) -> list[int]:
    """The allowed ones of the highest scores, best first."""
    found = list[int]()
    for index in np.argsort(-scores, kind="stable").tolist():
        if allowed(index):
            found.append(index)
            if len(found) == CANDIDATES:
                break
    return found


def one_set(
    select: Select, examples: Sequence[Example], k: int, seed: int, embedder: Callable[[], Embedder]
) -> list[Example]:
    """`k` examples to show with every request, or all there are.

    Args:
        select: one that is not `PER_REQUEST`.
        examples: chosen among.
        k: how many.
        seed: of the draw; `fixed` has none.
        embedder: where likeness is needed.
    """
    if select in ("k_medoids", "vote_k"):
        drawn = list(examples)
        if len(drawn) > MOST_CLUSTERED:
            drawn = random.Random(seed).sample(drawn, MOST_CLUSTERED)
        vectors_ND = embedder().embed([e.prompt for e in drawn])
        choose = medoids if select == "k_medoids" else voted
        return [drawn[i] for i in choose(vectors_ND, k, seed)]
    draw = {"fixed": lambda: list(examples), "random": lambda: drawn_at_random(examples, seed)}
    return draw.get(select, lambda: balanced(examples, seed))()[:k]


def drawn_at_random(examples: Sequence[Example], seed: int) -> list[Example]:
    """All examples in an order that depends on the seed and on what they are, not on how they stood."""
    shuffled = sorted(examples, key=lambda e: e.id)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def balanced(examples: Sequence[Example], seed: int) -> list[Example]:
    """All examples, drawn round robin over completions: every start of the list is spread over them."""
    groups: dict[str, list[Example]] = {}
    for example in drawn_at_random(examples, seed):
        groups.setdefault(example.completion, []).append(example)
    queues, drawn = list(groups.values()), []
    while queues:
        drawn.extend(queue.pop(0) for queue in queues)
        queues = [queue for queue in queues if queue]
    return drawn


def medoids(vectors_ND: Vectors, k: int, seed: int) -> list[int]:
    """K members that stand for clusters of the others: k-medoids by alternation (Park & Jun 2009), on cosines.

    It starts from members far apart, each drawn in proportion to its squared distance from the drawn ones.
    """
    count = len(vectors_ND)
    if k >= count:
        return list(range(count))
    if k == 0:
        return []
    far_NN = np.clip(1 - vectors_ND @ vectors_ND.T, 0, 2).astype(np.float64)
    dice = np.random.default_rng(seed)
    chosen = [int(dice.integers(count))]
    while len(chosen) < k:
        chance_N = far_NN[:, chosen].min(axis=1) ** 2
        chance_N[chosen] = 0
        total = chance_N.sum()
        rest = [i for i in range(count) if i not in chosen]
        chosen.append(int(dice.choice(count, p=chance_N / total)) if total > 0 else rest[0])
    for _ in range(MOST_ROUNDS):
        nearest_N = far_NN[:, chosen].argmin(axis=1)
        before = list(chosen)
        for n in range(k):
            others = {*chosen[:n], *chosen[n + 1 :]}
            members = [i for i in np.flatnonzero(nearest_N == n).tolist() if i not in others]
            if members:
                chosen[n] = members[int(far_NN[np.ix_(members, members)].sum(axis=1).argmin())]
        if chosen == before:
            break
    return chosen


def voted(vectors_ND: Vectors, k: int, seed: int) -> list[int]:
    """K members that many others are near to, and not all the same others: vote-k (Su et al. 2022, eq. 1).

    Every member votes for its `VOTERS` nearest; one chosen after another has the most votes left, a voter's
    vote being divided by `VOTE_DISCOUNT` for each of its neighbours that is chosen.
    """
    del seed  # nothing is drawn
    count = len(vectors_ND)
    near_NN = vectors_ND @ vectors_ND.T
    np.fill_diagonal(near_NN, -np.inf)
    votes_NK = np.argsort(-near_NN, axis=1, kind="stable")[:, : min(VOTERS, count - 1)]
    for_NN = np.zeros((count, count), dtype=bool)
    np.put_along_axis(for_NN, votes_NK, values=True, axis=1)
    chosen: list[int] = []
    while len(chosen) < min(k, count):
        weight_N = VOTE_DISCOUNT ** -for_NN[:, chosen].sum(axis=1).astype(np.float64)
        weight_N[chosen] = 0
        received_N = weight_N @ for_NN
        received_N[chosen] = -1
        chosen.append(int(received_N.argmax()))
    return chosen


def by_task(examples: Sequence[Example]) -> Mapping[str | None, list[int]]:
    """Places of the examples by their own system message: examples of several tasks may stand together."""
    tasks: dict[str | None, list[int]] = {}
    for place, example in enumerate(examples):
        tasks.setdefault(example.instruction, []).append(place)
    return tasks


def nearly_equal(examples: Sequence[Example]) -> Mapping[int, Collection[int]]:
    """For each place whose example is nearly equal to others: all places of that group."""
    from tailorbird.data.duplicates import comparable_texts, near_groups

    groups = near_groups(comparable_texts(examples))
    return {place: frozenset(group) for group in groups for place in group}


def nearly_equal_to(text: str, examples: Sequence[Example]) -> Collection[int]:
    """Places of the few examples whose prompt nearly equals a text; none where a template makes most of them alike."""
    from tailorbird.data.duplicates import near_matches, normalise

    found = near_matches([normalise(e.prompt) for e in examples], [normalise(text)])
    return found if 2 * len(found) <= len(examples) else ()
