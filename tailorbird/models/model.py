"""The one idea: a model answers requests; a customized model is one too.

There are two kinds of model inside: *weights*, which answer by themselves, and `Wrapped`, which asks
its base differently. `on_weights` reaches beneath the wrappers, which is how training sees its
examples through them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from tailorbird.records import Completion, Request

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


class Rewrite(Protocol):
    """What a wrapper does to a request before its base sees it.

    `kind` names the part in a saved model; `save` writes what is large into `folder` (which exists)
    and returns the rest as JSON.
    """

    kind: ClassVar[str]

    def __call__(self, request: Request) -> Request: ...

    def save(self, folder: Path) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Wrapped:
    """A model that asks its base differently. Final: wrappers differ only in `rewrite`."""

    base: Model
    rewrite: Rewrite

    @property
    def name(self) -> str:
        return f"{self.base.name} + {self.rewrite.kind}"

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return self.base.answer([self.rewrite(r) for r in requests])

    def stream(self, request: Request) -> Pieces:
        return self.base.stream(self.rewrite(request))


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


def on_weights(model: Model, train: Callable[[Model], Model]) -> Model:
    """The same wrappers over `train(weights)`; the given model is untouched."""
    if isinstance(model, Wrapped):
        return Wrapped(on_weights(model.base, train), model.rewrite)
    return train(model)
