"""What every vector store must do; run it on your own.

Example:
    A test of a plug-in is one line: `check_vector_store(MyStore(folder, DIMENSIONS), reopen=lambda: MyStore(...))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tailorbird.errors import IntegrityError
from tailorbird.sources.vector_store import Allowed, Batch, Numbers, Vectors, VectorStore

DIMENSIONS = 32
"""Of the vectors that a store is checked with."""
TERMS = ('["read","acme",""]', '["read","acme","st\'aff"]', '["fact","kind","Übersicht \\"1\\""]')
"""As `tailorbird.sources.scopes` makes them, with what has to be quoted."""


def check_vector_store(
    store: VectorStore, reopen: Callable[[], VectorStore], *, count: int = 600, recall: float = 0.98
) -> None:
    """Check that a store nominates what is closest, of what is allowed, and forgets what is gone.

    Args:
        store: a new one, for vectors of `DIMENSIONS` dimensions, that holds nothing.
        reopen: gives the same store as another process would.
        count: how many vectors it is filled with.
        recall: share of the ten closest that it must find, on average.

    Raises:
        AssertionError: with what was asked and what is wrong with the answer.
    """
    assert isinstance(store, VectorStore), (
        f"{store!r} lacks grows, count, fill, change, search, remove or close"
    )
    _check_damage(store)
    numbers = np.arange(1, 2 * count, 2, dtype=np.int64)
    vectors = unit_vectors(len(numbers), 0)
    store.fill(batches(numbers, vectors), len(numbers))
    assert store.count() == len(numbers), f"it counts {store.count()}, filled with {len(numbers)}"
    _check_nearest(store, numbers, vectors, recall)
    _check_allowed(store, numbers, vectors, recall)
    store.close()
    again = reopen()
    assert again.count() == len(numbers), (
        f"opened again it counts {again.count()}, filled with {len(numbers)}"
    )
    _check_nearest(again, numbers, vectors, recall)
    if again.grows:
        _check_changes(again, numbers, vectors, recall)
    few = slice(0, 5)
    again.fill(batches(numbers[few], vectors[few]), 5)
    assert again.count() == 5, f"filled with 5 in the place of others it counts {again.count()}"
    assert set(again.search(vectors[0], 10).tolist()) == set(numbers[few].tolist())
    again.remove()
    again.close()
    removed = reopen()
    _check_damage(removed)
    removed.close()


def unit_vectors(count: int, seed: int) -> Vectors:
    """Unit vectors in loose heaps, as texts are."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((max(1, count // 20), DIMENSIONS))
    made = middles[random.integers(0, len(middles), count)] + random.standard_normal((count, DIMENSIONS)) / 2
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    # As the file gives them.
    return made.astype(np.float16).astype(np.float32)


def questions_near(vectors: Vectors) -> Vectors:
    """Twenty questions, each about as near to a passage as a real one is to that which answers it."""
    random = np.random.default_rng(2)
    asked = vectors[random.integers(0, len(vectors), 20)]
    noise = random.standard_normal(asked.shape)
    asked = asked + noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)


def terms_of(number: int) -> tuple[str, ...]:
    """Every passage has the first term, every third the second, every seventh the third."""
    return tuple(term for term, every in zip(TERMS, (1, 3, 7), strict=True) if number % every == 0)


def batches(
    numbers: Numbers,
    vectors: Vectors,
    size: int = 256,
    terms: Callable[[int], tuple[str, ...]] = terms_of,
) -> Iterator[Batch]:
    """In batches, as the index gives them."""
    for begin in range(0, len(numbers), size):
        some = numbers[begin : begin + size]
        yield Batch(some, vectors[begin : begin + size], [terms(n) for n in some.tolist()])


def _check_damage(store: VectorStore) -> None:
    try:
        found = store.count()
    except IntegrityError:
        return
    raise AssertionError(f"a store that was never filled counts {found}; expected an IntegrityError")


def _check_nearest(store: VectorStore, numbers: Numbers, vectors: Vectors, recall: float) -> None:
    assert len(store.search(vectors[0], 0)) == 0, "k = 0 finds something"
    everything = store.search(vectors[0], len(numbers) + 10)
    assert len(set(everything.tolist())) == len(everything), "a passage is found twice"
    assert set(everything.tolist()) <= set(numbers.tolist()), "it finds what it does not hold"
    _compare(store, numbers, vectors, None, recall)


def _check_allowed(store: VectorStore, numbers: Numbers, vectors: Vectors, recall: float) -> None:
    for clauses, every in (
        (((TERMS[1],),), 3),
        (((TERMS[2], "no such"),), 7),
        (((TERMS[1],), (TERMS[2],)), 21),
    ):
        allowed = allowing(numbers[numbers % every == 0], numbers, clauses)
        _compare(store, numbers, vectors, allowed, recall)
    nobody = allowing(numbers[:0], numbers, (("no such",),))
    assert len(store.search(vectors[0], 10, nobody)) == 0, "it finds what nobody may see"
    one = allowing(numbers[5:6], numbers, (), "a/pattern*")
    assert store.search(vectors[0], 10, one).tolist() == [numbers[5]], (
        "of one that is allowed it finds others"
    )


def allowing(
    some: Numbers, numbers: Numbers, clauses: tuple[tuple[str, ...], ...], pattern: str = ""
) -> Allowed:
    """What allows some of these numbers."""
    flags = np.zeros(int(numbers.max()) + 1, dtype=np.bool_)
    flags[some] = True
    return Allowed(flags, len(some), clauses, pattern)


def _check_changes(store: VectorStore, numbers: Numbers, vectors: Vectors, recall: float) -> None:
    gone, moved, new = numbers[:40], numbers[40:80], np.arange(2 * len(numbers) + 1, 2 * len(numbers) + 51)
    fresh = unit_vectors(len(moved) + len(new), 1)
    changed = np.concatenate([moved, new])
    store.change(gone, batches(changed, fresh))
    store.change(gone[:0], iter(()))
    left = np.concatenate([numbers[80:], changed])
    assert store.count() == len(left), f"after changes it counts {store.count()}, expected {len(left)}"
    assert not set(store.search(vectors[0], 100).tolist()) & set(gone.tolist()), "it finds what is gone"
    _compare(store, left, np.concatenate([vectors[80:], fresh]), None, recall)
    store.change(gone[:0], batches(moved, fresh[: len(moved)], terms=lambda _: (TERMS[2],)))
    readable = left[(left % 3 == 0) & ~np.isin(left, moved)]
    allowed = allowing(readable, left, ((TERMS[1],),))
    _compare(
        store, left, np.concatenate([vectors[80:], fresh]), allowed, recall
    )  # who may read them was changed


def _compare(
    store: VectorStore, numbers: Numbers, vectors: Vectors, allowed: Allowed | None, recall: float
) -> None:
    """Hold what it finds against a comparison of all; only similarities count where passages are equally close."""
    held = np.ones(len(numbers), np.bool_) if allowed is None else allowed.holds(numbers)
    position = {number: row for row, number in enumerate(numbers.tolist())}
    hits = asked = 0
    for question in questions_near(vectors):
        # As an index asks: for more than it takes, to compare them in full.
        found = store.search(question, 50, allowed)
        similarity = vectors @ question
        true = np.sort(similarity[held])[::-1][:10]
        there = min(50, int(held.sum()))
        assert len(found) == there, f"it finds {len(found)} of {there} that are there"
        rows = [position[number] for number in found.tolist()]
        assert held[rows].all(), f"it finds what may not be seen: {found[~held[rows]]}"
        scores = similarity[rows]
        assert (np.diff(scores) <= 0.02).all(), f"it doesn't give the best first: {scores}"
        hits += int((scores >= true[-1] - 1e-3).sum())
        asked += len(true)
    assert hits >= recall * asked, f"it finds {hits / asked:.3f} of the closest, expected {recall}"
