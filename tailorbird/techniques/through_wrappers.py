"""What training sees: the examples as the weights get them, beneath all wrappers of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tailorbird.data.task import Data
from tailorbird.errors import ContextTooLong, DataError
from tailorbird.evaluation.metrics import default_metric
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, as_seen_by_weights, on_weights
from tailorbird.records import Example

if TYPE_CHECKING:
    from tailorbird.network.estimate import TrainingEstimate
    from tailorbird.network.sequences import TokenSequence
    from tailorbird.network.settings import StepReport

OnStep = Callable[["StepReport"], None]
"""Told about every training step, for progress."""
OnEstimate = Callable[["TrainingEstimate"], bool]
"""Told what a training will take before it starts; gives back whether it is to start."""


def to_sequences(
    weights: LocalWeights, model: Model, data: Data, examples: Sequence[Example]
) -> list[TokenSequence]:
    """The examples as tokens, each as the weights see it beneath `model`'s wrappers.

    An example that a wrapper leaves one choice never reaches the weights and is not trained on.
    """
    from tailorbird.network.sequences import TokenSequence

    template, sequences = weights.engine.template, []
    for example in examples:
        request = as_seen_by_weights(model, data.task.ask(example))
        if request.choices is not None and len(request.choices) == 1:
            continue
        completion = template.completion(example.completion)
        try:
            prompt = template.prompt(request).ids
        except ContextTooLong as error:
            raise DataError(f"{_place(example)}: too long to train on: {error}") from error
        if len(prompt) + len(completion) > template.context:
            raise DataError(
                f"{_place(example)}: {len(prompt)} tokens of prompt and {len(completion)} of completion, but the model "
                f"takes {template.context} together. Shorten the example or leave it out."
            )
        sequences.append(TokenSequence(prompt, completion))
    return sequences


def _place(example: Example) -> str:
    return f"{example.file}:{example.line}" if example.file else f"example {example.id}"


def dev_score(weights: LocalWeights, model: Model, data: Data, examples: Sequence[Example]) -> float:
    """The task's metric on held-out examples, seen through the wrappers.

    A hundredth of the mean probability of the right label is added where there are labels: a few dozen
    examples make many ties, and of two equally accurate models the surer one is further along.
    """
    weights.engine.weights_changed(weights.adapter)
    _, metric = default_metric(data.task)
    asked = on_weights(model, lambda _: weights)
    answers = asked.answer([data.task.ask(e) for e in examples])
    score = sum(metric(e, a) for e, a in zip(examples, answers, strict=True)) / len(examples)
    sure = [(a.probabilities or {}).get(e.completion, 0.0) for e, a in zip(examples, answers, strict=True)]
    return score + 0.01 * sum(sure) / len(examples)
