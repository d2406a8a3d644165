"""The one idea: a model answers requests; a customized model is one too.

There are two kinds of model inside: *weights*, which answer by themselves, and `Wrapped`, which asks
its base differently. `on_weights` reaches beneath the wrappers, which is how training sees its
examples through them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from tailorbird.data.task import Data
from tailorbird.records import Completion, Example, Request

Pieces = Generator[str, None, Completion]
"""The pieces of an answer, and at their end the completion that they make up."""


@runtime_checkable
class Model(Protocol):
    """Answers requests. A customized model is one too."""

    @property
    def name(self) -> str:
        """A short name for people, such as `starter` or `starter + few_shot`."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion a request, in order."""
        ...

    def stream(self, request: Request) -> Pieces:
        """The pieces of an answer as they come; joined they are `answer([request])[0].text`.

        The generator returns the whole completion, which tells why the answer ended and what it cost.
        """
        ...


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely weights find some texts: together -Σ log p in `nats`, over `tokens`, their ends counted too.

    `size_bytes` is the texts' own, in UTF-8. There is one text at least.
    """

    nats: float
    tokens: int
    size_bytes: int
    examples: int

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens), at least 1; at most e⁷⁰⁰, which is nearly the largest number."""
        return math.exp(min(self.nats / self.tokens, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """The bits that the texts take by this model, for each of their bytes; at least 0."""
        return self.nats / math.log(2) / self.size_bytes


@runtime_checkable
class Predicting(Protocol):
    """Weights that tell how likely they find a text as the answer to a request."""

    def likelihood(self, expected: Sequence[tuple[Request, str]]) -> Likelihood | None:
        """Of all texts together, each given its request as these weights see it; None where none fits."""
        ...


class Rewrite(Protocol):
    """What a wrapper does to a request before its base sees it.

    `kind` names the part in a saved model; `save` writes what is large into `folder` (which exists)
    and returns the rest as JSON.
    """

    kind: ClassVar[str]

    def __call__(self, request: Request) -> Request: ...

    def save(self, folder: Path) -> dict[str, Any]: ...


@runtime_checkable
class FittedRewrite(Rewrite, Protocol):
    """A rewrite that was fitted to what its base answers, and is so again when that has changed."""

    def unfitted(self) -> Rewrite:
        """The same without what was fitted."""
        ...

    def fitted(self, base: Model, data: Data) -> Rewrite:
        """The same, fitted to what `base` answers on `data.dev`."""
        ...


@runtime_checkable
class ReviewingRewrite(Rewrite, Protocol):
    """A rewrite that looks at the answer to what it rewrote, and may add to its record or replace it."""

    @property
    def may_replace(self) -> bool:
        """Whether a review may change an answer's text; a stream then comes in one piece, after it."""
        ...

    def review(self, completion: Completion) -> Completion:
        """The completion as it is given on."""
        ...


@runtime_checkable
class TeachingRewrite(Rewrite, Protocol):
    """A rewrite that shows an example to be learnt otherwise than it would ask it."""

    def lessons(self, example: Example, request: Request) -> Sequence[tuple[Example, Request]]:
        """What is learnt from an example whose request has come here: requests, each with what it should answer."""
        ...


@dataclass(frozen=True)
class Wrapped:
    """A model that asks its base differently. Final: wrappers differ only in `rewrite`."""

    base: Model
    rewrite: Rewrite

    @property
    def name(self) -> str:
        return f"{self.base.name} + {self.rewrite.kind}"

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        completions = self.base.answer([self.rewrite(r) for r in requests])
        if isinstance(self.rewrite, ReviewingRewrite):
            return [self.rewrite.review(completion) for completion in completions]
        return completions

    def stream(self, request: Request) -> Pieces:
        if not isinstance(self.rewrite, ReviewingRewrite):
            return (yield from self.base.stream(self.rewrite(request)))
        if self.rewrite.may_replace:
            return (yield from in_one_piece(self.answer([request])[0]))
        return self.rewrite.review((yield from self.base.stream(self.rewrite(request))))


def in_one_piece(completion: Completion) -> Pieces:
    """The stream of an answer that was there all at once."""
    yield completion.text
    return completion


def weights_of(model: Model) -> Model:
    """The model beneath all wrappers."""
    while isinstance(model, Wrapped):
        model = model.base
    return model


def rewrites_of(model: Model) -> list[Rewrite]:
    """The wrappers' rewrites in the order in which a request passes them (outermost first)."""
    found: list[Rewrite] = []
    while isinstance(model, Wrapped):
        found.append(model.rewrite)
        model = model.base
    return found


def as_seen_by_weights(model: Model, request: Request) -> Request:
    """The request after every wrapper of `model`."""
    for rewrite in rewrites_of(model):
        request = rewrite(request)
    return request


def lessons_for_weights(
    model: Model, example: Example, request: Request
) -> Sequence[tuple[Example, Request]]:
    """What the weights of `model` learn from an example: requests after every wrapper, each with its completion."""
    lessons: Sequence[tuple[Example, Request]] = [(example, request)]
    for rewrite in rewrites_of(model):
        if isinstance(rewrite, TeachingRewrite):
            lessons = [lesson for pair in lessons for lesson in rewrite.lessons(*pair)]
        else:
            lessons = [(shown, rewrite(asked)) for shown, asked in lessons]
    return lessons


def on_weights(model: Model, train: Callable[[Model], Model]) -> Model:
    """The same wrappers over `train(weights)`; the given model is untouched."""
    if isinstance(model, Wrapped):
        return Wrapped(on_weights(model.base, train), model.rewrite)
    return train(model)


def unfitted(model: Model) -> Model:
    """The same weights and wrappers, without what these have fitted to the weights' answers."""
    if not isinstance(model, Wrapped):
        return model
    rewrite = model.rewrite
    return Wrapped(
        unfitted(model.base), rewrite.unfitted() if isinstance(rewrite, FittedRewrite) else rewrite
    )


def fitted(model: Model, data: Data) -> Model:
    """The same weights and wrappers, these fitted to what is beneath each, the innermost first."""
    if not isinstance(model, Wrapped):
        return model
    base, rewrite = fitted(model.base, data), model.rewrite
    return Wrapped(base, rewrite.fitted(base, data) if isinstance(rewrite, FittedRewrite) else rewrite)


def retrained(model: Model, data: Data, train: Callable[[Model, Model], Model]) -> Model:
    """The same wrappers over trained weights; what they had fitted to the old ones is fitted to the new.

    Args:
        model: weights, wrapped or not.
        data: whose dev examples it is fitted to.
        train: makes new weights of the old; gets these, and the whole model without what was fitted.
    """
    bare = unfitted(model)
    return fitted(on_weights(bare, lambda weights: train(weights, bare)), data)
