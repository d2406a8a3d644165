"""The mask preview: every token as training gets it, and whether it carries loss.

It is made by the function that makes the training's own sequences, so that it can't differ from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tailorbird.data.problems import plural
from tailorbird.data.task import Data
from tailorbird.models.blank import Blank
from tailorbird.records import Example
from tailorbird.techniques.through_wrappers import as_sequences, place_of, stop_carries_loss

if TYPE_CHECKING:
    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.network.sequences import TokenSequence


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token, its text, and whether it carries loss."""

    id: int
    text: str
    loss: bool


@dataclass(frozen=True)
class MaskedExample:
    """A training example token by token; `where` is `file:line`."""

    where: str
    weight: float
    tokens: tuple[MaskedToken, ...]
    num_prompt_tokens: int
    num_completion_tokens: int
    teaches_to_stop: bool


@dataclass(frozen=True)
class MaskPreview:
    """The first training examples, and whether the model will learn from them to stop."""

    examples: tuple[MaskedExample, ...]
    num_train: int
    stop: str
    learns_to_stop: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The preview as plain JSON values."""
        return asdict(self)


def preview_mask(template: ChatTemplate, data: Data, num_examples: int) -> MaskPreview:
    """The first training examples as `fine_tune` gets them, without a wrapper in front."""
    shown = data.train[:num_examples]
    examples = tuple(_masked(template, data, example) for example in shown)
    stop = template.token_text(template.stop_id)
    learns = any(example.teaches_to_stop for example in examples)
    return MaskPreview(examples, len(data.train), stop, learns, _sentence(examples, stop))


def _masked(template: ChatTemplate, data: Data, example: Example) -> MaskedExample:
    (sequence,) = as_sequences(template, Blank(), data, [example])
    return MaskedExample(
        place_of(example),
        sequence.weight,
        tuple(_tokens(template, sequence)),
        len(sequence.prompt),
        len(sequence.completion),
        stop_carries_loss(template, sequence),
    )


def _tokens(template: ChatTemplate, sequence: TokenSequence) -> list[MaskedToken]:
    ids = sequence.prompt + sequence.completion
    learnt = range(sequence.first_label, len(ids)) if sequence.num_labels else range(0)
    return [MaskedToken(i, template.token_text(i), place in learnt) for place, i in enumerate(ids)]


def _sentence(examples: Sequence[MaskedExample], stop: str) -> str:
    teaching = sum(example.teaches_to_stop for example in examples)
    of = f"{teaching} of the {plural(len(examples), 'example')} shown"
    if teaching:
        return f"The model will learn to stop: the stop token {stop!r} ends the completion and carries loss in {of}."
    if not any(token.loss for example in examples for token in example.tokens):
        return f"The model will not learn to stop, nor anything else: no token carries loss in {of}."
    return f"The model will not learn to stop: the stop token {stop!r} carries loss in {of}."
