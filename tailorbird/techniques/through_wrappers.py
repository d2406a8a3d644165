"""What training sees: the examples as the weights get them, beneath all wrappers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tailorbird.data.task import Data
from tailorbird.errors import ContextTooLong, DataError
from tailorbird.evaluation.metrics import default_metric
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, lessons_for_weights, on_weights
from tailorbird.records import LAYOUTS, Example, Request

if TYPE_CHECKING:
    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.network.estimate import TrainingEstimate
    from tailorbird.network.sequences import Preference, TokenSequence
    from tailorbird.network.settings import StepReport

OnStep = Callable[["StepReport"], None]
"""Told about every training step, for progress."""
OnEstimate = Callable[["TrainingEstimate"], bool]
"""Told what a training will take before it starts; gives back whether it is to start."""


def to_sequences(
    weights: LocalWeights, model: Model, data: Data, examples: Sequence[Example]
) -> list[TokenSequence]:
    """The examples as tokens, each as the weights see it beneath `model`'s wrappers.

    Raises:
        DataError: an example is too long; or nothing could be learnt, see `refuse_unlearnable`.
    """
    template = weights.engine.template
    sequences = as_sequences(template, model, data, examples)
    refuse_unlearnable(template, sequences, len(examples))
    return sequences


def to_preferences(
    weights: LocalWeights, model: Model, data: Data, examples: Sequence[Example]
) -> list[Preference]:
    """The examples as tokens, each with its preferred and its rejected completion, as `to_sequences` does.

    Raises:
        DataError: an example has no rejected answer; or as for `to_sequences`.
    """
    from tailorbird.network.sequences import Preference

    template = weights.engine.template
    preferences: list[Preference] = []
    refuse_unpaired(examples)
    for example, request in reaching(model, data, examples):
        answers = (example.completion, example.rejected or "")
        preferred, rejected = _sequences(template, example, request, answers)
        preferences.append(Preference(preferred, rejected))
    refuse_unlearnable(template, [p.preferred for p in preferences], len(examples))
    return preferences


def refuse_unpaired(examples: Sequence[Example]) -> None:
    """Preferences can be learnt where every example has a rejected answer.

    Raises:
        DataError: one has none.
    """
    lone = [place_of(example) for example in examples if example.rejected is None and example.weight]
    if lone:
        raise DataError(
            f"{lone[0]}: no rejected answer, and so in {len(lone)} of {len(examples)} training examples; "
            "expected in all to learn preferences. Give each row 'prompt', 'chosen' and 'rejected', or learn from "
            'the completions alone with objective = "supervised".'
        )


def as_sequences(
    template: ChatTemplate, model: Model, data: Data, examples: Iterable[Example]
) -> list[TokenSequence]:
    """What `to_sequences` gives, whether or not something can be learnt from it.

    An example that a wrapper leaves one choice never reaches the weights and is not trained on.
    """
    return [
        sequence
        for example, request in reaching(model, data, examples)
        for sequence in _sequences(template, example, request, (example.completion,))
    ]


def reaching(model: Model, data: Data, examples: Iterable[Example]) -> Iterator[tuple[Example, Request]]:
    """The examples that reach the weights, with the request as those see it; a wrapper may make several of one."""
    for example in examples:
        for lesson, request in lessons_for_weights(model, example, data.task.ask(example)):
            if request.choices is None or len(request.choices) != 1:
                yield lesson, request


def _sequences(
    template: ChatTemplate, example: Example, request: Request, answers: Sequence[str]
) -> list[TokenSequence]:
    """The request with each of these answers."""
    from tailorbird.network.sequences import TokenSequence

    completions = [template.completion(answer, request.layout) for answer in answers]
    try:
        prompt = template.prompt(request).ids
    except ContextTooLong as error:
        raise DataError(f"{place_of(example)}: too long to train on: {error}") from error
    if len(prompt) + (longest := max(map(len, completions))) > template.context:
        raise DataError(
            f"{place_of(example)}: {len(prompt)} tokens of prompt and {longest} of completion, but the "
            f"model takes {template.context} together. Shorten the example or leave it out."
        )
    return [TokenSequence(prompt, completion, example.weight) for completion in completions]


def refuse_unlearnable(template: ChatTemplate, sequences: Sequence[TokenSequence], num_examples: int) -> None:
    """Training on these must teach something, and among it to stop.

    Raises:
        DataError: no token carries loss, or nowhere does the stop token.
    """
    if not any(s.num_labels for s in sequences):
        reached = f"{len(sequences)} of {num_examples} examples reach the weights"
        raise DataError(
            f"training set: no token carries loss ({reached}, all with weight 0 or an empty completion); expected "
            "at least one completion with a weight above 0. Give the answers that are to be learnt a weight of 1."
        )
    if not any(stop_carries_loss(template, s) for s in sequences):
        raise DataError(
            f"training set: none of {len(sequences)} completions ends with the stop token "
            f"{template.token_text(template.stop_id)!r} as a token that carries loss, so the model would never learn "
            "to stop. Mend the tokenizer's chat template so that an assistant's message ends with it."
        )


def stop_carries_loss(template: ChatTemplate, sequence: TokenSequence) -> bool:
    """Whether training on this sequence teaches where an answer ends."""
    return sequence.num_labels > 0 and sequence.completion[-1:] in [
        (template.stop_of(layout),) for layout in LAYOUTS
    ]


def place_of(example: Example) -> str:
    """Where an example was read, or its id."""
    return f"{example.file}:{example.line}" if example.file else f"example {example.id}"


OnDev = Callable[[Mapping[str, float]], None]
"""Told, each time that dev was asked while training, the score of each of its examples by id."""


def dev_score(
    weights: LocalWeights,
    model: Model,
    data: Data,
    examples: Sequence[Example],
    *,
    on_dev: OnDev | None = None,
) -> float:
    """The task's metric on held-out examples, seen through the wrappers.

    A hundredth of the mean probability of the right label is added where there are labels: a few dozen
    examples make many ties, and of two equally accurate models the surer one is further along.
    """
    weights.engine.weights_changed(weights.adapter)
    _, metric = default_metric(data.task)
    asked = on_weights(model, lambda _: weights)
    answers = asked.answer([data.task.ask(e) for e in examples])
    scores = [metric(e, a) for e, a in zip(examples, answers, strict=True)]
    if on_dev:
        on_dev({example.id: score for example, score in zip(examples, scores, strict=True)})
    score = sum(scores) / len(examples)
    sure = [(a.probabilities or {}).get(e.completion, 0.0) for e, a in zip(examples, answers, strict=True)]
    return score + 0.01 * sum(sure) / len(examples)
