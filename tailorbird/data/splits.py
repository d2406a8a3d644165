"""Frozen splits: the same examples always fall into the same parts, and none leaks into another.

- *Frozen.* Examples are ordered by a hash of their content and the seed; the order of the rows in
  the file plays no part.
- *Stratified.* In a classification every label is shared out by itself, and keeps at least one
  training example where it has any to keep.
- *Deduplicated.* Of exact duplicates one is kept. Near-duplicates stay together in one part.
- *Conflicts.* Examples with the same prompt and different completions stay, but only in train: a
  test that contradicts itself measures nothing. Their near-duplicates go with them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from tailorbird.data.duplicates import comparable_texts, near_groups, near_matches, normalise, prompt_key
from tailorbird.data.problems import plural
from tailorbird.data.task import Data, Task, infer_task
from tailorbird.errors import DataError
from tailorbird.records import Example, content_hash

MIN_EXAMPLES = 3
"""One for each part is the least that can be split."""

Reason = Literal["duplicate", "in_test", "near_test", "over_limit"]


@dataclass(frozen=True, slots=True)
class Removed:
    """An example that is in no part, and why.

    `duplicate`: equal to the kept example `of`; `in_test` and `near_test`: equal or nearly equal to
    the given test example `of`; `over_limit`: a given test example beyond `limit_test`.
    """

    example: Example
    reason: Reason
    of: str = ""


@dataclass(frozen=True)
class Splits:
    """Three parts that share no example, and what was done to make it so.

    `near_groups` are groups of near-duplicates (ids) that were kept together in one part;
    `conflicts` are groups of examples (ids) with one prompt and different completions, all in train.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    removed: tuple[Removed, ...] = ()
    near_groups: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()
    seed: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is in each part, whatever the order."""
        return content_hash([sorted(e.id for e in part) for part in (self.train, self.dev, self.test)])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done beside sharing out, one sentence each; empty if nothing was."""
        counts = Counter(r.reason for r in self.removed)
        sentences = {
            "duplicate": "{} of another row left out.",
            "in_test": "{} of the test file left out of training.",
            "near_test": "{} of the test file's examples left out of training.",
            "over_limit": "{} of the test file not used, to stay within the limit.",
        }
        nouns = {
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
        return tuple(notes)

    def data(self, task: Task, documents: Path | None = None) -> Data:
        """The parts as what techniques learn from."""
        return Data(task, self.train, self.dev, self.test, documents)


@dataclass(frozen=True)
class _Unit:
    """Examples that must stay together: one, or a group of near-duplicates."""

    examples: tuple[Example, ...]
    key: str
    stratum: str
    train_only: bool

    @property
    def size(self) -> int:
        return len(self.examples)


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
    kept, removed = _without_duplicates(examples)
    given: list[Example] | None = None
    if test_examples is not None:
        given, out = _given_test(test_examples, seed, limit_test)
        kept, leaking = _without_test(kept, test_examples)
        removed += out + leaking
        test = 0.0
    units, groups, conflicts = _units(kept, seed)
    parts = 1 + (dev > 0) + (test > 0)
    if len(units) < parts:
        raise _too_few(len(examples), kept, units, parts, given=given is not None)
    train_units, test_units = _part(units, test, limit_test, "test")
    train_units, dev_units = _part(train_units, dev, limit_dev, "dev", total=len(kept))
    return Splits(
        _flat(train_units, seed),
        _flat(dev_units, seed),
        _flat(test_units, seed) if given is None else tuple(given),
        tuple(removed),
        groups,
        conflicts,
        seed,
    )


def _check_settings(dev: float, test: float, limit_dev: int | None, limit_test: int | None) -> None:
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise DataError(
            f"dev={dev} and test={test} are no shares; expected both in [0, 1) and their sum below 1."
        )
    for name, limit in (("limit_dev", limit_dev), ("limit_test", limit_test)):
        if limit is not None and limit < 1:
            raise DataError(f"{name}={limit} leaves nothing; expected at least 1, or None for no limit.")


def _too_few(
    given_rows: int, kept: list[Example], units: list[_Unit], parts: int, *, given: bool
) -> DataError:
    if not given_rows:
        return DataError("There are no examples to split. Add at least 3; 50 or more give a useful verdict.")
    what = f"{plural(len(units), 'example')} cannot be split into {parts} parts: each needs at least one"
    if len(units) < len(kept):
        what += " group of near-duplicates"
    lost = given_rows - len(units)
    if lost:
        other = "another or the test file" if given else "another"
        what += f" ({plural(given_rows, 'row')}, of which {lost} repeat {other})"
    return DataError(
        f"{what}. Add at least {parts - len(units)} more that differ; 50 or more give a useful verdict."
    )


# --- what is kept


def _without_duplicates(examples: Sequence[Example]) -> tuple[list[Example], list[Removed]]:
    """One of each set of equal examples: the one whose id comes first, so that row order plays no part."""
    best: dict[object, Example] = {}
    removed: list[Removed] = []
    keys = [(prompt_key(e), normalise(e.completion)) for e in examples]
    ranked = sorted(zip(examples, keys, strict=True), key=lambda pair: (pair[0].id, pair[0].document or ""))
    for example, key in ranked:
        if key in best:
            removed.append(Removed(example, "duplicate", best[key].id))
        else:
            best[key] = example
    return list(best.values()), removed


def _given_test(
    examples: Sequence[Example], seed: int, limit: int | None
) -> tuple[list[Example], list[Removed]]:
    """The given test set in frozen order, without repeated rows, cut to the limit by stratum."""
    once = {e.id: e for e in reversed(examples)}
    seen: set[str] = set()
    removed: list[Removed] = []
    for example in examples:
        if example.id in seen:
            removed.append(Removed(example, "duplicate", example.id))
        seen.add(example.id)
    if not once:
        raise DataError("The test file has no examples; expected at least one.")
    units = _singles(list(once.values()), seed)
    chosen = units if limit is None else _take(units, limit)
    keys = {u.key for u in chosen}
    removed += [Removed(u.examples[0], "over_limit") for u in units if u.key not in keys]
    return list(_flat(chosen, seed)), removed


def _without_test(examples: list[Example], test: Sequence[Example]) -> tuple[list[Example], list[Removed]]:
    """The examples that are no near-duplicate of any given test example, limited or not."""
    texts = comparable_texts([*examples, *test])
    matches = near_matches(texts[: len(examples)], texts[len(examples) :])
    kept: list[Example] = []
    removed: list[Removed] = []
    for i, example in enumerate(examples):
        if i in matches:
            twin = test[matches[i]]
            equal = prompt_key(example) == prompt_key(twin)
            removed.append(Removed(example, "in_test" if equal else "near_test", twin.id))
        else:
            kept.append(example)
    return kept, removed


# --- units


def _key(example: Example, seed: int) -> str:
    return content_hash([example.id, seed], length=32)


def _singles(examples: Sequence[Example], seed: int) -> list[_Unit]:
    kind = infer_task(examples).kind
    return [
        _Unit((e,), _key(e, seed), e.completion if kind == "classify" else "", train_only=False)
        for e in examples
    ]


def _units(
    examples: list[Example], seed: int
) -> tuple[list[_Unit], tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """What must stay together, the groups of near-duplicates and the conflicts, as ids."""
    examples = sorted(examples, key=lambda e: _key(e, seed))
    conflicts = conflict_groups(examples)
    conflicting = {i for group in conflicts for i in group}
    groups = near_groups(comparable_texts(examples))
    grouped = {i for group in groups for i in group}
    singles = _singles(examples, seed)
    units = [u for i, u in enumerate(singles) if i not in grouped]
    for group in groups:
        members = [singles[i] for i in group]
        stratum = min(Counter(u.stratum for u in members).items(), key=lambda item: (-item[1], item[0]))[0]
        units.append(
            _Unit(
                tuple(examples[i] for i in group),
                members[0].key,
                stratum,
                any(i in conflicting for i in group),
            )
        )
    return sorted(units, key=lambda u: u.key), _ids(examples, groups), _ids(examples, conflicts)


def conflict_groups(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """Positions of examples whose prompts are equal (normalised) and whose completions are not."""
    places: dict[object, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        places[prompt_key(example)].append(i)
    return [
        tuple(group)
        for group in places.values()
        if len({normalise(examples[i].completion) for i in group}) > 1
    ]


def _ids(examples: Sequence[Example], groups: list[tuple[int, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(examples[i].id for i in group) for group in groups)


def _flat(units: Sequence[_Unit], seed: int) -> tuple[Example, ...]:
    return tuple(sorted((e for u in units for e in u.examples), key=lambda e: _key(e, seed)))


# --- sharing out


def _part(
    units: list[_Unit], share: float, limit: int | None, name: str, total: int | None = None
) -> tuple[list[_Unit], list[_Unit]]:
    """What is left and what was taken: `share` of `total` examples, no more than `limit`."""
    if share == 0:
        return units, []
    total = sum(u.size for u in units) if total is None else total
    free = _free(units)
    chosen = _take(free, max(1, round(share * total))) or sorted(free, key=lambda u: (u.size, u.key))[:1]
    if not chosen:
        raise DataError(
            f"No example is left for {name}: all prompts contradict or nearly repeat one another. "
            "Give each prompt one completion, or add examples that differ."
        )
    if limit is not None and sum(u.size for u in chosen) > limit:
        chosen = _take(chosen, limit) or sorted(chosen, key=lambda u: (u.size, u.key))[:1]
    keys = {u.key for u in chosen}
    return [u for u in units if u.key not in keys], chosen


def _free(units: list[_Unit]) -> list[_Unit]:
    """What may leave train: of each stratum all units but one, which stays for training.

    If that leaves nothing, because no stratum has two, then any but the first and largest.
    """
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    free: list[_Unit] = []
    for members in strata.values():
        movable = [u for u in members if not u.train_only]
        has_train = len(movable) < len(members)
        # the largest stays: an enormous group of near-duplicates is no measure of anything
        stays = None if has_train or not movable else max(movable, key=lambda u: (u.size, u.key))
        free += [u for u in movable if u is not stays]
    if not free:
        movable = sorted((u for u in units if not u.train_only), key=lambda u: (u.size, u.key))
        free = movable if len(movable) < len(units) else movable[:-1]
    return sorted(free, key=lambda u: u.key)


def _take(units: Sequence[_Unit], count: int) -> list[_Unit]:
    """Units of `count` examples together, or slightly fewer, each stratum in proportion.

    Largest remainders get the seats that proportions leave over; ties go by the frozen order.
    """
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    sizes = {name: sum(u.size for u in members) for name, members in strata.items()}
    share = min(1.0, count / max(1, sum(sizes.values())))
    seats = {name: math.floor(share * size + 1e-9) for name, size in sizes.items()}
    by_remainder = sorted(strata, key=lambda name: (seats[name] - share * sizes[name], strata[name][0].key))
    for name in by_remainder[: max(0, min(count, sum(sizes.values())) - sum(seats.values()))]:
        seats[name] += 1
    taken: list[_Unit] = []
    for name, members in strata.items():
        left = seats[name]
        for unit in members:
            if unit.size <= left:
                taken.append(unit)
                left -= unit.size
    return sorted(taken, key=lambda u: u.key)
