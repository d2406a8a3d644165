"""A technique turns a model and data into a model; a recipe is a technique made of techniques."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tailorbird.data.task import Data
from tailorbird.models.model import Model


@runtime_checkable
class Technique(Protocol):
    """Model × Data → Model. Techniques are frozen dataclasses: their fields are their settings."""

    def apply(self, model: Model, data: Data) -> Model:
        """A new model; the given one is untouched. Never reads `data.test`."""
        ...


@dataclass(frozen=True)
class Recipe:
    """Techniques applied one after another. An empty recipe gives the model back."""

    steps: tuple[Technique, ...] = ()

    def apply(self, model: Model, data: Data) -> Model:
        for step in self.steps:
            model = step.apply(model, data)
        return model
