"""What every technique must do; run it on a technique of your own.

Example:
    >>> from tailorbird.techniques.few_shot import FewShot
    >>> from tailorbird.testing.tiny import tiny_data, tiny_model
    >>> _ = check_technique(FewShot(k=2, select="fixed"), tiny_model(), tiny_data())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from tailorbird.data.task import Data
from tailorbird.models.model import Model
from tailorbird.records import Completion, Request
from tailorbird.techniques.technique import Technique
from tailorbird.testing.models import check_model


@dataclass(frozen=True)
class SealedData(Data):
    """Data whose test examples nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name == "test":
            raise AssertionError("the technique read data.test, which is kept apart to judge it")
        return super().__getattribute__(name)


def sealed(data: Data) -> SealedData:
    """The same data with its test examples sealed."""
    return SealedData(**{f.name: getattr(data, f.name) for f in fields(Data)})


def check_technique(technique: Technique, model: Model, data: Data) -> Model:
    """Check that a technique gives a model that keeps the models' contract, and leaves the given one alone.

    Args:
        technique: What is checked.
        model: What it is applied to.
        data: With at least one test example, which the technique must not read.

    Returns:
        The new model, for further checks.

    Raises:
        AssertionError: With what is wrong.
    """
    assert isinstance(technique, Technique), f"{technique!r} has no method apply(model, data)"
    assert is_dataclass(technique), f"{type(technique).__name__} is no dataclass: its fields are its settings"
    frozen = type(technique).__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
    assert frozen, f"{type(technique).__name__} is not frozen: applying it could change its settings"
    assert data.test, "the data have no test example to check with"
    requests = [data.task.ask(example) for example in data.test[:3]]
    before, name, settings = model.answer(requests), model.name, repr(technique)
    made = technique.apply(model, sealed(data))
    assert isinstance(made, Model), f"apply gave {made!r}, which is no Model"
    check_model(made, requests)
    assert repr(technique) == settings, "applying the technique changed its settings"
    assert model.name == name, f"the given model was renamed to {model.name!r}"
    _check_same(before, model.answer(requests), requests)
    return made


def _check_same(
    before: Sequence[Completion], after: Sequence[Completion], requests: Sequence[Request]
) -> None:
    for request, was, now in zip(requests, before, after, strict=True):
        shown = repr(request.question[:40])
        assert was.text == now.text, f"{shown}: the given model said {was.text!r}, and now says {now.text!r}"
        for choice, chance in (was.probabilities or {}).items():
            got = (now.probabilities or {}).get(choice, 0.0)
            assert abs(got - chance) < 1e-5, (
                f"{shown}: the given model's {choice!r} went from {chance} to {got}"
            )
