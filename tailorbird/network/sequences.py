"""What is learnt from: a prompt, which carries no loss, and a completion, which does."""

from __future__ import annotations

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
