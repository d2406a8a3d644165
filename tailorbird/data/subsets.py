"""Parts of the training examples, each inside the next larger one: what fewer labels would have been."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tailorbird.data.duplicates import Ints
from tailorbird.data.keys import is_on_disk, keys_of
from tailorbird.data.stored_examples import ExampleView
from tailorbird.records import Example, content_hash


def nested_subset(
    examples: Sequence[Example], share: float, *, seed: int = 0, draw: int = 0
) -> Sequence[Example]:
    """A share of the examples, each completion in proportion, in the order in which they stand.

    Of one draw every smaller share lies inside every larger one. Which examples are drawn depends on what
    they are, the seed and the draw, and not on the order of the rows. Those of a large file stay on disk.

    Args:
        examples: all of them; labels are told apart by their completions.
        share: above 0 and at most 1; 1 gives all.
        seed: of all draws.
        draw: which one, from 0.

    Returns:
        round(share · number of examples) of them, and at least one where there is any.

    Raises:
        ValueError: the share is none.

    >>> rows = [Example.pair(f"message {n}", "ab"[n % 2]) for n in range(8)]
    >>> half = nested_subset(rows, 0.5)
    >>> sorted(e.completion for e in half), set(nested_subset(rows, 0.25)) <= set(half)
    (['a', 'a', 'b', 'b'], True)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected above 0 and at most 1.")
    count = min(len(examples), max(1, math.floor(share * len(examples) + 0.5)))
    places = np.sort(_spread_order(examples, seed, draw)[:count])
    if is_on_disk(examples):
        return ExampleView(examples, places)
    return tuple(examples[int(place)] for place in places)


def _spread_order(examples: Sequence[Example], seed: int, draw: int) -> Ints:
    """Places in an order whose every beginning holds each completion in proportion."""
    keys = keys_of(examples)
    hashes = [content_hash([keys.id(place), "subset", seed, draw]) for place in range(len(keys))]
    shuffled = np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=np.int64)
    # Free answers hardly repeat: to spread them would put the repeated ones last.
    labelled = keys.names is not None and 2 * len(keys.names) <= len(keys)
    strata = keys.labels[shuffled] if labelled else np.zeros(len(keys), dtype=np.int64)
    sizes = np.bincount(strata, minlength=1)
    rank = np.empty(len(keys), dtype=np.int64)
    for stratum in np.flatnonzero(sizes):
        rank[strata == stratum] = np.arange(sizes[stratum])
    return shuffled[np.argsort((rank + 0.5) / sizes[strata], kind="stable")]
