"""What of every example decides where it belongs: hashes and numbers in arrays, some 60 bytes an example.

Splits and counts of repetitions are made from these alone, so that the examples may stay on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tailorbird.data.duplicates import Ints, normalise
from tailorbird.records import Example

Hashes = npt.NDArray[np.uint64]

MOST_NAMES = 10_000
"""Distinct completions that are told apart by name in a set on disk; labels are at most 300."""

_BLOCK = 8192


@dataclass(frozen=True)
class Keys:
    """One entry an example, in the order of the examples.

    `prompts` and `texts` tell whether two ask the same, with and without their system messages;
    `completions` and `answers` whether the same should come, the latter with what was rejected. All
    four are 64-bit hashes of normalised texts. `rows` is 0 or tells the row that an example came
    from. `labels` number the distinct completions, whose `names` are None if they are too many.
    `synthetic` marks those that a program wrote.
    """

    ids: npt.NDArray[np.bytes_]
    prompts: Hashes
    texts: Hashes
    completions: Hashes
    answers: Hashes
    rows: Hashes
    labels: Ints
    synthetic: npt.NDArray[np.bool_]
    names: tuple[str, ...] | None
    longest: int

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, places: Ints) -> Keys:
        """The keys of some of the examples, in the given order."""
        return Keys(
            self.ids[places],
            self.prompts[places],
            self.texts[places],
            self.completions[places],
            self.answers[places],
            self.rows[places],
            self.labels[places],
            self.synthetic[places],
            self.names,
            self.longest,
        )

    @cached_property
    def counts(self) -> dict[str, int] | None:
        """How often each completion comes; None if there are too many to be labels."""
        if self.names is None:
            return None
        numbers = np.bincount(self.labels, minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names, numbers, strict=True) if n}

    def id(self, place: int) -> str:
        """The id of the example at this place."""
        return self.ids[place].decode()


class KeysBuilder:
    """Collects the keys of examples one after another, and holds none of them."""

    def __init__(self, most_names: int | None = None) -> None:
        self._blocks: list[list[npt.NDArray[Any]]] = []
        self._block: list[tuple[bytes, int, int, int, int, int, int, bool]] = []
        self._numbers: dict[str, int] | None = {}
        self._most_names = most_names
        self._longest = 0

    def add(self, example: Example) -> None:
        """Takes the next example's keys."""
        said = [(m.role, normalise(m.content)) for m in example.messages]
        completion = normalise(example.completion)
        answer = hash_of(completion)
        self._block.append(
            (
                example.id.encode(),
                hash_of(*(part for turn in said for part in turn)),
                hash_of(*(text for role, text in said if role != "system")),
                answer,
                answer if example.rejected is None else hash_of(completion, normalise(example.rejected)),
                hash_of(example.file, str(example.line)) | 1 if example.line else 0,
                self._number(example.completion),
                example.synthetic,
            )
        )
        self._longest = max(self._longest, len(example.completion))
        if len(self._block) == _BLOCK:
            self._close_block()

    def _number(self, completion: str) -> int:
        if self._numbers is None:
            return 0
        number = self._numbers.setdefault(completion, len(self._numbers))
        if self._most_names is not None and number >= self._most_names:
            self._numbers = None
        return number

    def _close_block(self) -> None:
        ids, *hashes, labels, synthetic = zip(*self._block, strict=True)
        columns: list[npt.NDArray[Any]] = [np.array(column, dtype=np.uint64) for column in hashes]
        columns += [np.array(labels, dtype=np.int32), np.array(synthetic, dtype=np.bool_)]
        self._blocks.append([np.array(ids, dtype=np.bytes_), *columns])
        self._block = []

    def keys(self) -> Keys:
        """The keys of all that was added."""
        if self._block:
            self._close_block()
        blocks = self._blocks or [_NOTHING]
        names = None if self._numbers is None else tuple(self._numbers)
        columns: list[Any] = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
        return Keys(*columns, names=names, longest=self._longest)


_NOTHING: list[npt.NDArray[Any]] = [
    np.zeros(0, dtype="S16"),
    *(np.zeros(0, dtype=np.uint64) for _ in range(5)),
    np.zeros(0, dtype=np.int32),
    np.zeros(0, dtype=np.bool_),
]


def keys_of(examples: Sequence[Example]) -> Keys:
    """The keys of examples; those of a file on disk were collected when it was read."""
    known = getattr(examples, "keys", None)
    return known if isinstance(known, Keys) else collect_keys(examples)


def collect_keys(examples: Iterable[Example]) -> Keys:
    """The keys of examples, looking at each once."""
    builder = KeysBuilder()
    for example in examples:
        builder.add(example)
    return builder.keys()


def is_on_disk(examples: Sequence[Example]) -> bool:
    """Whether the examples stay in a file, because they are many, and are read one at a time."""
    return isinstance(getattr(examples, "keys", None), Keys)


def hash_of(*texts: str) -> int:
    """64 bits of blake2b over the texts."""
    whole = "\x00".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")


def numbered(*columns: npt.NDArray[Any]) -> Ints:
    """A number for each entry, equal where all columns are; numbers ascend with the first appearance."""
    order = np.lexsort(columns[::-1])
    new = np.ones(len(order), dtype=bool)
    if len(order):
        new[1:] = np.logical_or.reduce([c[order][1:] != c[order][:-1] for c in columns])
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(order)))
    # lexsort is stable: the first of each run comes first among its equals
    first = order[starts]
    rank = np.empty(len(starts), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(starts))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.repeat(rank, sizes)
    return number


def groups(number: Ints) -> list[Ints]:
    """Places of equal numbers, two or more each, ascending, in the order of their first member."""
    sizes = np.bincount(number)
    shared = np.flatnonzero(sizes[number] > 1)
    order = shared[np.argsort(number[shared], kind="stable")]
    starts = np.flatnonzero(np.diff(number[order])) + 1
    return sorted(np.split(order, starts), key=lambda part: int(part[0])) if len(order) else []
