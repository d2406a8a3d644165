"""Which sequences are learnt from together: shuffled, of like length, within a budget of tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tailorbird.network.sequences import TokenSequence

POOLS = 4
"""An epoch is sorted by length in at least this many separate pools, so that batches mix anew each time."""
POOL_BATCHES = 50
"""And a pool holds at most this many batches."""
EXTRA_BATCH_TOKENS = 32
"""About what a batch costs besides its tokens: many small operations, and products too small to be fast."""


@dataclass(frozen=True)
class Batch:
    """Sequences that go through the network together."""

    sequences: tuple[TokenSequence, ...]

    def __len__(self) -> int:
        return len(self.sequences)

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


def common_prefix(rows: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all rows have in common.

    >>> common_prefix([(1, 2, 3), (1, 2, 4), (1, 2)])
    2
    """
    first, last = min(rows), max(rows)
    # Every row sorts between these two, so it begins with whatever they share.
    shortest = min(len(first), len(last))
    return next((n for n in range(shortest) if first[n] != last[n]), shortest)


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
    sequences: Sequence[TokenSequence], num_processes: int, *, share: bool
) -> list[list[TokenSequence]]:
    """The part of a step that each process computes: about as many tokens each, of like length.

    With `share` the step's common prefix, which every process computes, is not counted. Where there are
    fewer sequences than processes, some get none. Depends on the arguments alone.

    >>> share_out([TokenSequence((1,), (2,)), TokenSequence((3,), (4,))], 2, share=True)[1]
    [TokenSequence(prompt=(3,), completion=(4,), weight=1.0)]
    """
    ordered = sorted(sequences, key=lambda sequence: (len(sequence), sequence.inputs))
    prefix = common_prefix([sequence.inputs for sequence in ordered]) if share else 0
    costs = [len(sequence.inputs) - prefix + 1 for sequence in ordered]
    parts: list[list[TokenSequence]] = [[] for _ in range(num_processes)]
    before, total = 0, sum(costs)
    for sequence, cost in zip(ordered, costs, strict=True):
        # By where its middle lies.
        parts[(2 * before + cost) * num_processes // (2 * total)].append(sequence)
        before += cost
    return parts


def split(sequences: Sequence[TokenSequence], max_batch_tokens: int, *, share: bool) -> list[Batch]:
    """The batches of one step: as few as hold at most `max_batch_tokens` tokens each, padding included.

    With `share` the common prefix of a batch's sequences counts once, and sequences that have a longer
    prefix in common than the rest go together where that saves work. A sequence that is longer than the
    budget is a batch by itself: nothing is cut off.
    """
    ordered = sorted(sequences, key=lambda sequence: (len(sequence), sequence.inputs))
    if not share:
        return _within_budget(ordered, 0, max_batch_tokens)
    groups = _by_prefix(ordered)[1]
    return [
        batch
        for group in groups
        for batch in _within_budget(
            sorted(group, key=len), common_prefix([sequence.inputs for sequence in group]), max_batch_tokens
        )
    ]


def _within_budget(ordered: list[TokenSequence], prefix: int, max_batch_tokens: int) -> list[Batch]:
    batches: list[list[TokenSequence]] = [[]]
    for sequence in ordered:
        # Sorted by length, so this sequence is the longest of its batch.
        padded = prefix + (len(batches[-1]) + 1) * (len(sequence) - 1 - prefix)
        if batches[-1] and padded > max_batch_tokens:
            batches.append([])
        batches[-1].append(sequence)
    return [Batch(tuple(batch)) for batch in batches]


def _by_prefix(sequences: list[TokenSequence]) -> tuple[int, list[list[TokenSequence]]]:
    """The cheapest grouping by common beginnings, and its cost in tokens computed."""
    rows = [sequence.inputs for sequence in sequences]
    prefix = common_prefix(rows)
    together = EXTRA_BATCH_TOKENS + prefix + sum(len(row) - prefix for row in rows)
    branches: dict[int | None, list[TokenSequence]] = {}
    for sequence, row in zip(sequences, rows, strict=True):
        branches.setdefault(row[prefix] if len(row) > prefix else None, []).append(sequence)
    if len(branches) == 1:  # all alike
        return together, [sequences]
    rest: list[TokenSequence] = []
    cost, groups = 0, list[list[TokenSequence]]()
    for branch in branches.values():
        apart, parts = _by_prefix(branch) if len(branch) > 1 else (0, [])
        if parts and apart < sum(len(sequence.inputs) - prefix for sequence in branch):
            cost += apart
            groups += parts
        else:
            rest += branch
    if rest:
        cost += EXTRA_BATCH_TOKENS + prefix + sum(len(sequence.inputs) - prefix for sequence in rest)
        groups.append(rest)
    return (cost, groups) if cost < together else (together, [sequences])
