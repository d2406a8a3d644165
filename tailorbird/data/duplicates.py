"""Texts that say the same: equal once normalised, or sharing most of their character shingles.

Two texts are near-duplicates if the Jaccard similarity of their sets of 5-character shingles is at
least 0.8. Candidates come from a prefix filter (Chaudhuri, Ganti and Kaushik, "A Primitive Operator
for Similarity Joins in Data Cleaning", ICDE 2006): order each set from rare to common; two sets that
similar must share an element among the first |x| - ⌈0.8 |x|⌉ + 1. Fixed-width bitmaps then reject
most candidates without looking at the sets (Sandes, Teodoro and Melo, "Bitmap Filter", 2020). Both
filters lose nothing, so the result is exact, with one bound stated at `MAX_NEIGHBOURS`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tailorbird.records import Example

THRESHOLD = 0.8
"""Jaccard similarity from which two texts count as near-duplicates."""

SHINGLE_CHARS = 5

MAX_NEIGHBOURS = 500
"""A rare shingle that more texts than this share is followed only to this many alphabetical neighbours."""

_TEMPLATE_MIN_TEXTS = 20
_BITMAP_BITS = 512  # selective for texts of up to a few hundred characters
_BUCKETS = 1 << 20
_CHUNK = 2048

Ints = npt.NDArray[np.int64]
Shingles = npt.NDArray[np.uint32]
Keep = Callable[[Ints, Ints], npt.NDArray[np.bool_]]

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_QUOTES = str.maketrans("‘’‚‛“”„‟´`", "''''\"\"\"\"''")


def normalise(text: str) -> str:
    """The text without what does not matter: case, spacing, width, invisible characters, final points.

    Symbols inside stay, so that `2+2` and `2-2` differ.
    """
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold().translate(_QUOTES)
    words = " ".join(plain.split())
    return words.rstrip(" .?!,;:…") or words


def prompt_key(example: Example) -> tuple[tuple[str, str], ...]:
    """What two examples share if they ask the same: role and normalised text of every message."""
    return tuple((m.role, normalise(m.content)) for m in example.messages)


def comparable_texts(examples: Sequence[Example]) -> list[str]:
    """For each example the text by which near-duplicates are found.

    System messages are left out, and so is the beginning and the ending that all texts share (a
    prompt template), for otherwise a long template would make all examples near-duplicates.
    """
    texts = ["\n".join(normalise(m.content) for m in e.messages if m.role != "system") for e in examples]
    distinct = set(texts)
    if len(distinct) < _TEMPLATE_MIN_TEXTS:
        return texts
    before, after = shared_affixes(distinct)
    return [text[len(before) : len(text) - len(after)] for text in texts]


def shared_affixes(texts: Iterable[str]) -> tuple[str, str]:
    """The beginning and the ending that all texts have in common, of whole words, never overlapping."""
    shared = SharedParts()
    for text in texts:
        shared.add(text)
    return shared.affixes()


class SharedParts:
    """What texts have in common at their ends, found one text after another.

    What the first and the last text in alphabetical order share, all share.
    """

    MOST_COUNTED = 20

    def __init__(self) -> None:
        self._bounds: dict[str, tuple[str, str]] = {}
        self._shortest = 0
        self._distinct: set[str] = set()

    def add(self, text: str) -> None:
        """Looks at one more text."""
        self._shortest = min(self._shortest, len(text)) if self._bounds else len(text)
        for name, seen in (("start", text), ("end", text[::-1]), ("bare end", text.rstrip()[::-1])):
            low, high = self._bounds.get(name, (seen, seen))
            self._bounds[name] = min(low, seen), max(high, seen)
        if len(self._distinct) < self.MOST_COUNTED:
            self._distinct.add(text)

    @property
    def num_distinct(self) -> int:
        """How many different texts there were; counted up to `MOST_COUNTED`."""
        return len(self._distinct)

    def affixes(self) -> tuple[str, str]:
        """The beginning and the ending that all share, of whole words, never overlapping."""
        before = common_prefix(*self._bounds["start"])
        before = before[: before.rfind(" ") + 1]
        after = common_prefix(*self._bounds["end"])[::-1]
        after = after[after.find(" ") :] if " " in after else ""
        return before, after[len(after) - min(len(after), self._shortest - len(before)) :]

    def separator(self) -> str:
        """The shared ending from its first sign on, such as ` ->` or ` END`; no mere common letters."""
        common = common_prefix(*self._bounds["bare end"])[::-1]
        start = next((i for i, c in enumerate(common) if not c.isalnum()), len(common))
        return common[start:].strip()


def common_prefix(left: str, right: str) -> str:
    """The longest beginning of both."""
    differ = (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return left[: next(differ, min(len(left), len(right)))]


def shingles(text: str) -> Shingles:
    """Sorted hashes of the distinct 5-character pieces; a shorter text is one piece."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < SHINGLE_CHARS:
        codes = np.concatenate([codes, np.zeros(SHINGLE_CHARS - len(codes), dtype=np.uint64)])
    num = len(codes) - SHINGLE_CHARS + 1
    mixed = np.zeros(num, dtype=np.uint64)
    for i in range(SHINGLE_CHARS):
        mixed = (mixed + codes[i : i + num]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    hashes = np.sort((mixed >> np.uint64(32)).astype(np.uint32))
    return hashes[np.concatenate([[True], hashes[1:] != hashes[:-1]])]  # np.unique takes four times as long


def similarity(left: str, right: str) -> float:
    """Jaccard similarity of the shingle sets of two normalised texts, in [0, 1]."""
    return _jaccard(shingles(left), shingles(right))


def near_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> list[tuple[int, ...]]:
    """Positions of texts that are near-duplicates of one another, directly or through others.

    Equal texts are in one group too. Groups of two or more, each ascending, in order of their first
    member; the grouping does not depend on the order of the texts.
    """
    distinct = sorted(set(texts))
    group_of: Ints = np.arange(len(distinct))

    def apart(left: Ints, right: Ints) -> npt.NDArray[np.bool_]:
        return group_of[left] != group_of[right]

    for left, right in _similar_pairs(distinct, threshold, apart):
        old, new = sorted((group_of[left], group_of[right]), reverse=True)
        group_of[group_of == old] = new
    number = {text: int(group_of[i]) for i, text in enumerate(distinct)}
    members: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        members.setdefault(number[text], []).append(i)
    return [tuple(group) for group in members.values() if len(group) > 1]


def near_matches(texts: Sequence[str], others: Sequence[str], threshold: float = THRESHOLD) -> dict[int, int]:
    """For each position in `texts` with an equal text or near-duplicate in `others`: one such position."""
    place = {text: i for i, text in reversed(list(enumerate(others)))}
    found = {i: place[text] for i, text in enumerate(texts) if text in place}
    distinct = sorted(set(texts) | set(others))
    mine, theirs = set(texts) - set(others), set(others)
    is_mine = np.array([text in mine for text in distinct], dtype=bool)
    is_theirs = np.array([text in theirs for text in distinct], dtype=bool)
    match: dict[str, int] = {}

    def across(left: Ints, right: Ints) -> npt.NDArray[np.bool_]:
        return (is_mine[left] & is_theirs[right]) | (is_mine[right] & is_theirs[left])

    for left, right in _similar_pairs(distinct, threshold, across):
        own, other = (left, right) if is_mine[left] else (right, left)
        is_mine[own] = False  # one match is enough
        match[distinct[own]] = place[distinct[other]]
    return found | {i: match[text] for i, text in enumerate(texts) if text in match}


def _jaccard(left: Shingles, right: Shingles) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def _similar_pairs(texts: Sequence[str], threshold: float, keep: Keep) -> Iterator[tuple[int, int]]:
    """Pairs of positions at or above the threshold; `keep` may rule out more as pairs are found."""
    sets = [shingles(text) for text in texts]
    sizes = np.array([len(s) for s in sets], dtype=np.int64)
    bitmaps = _bitmaps(sets)
    for left, right in _candidates(sets, threshold):
        smaller, larger = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        possible = (smaller >= threshold * larger) & keep(left, right)
        left, right = left[possible], right[possible]  # noqa: PLW2901
        differing = np.bitwise_count(bitmaps[left] ^ bitmaps[right]).sum(axis=1)
        allowed = (1 - threshold) / (1 + threshold) * (sizes[left] + sizes[right]) + 1e-9
        possible = differing <= allowed
        for i, j in np.stack([left[possible], right[possible]], axis=1):
            if keep(i, j) and _jaccard(sets[i], sets[j]) >= threshold:
                yield int(i), int(j)


def _bitmaps(sets: Sequence[Shingles]) -> npt.NDArray[np.uint64]:
    """One bit set per shingle: two sets differ in at least as many elements as their bitmaps in bits."""
    bitmaps = np.zeros((len(sets), _BITMAP_BITS // 64), dtype=np.uint64)
    for start in range(0, len(sets), _CHUNK):
        chunk = sets[start : start + _CHUNK]
        bits = np.zeros((len(chunk), _BITMAP_BITS), dtype=bool)
        bits[
            np.repeat(np.arange(len(chunk)), [len(s) for s in chunk]), np.concatenate(chunk) % _BITMAP_BITS
        ] = True
        bitmaps[start : start + len(chunk)] = np.packbits(bits, axis=1).view(np.uint64)
    return bitmaps


def _candidates(sets: Sequence[Shingles], threshold: float) -> Iterator[tuple[Ints, Ints]]:
    """Batches of pairs (left < right) that share a shingle among the rarest of each."""
    frequency: Ints = np.zeros(_BUCKETS, dtype=np.int64)
    for start in range(0, len(sets), _CHUNK):
        buckets = np.concatenate(sets[start : start + _CHUNK]) % _BUCKETS
        frequency += np.bincount(buckets, minlength=_BUCKETS)
    prefixes = [_rarest(hashes, frequency, threshold) for hashes in sets]
    if not prefixes:
        return
    keys = np.concatenate(prefixes)
    owners: Ints = np.repeat(np.arange(len(sets)), [len(p) for p in prefixes])
    order = np.argsort(keys, kind="stable")  # stable: owners ascend within a key, alphabetically
    keys, owners = keys[order], owners[order]
    at: Ints = np.arange(len(keys))
    for distance in range(1, MAX_NEIGHBOURS + 1):
        at = at[at + distance < len(keys)]
        at = at[keys[at] == keys[at + distance]]
        if not len(at):
            return
        yield owners[at], owners[at + distance]  # a pair may come again; to find it twice does no harm


def _rarest(hashes: Shingles, frequency: Ints, threshold: float) -> Shingles:
    count = len(hashes) - int(np.ceil(threshold * len(hashes) - 1e-9)) + 1
    order = np.argsort(frequency[hashes % _BUCKETS], kind="stable")  # hashes are sorted: ties by hash
    return hashes[order[:count]]
