"""Which examples nearly equal one of a given test set: those must not be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tailorbird.data.duplicates import comparable_texts, near_matches
from tailorbird.data.keys import Keys, is_on_disk, keys_of
from tailorbird.records import Example

PIECE_CHARS = 8_000_000
"""Characters of examples that are compared with the test set at once, where they are on disk."""


def matches_in(examples: Sequence[Example], test: Sequence[Example]) -> dict[int, int]:
    """For each place in `examples` with an equal or nearly equal prompt in `test`: one such place there.

    Examples on disk are compared piece by piece, each piece with the whole of `test`. With a test on
    disk only equal prompts are found.
    """
    found: dict[int, int] = {}
    if is_on_disk(test):
        return _equal(keys_of(examples), keys_of(test))
    for start, piece in _pieces(examples):
        texts = comparable_texts([*piece, *test])
        matches = near_matches(texts[: len(piece)], texts[len(piece) :])
        found |= {start + i: j for i, j in matches.items()}
    return found


def _pieces(examples: Sequence[Example]) -> Iterator[tuple[int, Sequence[Example]]]:
    if not is_on_disk(examples):
        yield 0, examples
        return
    start, chars, piece = 0, 0, list[Example]()
    for i, example in enumerate(examples):
        piece.append(example)
        chars += sum(len(m.content) for m in example.messages)
        if chars > PIECE_CHARS:
            yield start, piece
            start, chars, piece = i + 1, 0, []
    if piece:
        yield start, piece


def _equal(mine: Keys, theirs: Keys) -> dict[int, int]:
    order = np.argsort(theirs.texts, kind="stable")
    known = theirs.texts[order]
    at = np.minimum(np.searchsorted(known, mine.texts), len(known) - 1)
    found = np.flatnonzero(known[at] == mine.texts)
    return dict(zip(found.tolist(), order[at[found]].tolist(), strict=True))
