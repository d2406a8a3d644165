"""Requests that go through the network together: prompts of like length, under a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tailorbird.models.chat_template import Prompt

MAX_BATCH_TOKENS = 6_144
"""Prompt tokens of one batch, padding included: beyond it larger batches are no faster on CPUs."""
MAX_BATCH_ROWS = 32


@dataclass(frozen=True)
class Asked:
    """One request on its way through a batch."""

    index: int
    prompt: Prompt


def batches(group: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Prompts of like length together, under a budget of padded tokens."""
    batch: list[Asked] = []
    for asked in sorted(group, key=lambda a: (len(a.prompt.ids), a.prompt.ids)):
        width = len(asked.prompt.ids)
        if batch and ((len(batch) + 1) * width > MAX_BATCH_TOKENS or len(batch) >= MAX_BATCH_ROWS):
            yield batch
            batch = []
        batch.append(asked)
    if batch:
        yield batch
