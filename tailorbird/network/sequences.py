"""What is learnt from: a prompt, which carries no loss, and a completion, which does; or two to prefer one."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from tailorbird.errors import DataError


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids of a prompt and of its completion, which includes the stop token.

    Every completion token carries loss, except the very first token of all where the prompt is empty:
    nothing stands before it that could predict it. `weight` ≥ 0 scales this sequence's loss.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise DataError(f"A sequence's weight must be at least 0. Got {self.weight}.")

    @property
    def sequences(self) -> tuple[TokenSequence]:
        """Itself: see `Preference.sequences`."""
        return (self,)

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the network reads: all tokens but the last, which is only predicted."""
        return (self.prompt + self.completion)[:-1]

    @property
    def first_label(self) -> int:
        """The index, in prompt and completion together, of the first token that carries loss."""
        return max(len(self.prompt), 1)

    @property
    def num_labels(self) -> int:
        """How many tokens carry loss; none if the weight is 0."""
        return max(len(self) - self.first_label, 0) if self.weight else 0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Preference:
    """Two completions of one prompt, of which the first is preferred.

    `reference` is log π_ref(preferred) - log π_ref(rejected), in nats, under the model as it was before
    training; None where it isn't known yet. Its length counts the tokens of both.

    Raises:
        AssertionError: the two differ in prompt or weight.
    """

    preferred: TokenSequence
    rejected: TokenSequence
    reference: float | None = None

    def __post_init__(self) -> None:
        assert self.preferred.prompt == self.rejected.prompt, "one prompt, two completions"
        assert self.preferred.weight == self.rejected.weight, "a preference has one weight"

    @property
    def sequences(self) -> tuple[TokenSequence, TokenSequence]:
        """The preferred one and the rejected one."""
        return self.preferred, self.rejected

    @property
    def weight(self) -> float:
        """Scales this preference's loss."""
        return self.preferred.weight

    @property
    def num_labels(self) -> int:
        """How many tokens carry loss in both; none if the weight is 0."""
        return self.preferred.num_labels + self.rejected.num_labels

    def __len__(self) -> int:
        return len(self.preferred) + len(self.rejected)


Unit = TokenSequence | Preference
"""What a step counts in: its sequences stay together."""


def add_to_hash(digest: hashlib.blake2b, units: Iterable[Unit]) -> None:
    """Add all that decides what is learnt from these units; references follow from it."""
    for unit in units:
        digest.update(b"prefer:" if isinstance(unit, Preference) else b"")
        for sequence in unit.sequences:
            digest.update(f"{len(sequence.prompt)},{len(sequence.completion)},{sequence.weight!r}:".encode())
            digest.update(array("q", sequence.prompt + sequence.completion).tobytes())


class Blocks(Sequence[TokenSequence]):
    """A long text cut for pre-training: see `blocks`. Blocks are made when asked for."""

    def __init__(self, token_ids: Iterable[int], context: int) -> None:
        if context < 1:
            raise DataError(f"A block's context must be at least 1 token. Got {context}.")
        # An iterator, because an array would read bytes as memory and not as numbers.
        self._ids = array("I", iter(token_ids))
        self._context = context

    def __len__(self) -> int:
        return max(0, -(-(len(self._ids) - 1) // self._context))

    @overload
    def __getitem__(self, index: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenSequence]: ...
    def __getitem__(self, index: int | slice) -> TokenSequence | list[TokenSequence]:
        numbers = range(len(self))[index]
        return self._block(numbers) if isinstance(numbers, int) else [self._block(n) for n in numbers]

    def _block(self, number: int) -> TokenSequence:
        start = number * self._context
        return TokenSequence((), tuple(self._ids[start : start + self._context + 1]))


def blocks(token_ids: Iterable[int], context: int) -> Blocks:
    """Plain text as sequences of `context` + 1 tokens without a prompt.

    Neighbours overlap by one token, so every token but the text's first is predicted exactly once.

    >>> [block.completion for block in blocks([5, 6, 7, 8], context=2)]
    [(5, 6, 7), (7, 8)]
    """
    return Blocks(token_ids, context)
