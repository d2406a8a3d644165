"""One look at every example for the report: lengths, stray spaces, what all texts share."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tailorbird.data.duplicates import SharedParts
from tailorbird.records import Example

CHARS_PER_TOKEN = 4
"""English text has about four characters a token; used where no tokenizer is given, and said."""

CountTokens = Callable[[str], int]


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return math.ceil(len(text) / CHARS_PER_TOKEN)


@dataclass
class Survey:
    """What was seen; the arrays have one entry an example, `stray` are places.

    `stray` completions begin or end with white space. `num_rejected` examples carry an answer that
    should not come, `num_weighted` a weight other than 1.
    """

    prompt_tokens: array[int] = field(default_factory=lambda: array("I"))
    completion_tokens: array[int] = field(default_factory=lambda: array("I"))
    stray: array[int] = field(default_factory=lambda: array("Q"))
    prompts: SharedParts = field(default_factory=SharedParts)
    completions: SharedParts = field(default_factory=SharedParts)
    num_rejected: int = 0
    num_weighted: int = 0

    def add(self, example: Example, count_tokens: CountTokens) -> None:
        """Looks at one more example."""
        if example.completion != example.completion.strip():
            self.stray.append(len(self.prompt_tokens))
        self.prompt_tokens.append(sum(count_tokens(m.content) for m in example.messages))
        self.completion_tokens.append(count_tokens(example.completion))
        self.prompts.add(example.prompt)
        self.completions.add(example.completion)
        self.num_rejected += example.rejected is not None
        self.num_weighted += example.weight != 1


def survey(examples: Iterable[Example], count_tokens: CountTokens = estimated_tokens) -> Survey:
    """Looks at every example once."""
    seen = Survey()
    for example in examples:
        seen.add(example, count_tokens)
    return seen
