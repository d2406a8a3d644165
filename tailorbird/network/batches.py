"""Which sequences are learnt from together: shuffled, of like length, within a budget of tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tailorbird.network.packing import common_prefix
from tailorbird.network.sequences import Preference, TokenSequence, Unit

POOLS = 4
"""An epoch is sorted by length in at least this many separate pools, so that batches mix anew each time."""
POOL_BATCHES = 50
"""And a pool holds at most this many batches."""
EXTRA_BATCH_TOKENS = 32
"""About what a batch costs besides its tokens: many small operations, and products too small to be fast."""


@dataclass(frozen=True)
class Batch:
    """Sequences that go through the network together; a preference counts as its two.

    Where it is `forked` all units are preferences, and what both completions of one begin with, their prompt
    above all, is computed once.
    """

    units: tuple[Unit, ...]
    forked: bool = False

    def __len__(self) -> int:
        return len(self.sequences)

    @cached_property
    def sequences(self) -> tuple[TokenSequence, ...]:
        """What is read, a preference's two one after the other."""
        return tuple(sequence for unit in self.units for sequence in unit.sequences)

    @cached_property
    def inputs(self) -> list[tuple[int, ...]]:
        """What the network reads of each sequence."""
        return [sequence.inputs for sequence in self.sequences]

    @cached_property
    def prefix(self) -> int:
        """How many input tokens all sequences begin with in common."""
        return common_prefix(self.inputs)

    @property
    def longest(self) -> int:
        """The number of input tokens of the longest sequence."""
        return max(map(len, self.inputs))

    @property
    def num_tokens(self) -> int:
        """Input tokens, padding not counted."""
        return sum(map(len, self.inputs))

    @property
    def num_labels(self) -> float:
        """Tokens that carry loss, each counted with its sequence's weight."""
        return sum(sequence.weight * sequence.num_labels for sequence in self.sequences)

    def num_computed(self, prefix: int) -> int:
        """Tokens that go through the network where the first `prefix` do so once, padding not counted."""
        return prefix + sum(branch.tokens - branch.rows * prefix for branch in self._branches)

    def num_padded(self, prefix: int) -> int:
        """The same, padding counted."""
        rows = sum(branch.rows for branch in self._branches)
        return prefix + rows * (max(branch.width for branch in self._branches) - prefix)

    @cached_property
    def _branches(self) -> list[_Branch]:
        return [_branch(unit, forked=self.forked) for unit in self.units]


@dataclass(frozen=True)
class _Branch:
    """How a unit goes through the network: `stem` is what it may share with others.

    Its `rows` are at most `width` tokens wide and together `tokens`, the stem counted in each.
    """

    unit: Unit
    stem: tuple[int, ...]
    tokens: int
    width: int
    rows: int = 1


def _branch(unit: Unit, *, forked: bool) -> _Branch:
    if isinstance(unit, TokenSequence):
        inputs = unit.inputs
        return _Branch(unit, inputs, len(inputs), len(inputs))
    first, second = (sequence.inputs for sequence in unit.sequences)
    stem = first[: common_prefix([first, second])]
    tokens = len(first) + len(second)
    if forked:
        return _Branch(unit, stem, tokens - len(stem), tokens - len(stem))
    return _Branch(unit, stem, tokens, max(len(first), len(second)), rows=2)


def plan_epoch(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The steps of one epoch, each a list of indices into the sequences; every index occurs once.

    Sequences are shuffled, sorted by length within pools (less padding), cut into steps whose sizes
    differ by at most one (no lone left-over sequence steers a step), and the steps shuffled. Depends on
    the arguments alone.
    """
    dice = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    dice.shuffle(order)
    num_steps = -(-len(order) // batch_size)
    edges = [len(order) * step // num_steps for step in range(num_steps + 1)]
    pool = min(POOL_BATCHES, max(1, num_steps // POOLS))
    steps: list[list[int]] = []
    for first in range(0, num_steps, pool):
        last = min(first + pool, num_steps)
        pooled = sorted(order[edges[first] : edges[last]], key=lambda index: lengths[index])
        start = edges[first]
        steps += [pooled[edges[n] - start : edges[n + 1] - start] for n in range(first, last)]
    dice.shuffle(steps)
    return steps


def share_out(
    units: Sequence[Unit], num_processes: int, *, share: bool, forked: bool = False
) -> list[list[Unit]]:
    """The part of a step that each process computes: about as many tokens each, of like length.

    With `share` the step's common prefix, which every process computes, is not counted; with `forked` a
    preference's prompt is counted once. Where there are fewer units than processes, some get none. Depends on
    the arguments alone.

    >>> share_out([TokenSequence((1,), (2,)), TokenSequence((3,), (4,))], 2, share=True)[1]
    [TokenSequence(prompt=(3,), completion=(4,), weight=1.0)]
    """
    ordered = _ordered(units, forked=forked)
    prefix = common_prefix([branch.stem for branch in ordered]) if share else 0
    costs = [branch.tokens - branch.rows * prefix + 1 for branch in ordered]
    parts: list[list[Unit]] = [[] for _ in range(num_processes)]
    before, total = 0, sum(costs)
    for branch, cost in zip(ordered, costs, strict=True):
        # By where its middle lies.
        parts[(2 * before + cost) * num_processes // (2 * total)].append(branch.unit)
        before += cost
    return parts


def split(units: Sequence[Unit], max_batch_tokens: int, *, share: bool, forked: bool = False) -> list[Batch]:
    """The batches of one step: as few as hold at most `max_batch_tokens` tokens each, padding included.

    With `share` the common prefix of a batch's sequences counts once, and units that have a longer prefix in
    common than the rest go together where that saves work. With `forked`, what a preference's two completions
    begin with counts once; in any case they are in one batch. Units are of one kind; one that is longer than
    the budget is a batch by itself: nothing is cut off.
    """
    ordered = _ordered(units, forked=forked)
    groups = _by_prefix(ordered)[1] if share else [ordered]
    return [
        Batch(tuple(branch.unit for branch in batch), forked and isinstance(units[0], Preference))
        for group in groups
        for batch in _within_budget(
            sorted(group, key=lambda branch: branch.width),
            common_prefix([branch.stem for branch in group]) if share else 0,
            max_batch_tokens,
        )
    ]


def _ordered(units: Sequence[Unit], *, forked: bool) -> list[_Branch]:
    branches = [_branch(unit, forked=forked) for unit in units]
    return sorted(branches, key=lambda branch: (branch.width, branch.stem))


def _within_budget(ordered: list[_Branch], prefix: int, max_batch_tokens: int) -> list[list[_Branch]]:
    batches: list[list[_Branch]] = [[]]
    for branch in ordered:
        # Sorted by width, so this branch is the widest of its batch.
        rows = sum(other.rows for other in batches[-1]) + branch.rows
        if batches[-1] and prefix + rows * (branch.width - prefix) > max_batch_tokens:
            batches.append([])
        batches[-1].append(branch)
    return batches


def _by_prefix(branches: list[_Branch]) -> tuple[int, list[list[_Branch]]]:
    """The cheapest grouping by common beginnings, and its cost in tokens computed."""
    prefix = common_prefix([branch.stem for branch in branches])
    together = EXTRA_BATCH_TOKENS + prefix + _own_tokens(branches, prefix)
    forks: dict[int | None, list[_Branch]] = {}
    for branch in branches:
        forks.setdefault(branch.stem[prefix] if len(branch.stem) > prefix else None, []).append(branch)
    if len(forks) == 1:  # all alike
        return together, [branches]
    rest: list[_Branch] = []
    cost, groups = 0, list[list[_Branch]]()
    for fork in forks.values():
        apart, parts = _by_prefix(fork) if len(fork) > 1 else (0, [])
        if parts and apart < _own_tokens(fork, prefix):
            cost += apart
            groups += parts
        else:
            rest += fork
    if rest:
        cost += EXTRA_BATCH_TOKENS + prefix + _own_tokens(rest, prefix)
        groups.append(rest)
    return (cost, groups) if cost < together else (together, [branches])


def _own_tokens(branches: list[_Branch], prefix: int) -> int:
    return sum(branch.tokens - branch.rows * prefix for branch in branches)
