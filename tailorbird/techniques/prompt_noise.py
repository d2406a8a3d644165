"""Examples seen otherwise in every pass: some words of a prompt left out, two neighbours changed over.

A few examples of each label are soon learnt by heart. Without some of its words a message still means what it
means, so the network can't rely on any one of them (random deletion and random swap of Wei & Zou 2019, "EDA",
arXiv 1901.11196).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tailorbird.data.task import Data
from tailorbird.errors import DataError
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model
from tailorbird.records import Example, Message
from tailorbird.techniques.through_wrappers import as_sequences, reaching

if TYPE_CHECKING:
    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.network.sequences import TokenSequence, Unit

DEFAULT_NOISE = 0.15
"""The part of the words left out, where labels are learnt in `FEWEST_PASSES` or more."""
FEWEST_PASSES = 3
MOST_VIEWS = 16
"""After so many passes the views come again."""
_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True)
class Lessons:
    """What is learnt from: every example `views` times, all of them and then all again."""

    units: Sequence[Unit]
    views: int = 1

    @property
    def plain(self) -> Sequence[Unit]:
        """The first view of each example, which is without noise."""
        return self.units[: len(self.units) // self.views]


def noisy(text: str, noise: float, dice: random.Random) -> str:
    """The text without some of its words, of which every other time two neighbours changed places.

    What stands between words stays with the word before. At least one word is left.

    >>> noisy("my card has not arrived", 0.4, random.Random(1))
    'card arrived has'
    """
    words = _WORD.findall(text)
    left = [word for word in words if dice.random() >= noise] or words
    if len(left) > 2 and dice.random() < 0.5:
        n = dice.randrange(len(left) - 1)
        left[n : n + 2] = [_spaced(left[n + 1], left[n]), _spaced(left[n], left[n + 1])]
    return "".join(left).rstrip()


def _spaced(word: str, like: str) -> str:
    """The word, followed by the blanks that follow another one."""
    return word.rstrip() + like[len(like.rstrip()) :]


def num_views(epochs: float) -> int:
    """How many views of each example so many passes need.

    >>> num_views(0.5), num_views(3.2), num_views(100)
    (1, 4, 16)
    """
    return math.ceil(min(MOST_VIEWS, max(1.0, epochs)))


def with_views(  # noqa: PLR0917 - what sequences are made of, and how
    weights: LocalWeights,
    model: Model,
    data: Data,
    examples: Sequence[Example],
    sequences: Sequence[TokenSequence],
    views: int,
    noise: float,
    seed: int,
) -> list[TokenSequence]:
    """The sequences of the examples, and after them the same as often again, each time with other noise.

    Where an example with noise is too long with what a wrapper puts before it, or doesn't reach the weights, it
    stands there without.
    """
    template, found = weights.engine.template, list(sequences)
    if views == 1:
        return found
    plain = list(zip(reaching(model, data, examples), sequences, strict=True))
    for view in range(1, views):
        before = ""
        for (example, _), sequence in plain:
            dice = random.Random(f"{seed}/{view}/{example.id}")
            said = replace(example.messages[-1], content=noisy(example.prompt, noise, dice))
            # What a wrapper made of an example besides itself is as it is: asked anew, it would be made otherwise.
            made, before = example.id == before, example.id
            found.append(sequence if made else _sequence(template, model, data, example, said) or sequence)
    return found


def _sequence(
    template: ChatTemplate, model: Model, data: Data, example: Example, said: Message
) -> TokenSequence | None:
    if said == example.messages[-1]:
        return None
    other = replace(example, messages=(*example.messages[:-1], said))
    try:
        return next(iter(as_sequences(template, model, data, [other])), None)
    except DataError:
        return None
