"""Frozen splits: the same examples always fall into the same parts, and none leaks into another.

- *Frozen.* Examples are ordered by a hash of their content and the seed; the order of the rows in
  the file plays no part.
- *Stratified.* In a classification every label is shared out by itself, and keeps at least one
  training example where it has any to keep.
- *Deduplicated.* Of exact duplicates one is kept. Near-duplicates stay together in one part.
- *Conflicts.* Examples with the same prompt and different completions stay, but only in train: a
  test that contradicts itself measures nothing. Their near-duplicates go with them.
- *Real questions measure.* Examples that a program wrote stay in train, with their near-duplicates; of
  equal ones the real one is kept.
- *Whole rows.* The examples that one row of a file gave, a conversation's, stay together in one part.

Examples are handled by their places and `Keys`, in arrays; those of a large file stay on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tailorbird.data.duplicates import Ints, comparable_texts, near_groups
from tailorbird.data.keys import Keys, groups, is_on_disk, keys_of, numbered
from tailorbird.data.leakage import matches_in
from tailorbird.data.problems import plural
from tailorbird.data.removed import Reason, Removal, Removed, RemovedExamples
from tailorbird.data.shares import Units, free_units, take
from tailorbird.data.stored_examples import ExampleView
from tailorbird.data.task import Data, Task, is_classification
from tailorbird.errors import DataError
from tailorbird.records import Example, content_hash

MIN_EXAMPLES = 3
"""One for each part is the least that can be split."""


@dataclass(frozen=True)
class Splits:
    """Three parts that share no example, and what was done to make it so.

    `near_groups` are groups of near-duplicates (ids) that were kept together in one part;
    `conflicts` are groups of examples (ids) with one prompt and different completions, all in train.
    `not_searched` says which near-duplicates were not looked for, the set being too large. `synthetic`
    counts the examples that a program wrote, all in train.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    removed: Sequence[Removed] = ()
    near_groups: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()
    seed: int = 0
    not_searched: tuple[str, ...] = ()
    synthetic: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is in each part, whatever the order."""
        digest = hashlib.blake2b(digest_size=32)
        for number, part in enumerate((self.train, self.dev, self.test)):
            digest.update(b"],[" if number else b"[[")
            for i, name in enumerate(np.sort(keys_of(part).ids)):
                text = json.dumps(name.decode(), ensure_ascii=False)
                digest.update(f",{text}".encode() if i else text.encode())
        digest.update(b"]]")
        return digest.hexdigest()[:16]

    @cached_property
    def num_removed(self) -> Counter[Reason]:
        """How many examples were removed for each reason."""
        if isinstance(self.removed, RemovedExamples):
            return self.removed.counts
        return Counter(r.reason for r in self.removed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done beside sharing out, one sentence each; empty if nothing was."""
        counts = self.num_removed
        sentences: dict[Reason, str] = {
            "duplicate": "{} of another row left out.",
            "in_test": "{} of the test file left out of training.",
            "near_test": "{} of the test file's examples left out of training.",
            "over_limit": "{} of the test file not used, to stay within the limit.",
        }
        nouns: dict[Reason, str] = {
            "duplicate": "exact duplicate",
            "in_test": "example",
            "near_test": "near-duplicate",
            "over_limit": "example",
        }
        notes = [sentences[r].format(plural(counts[r], nouns[r])) for r in sentences if counts[r]]
        if self.near_groups:
            notes.append(
                f"{plural(len(self.near_groups), 'group')} of near-duplicates kept together in one part each."
            )
        if self.conflicts:
            prompts = plural(len(self.conflicts), "prompt")
            notes.append(f"{prompts} with contradicting completions kept in train only.")
        if self.synthetic:
            notes.append(f"{plural(self.synthetic, 'synthetic example')} kept in train only.")
        return (*notes, *self.not_searched)

    def data(self, task: Task, documents: Path | None = None) -> Data:
        """The parts as what techniques learn from."""
        return Data(task, self.train, self.dev, self.test, documents)


def split(
    examples: Sequence[Example],
    *,
    seed: int = 0,
    dev: float = 0.2,
    test: float = 0.2,
    test_examples: Sequence[Example] | None = None,
    limit_dev: int | None = None,
    limit_test: int | None = None,
) -> Splits:
    """Shares the examples out into train, dev and test.

    Args:
        examples: What there is, in any order.
        seed: Another seed, another split.
        dev: Share of the examples that chooses; 0 for none.
        test: Share of the examples that confirms; 0 for none. Not used if `test_examples` are given.
        test_examples: A test set of its own. It stays whole but for repeated rows; examples equal
            or nearly equal to one of its own are removed from train and dev.
        limit_dev: At most so many in dev, chosen by stratum; the rest returns to train.
        limit_test: At most so many in test, likewise; of given test examples the rest is not used.

    Returns:
        The parts, each in the frozen order. At least one example in every part that was asked for.

    Raises:
        DataError: The shares make no sense, or too few distinct examples for all the parts.
    """
    _check_settings(dev, test, limit_dev, limit_test)
    keys = keys_of(examples)
    kept, twins, repeated = _without_duplicates(examples, keys)
    removed = [repeated]
    given: Sequence[Example] | None = None
    if test_examples is not None:
        given, out = _given_test(test_examples, seed, limit_test)
        kept, leaking = _without_test(examples, keys, kept, test_examples)
        removed += [*out, *leaking]
        test = 0.0
    kept = kept[np.argsort(_order(keys, kept, seed), kind="stable")]
    units, near, conflicts = _units(examples, keys, kept, twins)
    parts = 1 + (dev > 0) + (test > 0)
    real = int((~keys.synthetic[kept]).sum())
    if parts > 1 and len(kept) and not real:
        raise DataError(
            f"All {plural(len(kept), 'example')} are synthetic, and those never measure anything. Add real ones for "
            "dev and test, or give a test file and no dev share."
        )
    if len(units) < parts:
        raise _too_few(len(examples), len(kept), len(units), parts, given=given is not None)
    everything = np.arange(len(units))
    train_units, test_units = _part(units, everything, test, limit_test, name="test", total=real)
    train_units, dev_units = _part(units, train_units, dev, limit_dev, name="dev", total=real)
    return Splits(
        _chosen(examples, kept[units.members(train_units)]),
        _chosen(examples, kept[units.members(dev_units)]),
        _chosen(examples, kept[units.members(test_units)]) if given is None else given,
        _listed(RemovedExamples(tuple(removed)), examples),
        _ids(keys.at(kept), near),
        _ids(keys.at(kept), conflicts),
        seed,
        not_searched=tuple(_not_searched(examples, test_examples)),
        synthetic=len(kept) - real,
    )


def _listed(removed: RemovedExamples, examples: Sequence[Example]) -> Sequence[Removed]:
    return removed if is_on_disk(examples) else tuple(removed)


def _not_searched(examples: Sequence[Example], test: Sequence[Example] | None) -> Iterator[str]:
    if is_on_disk(examples):
        yield (
            "Near-duplicates within the file were not looked for, because it is large: only equal prompts "
            "are kept together, so an example of dev or test may nearly equal one of train."
        )
    if test is not None and is_on_disk(test):
        yield (
            "Near-duplicates of the test file were not looked for, because it is large: only examples with "
            "a prompt of the test file are left out of training."
        )


def _check_settings(dev: float, test: float, limit_dev: int | None, limit_test: int | None) -> None:
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise DataError(
            f"dev={dev} and test={test} are no shares; expected both in [0, 1) and their sum below 1."
        )
    for name, limit in (("limit_dev", limit_dev), ("limit_test", limit_test)):
        if limit is not None and limit < 1:
            raise DataError(f"{name}={limit} leaves nothing; expected at least 1, or None for no limit.")


def _too_few(num_rows: int, num_kept: int, num_units: int, parts: int, *, given: bool) -> DataError:
    if not num_rows:
        return DataError("There are no examples to split. Add at least 3; 50 or more give a useful verdict.")
    what = f"{plural(num_units, 'example')} cannot be split into {parts} parts: each needs at least one"
    if num_units < num_kept:
        what += " group of near-duplicates"
    lost = num_rows - num_units
    if lost:
        other = "another or the test file" if given else "another"
        what += f" ({plural(num_rows, 'row')}, of which {lost} repeat {other})"
    return DataError(
        f"{what}. Add at least {parts - num_units} more that differ; 50 or more give a useful verdict."
    )


# --- what is kept


def _chosen(examples: Sequence[Example], places: Ints) -> Sequence[Example]:
    """The examples at these places: on disk if they are, else a tuple."""
    return ExampleView(examples, places) if is_on_disk(examples) else tuple(examples[int(i)] for i in places)


def _order(keys: Keys, places: Ints, seed: int) -> npt.NDArray[np.uint64]:
    """The frozen order: a hash of each example's id and the seed."""
    hashes = (content_hash([keys.id(int(i)), seed]) for i in places)
    return np.fromiter((int(text, 16) for text in hashes), dtype=np.uint64, count=len(places))


def _without_duplicates(examples: Sequence[Example], keys: Keys) -> tuple[Ints, Ints, Removal]:
    """One of each set of equal examples: the one whose id comes first, so that row order plays no part.

    Also, for every example, the place of the one that was kept for it.
    """
    ranked = _by_id(examples, keys)
    same = numbered(keys.prompts[ranked], keys.answers[ranked])
    _, first = np.unique(same, return_index=True)
    twins = np.empty_like(ranked)
    twins[ranked] = ranked[first[same]]
    repeats = ranked[np.setdiff1d(np.arange(len(ranked)), first)]
    return ranked[first], twins, Removal(examples, repeats, "duplicate", keys.ids[twins[repeats]])


def _by_id(examples: Sequence[Example], keys: Keys) -> Ints:
    """Places in the order of the ids, real ones first; of equal ids the document decides."""
    ranked = np.lexsort((keys.ids, keys.synthetic))
    number = numbered(keys.ids[ranked])
    for group in groups(number):
        ranked[group] = sorted(
            ranked[group], key=lambda i: (bool(keys.synthetic[i]), examples[int(i)].document or "")
        )
    return ranked


def _given_test(
    examples: Sequence[Example], seed: int, limit: int | None
) -> tuple[Sequence[Example], list[Removal]]:
    """The given test set in frozen order, without repeated rows, cut to the limit by stratum."""
    keys = keys_of(examples)
    if not len(keys):
        raise DataError("The test file has no examples; expected at least one.")
    if keys.synthetic.any():
        raise DataError(
            f"The test file has {plural(int(keys.synthetic.sum()), 'synthetic example')}, and those never measure "
            "anything. Take them out, and keep them among the examples."
        )
    _, first, same = np.unique(keys.ids, return_index=True, return_inverse=True)
    repeats = np.setdiff1d(np.arange(len(keys)), first)
    order = np.argsort(_order(keys, first, seed), kind="stable")
    units = Units.singles(_strata(keys.at(first[order])))
    chosen = everything = np.arange(len(units))
    if limit is not None:
        # in the order in which such files have always been cut: by the last row of each example, backwards
        last = np.zeros(len(first), dtype=np.int64)
        last[same] = np.arange(len(keys))
        chosen = take(units, np.argsort(-last[order], kind="stable"), limit)
    beyond = np.setdiff1d(everything, chosen)
    removed = [
        Removal(examples, repeats, "duplicate", keys.ids[repeats]),
        Removal(examples, first[order][beyond], "over_limit"),
    ]
    return _chosen(examples, first[order][chosen]), removed


def _without_test(
    examples: Sequence[Example], keys: Keys, kept: Ints, test: Sequence[Example]
) -> tuple[Ints, list[Removal]]:
    """The examples that are no near-duplicate of any given test example, limited or not."""
    found = matches_in(_chosen(examples, kept), test)
    mine = np.array(sorted(found), dtype=np.int64)
    theirs = np.array([found[i] for i in mine.tolist()], dtype=np.int64)
    others = keys_of(test)
    equal = keys.prompts[kept[mine]] == others.prompts[theirs]
    removed = [
        Removal(examples, kept[mine[equal]], "in_test", others.ids[theirs[equal]]),
        Removal(examples, kept[mine[~equal]], "near_test", others.ids[theirs[~equal]]),
    ]
    return np.delete(kept, mine), removed


# --- units


def _units(
    examples: Sequence[Example], keys: Keys, kept: Ints, twins: Ints
) -> tuple[Units, list[Ints], list[Ints]]:
    """What must stay together, the groups of near-duplicates and the conflicts, as places in `kept`."""
    mine = keys.at(kept)
    conflicts = conflict_groups(mine)
    if is_on_disk(examples):
        near = groups(numbered(mine.texts))
    else:
        near = [np.array(g) for g in near_groups(comparable_texts(_chosen(examples, kept)))]
    train_only = np.zeros(len(kept), dtype=bool)
    train_only |= mine.synthetic
    for group in conflicts:
        train_only[group] = True
    together = joined(len(kept), [*near, *_rows(keys, kept, twins)])
    return Units.joined(together, _strata(mine), train_only), near, conflicts


def _rows(keys: Keys, kept: Ints, twins: Ints) -> Iterator[Ints]:
    """Examples of one row, each in the form in which it was kept, as places in `kept`."""
    place = np.full(len(keys), -1)
    place[kept] = np.arange(len(kept))
    named = np.flatnonzero(keys.rows)
    for group in groups(numbered(keys.rows[named])):
        members = place[twins[named[group]]]
        yield members[members >= 0]


def joined(count: int, together: Sequence[Ints]) -> Ints:
    """For each of `count` places the first place that it must stay with, directly or through others."""
    first = np.arange(count)
    for group in together:
        roots = sorted({_root(first, int(i)) for i in group})
        first[roots] = roots[:1]
    for i in range(count):  # ascending: the first of each is settled before the others
        first[i] = first[first[i]]
    return first


def _root(first: Ints, place: int) -> int:
    while first[place] != place:
        place = int(first[place])
    return place


def _strata(keys: Keys) -> Ints:
    """The number of each example's label, in alphabetical order; all the same where there are none."""
    if keys.names is None or keys.counts is None or not is_classification(keys.counts):
        return np.zeros(len(keys), dtype=np.int64)
    place = {name: i for i, name in enumerate(sorted(keys.names))}
    return np.array([place[name] for name in keys.names])[keys.labels]


def conflict_groups(keys: Keys) -> list[Ints]:
    """Places of examples whose prompts are equal (normalised) and whose completions are not."""
    return [
        group for group in groups(numbered(keys.prompts)) if len(set(keys.completions[group].tolist())) > 1
    ]


def _ids(keys: Keys, found: list[Ints]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(keys.id(int(i)) for i in group) for group in found)


# --- sharing out


def _part(
    units: Units, left: Ints, share: float, limit: int | None, *, name: str, total: int
) -> tuple[Ints, Ints]:
    """What is left and what was taken: `share` of `total` examples, no more than `limit`."""
    nothing = left[:0]
    if share == 0:
        return left, nothing
    free = free_units(units, left)
    chosen = take(units, free, max(1, round(share * total)))
    chosen = chosen if len(chosen) else units.smallest(free)
    if not len(chosen):
        raise DataError(
            f"No example is left for {name}: all prompts contradict or nearly repeat one another. "
            "Give each prompt one completion, or add examples that differ."
        )
    if limit is not None and units.sizes[chosen].sum() > limit:
        fewer = take(units, chosen, limit)
        chosen = fewer if len(fewer) else units.smallest(chosen)
    return np.setdiff1d(left, chosen), chosen
