"""A linear classifier's opinion, multiplied with the model's own: two that err differently, together.

The classifier knows which examples a message is near to, the language model what its words and the label's
say. Their product (Hinton 2002, "Training Products of Experts"), with how far to trust either fitted on
held-out examples, is right more often than both; and its probabilities can be taken at their word.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.embedding_linear import LabelClassifier, fit_classifier, load_classifier
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import Completion, Example, Prior, Request
from tailorbird.sources.embedder import default_embedder
from tailorbird.techniques.asking import answer_all
from tailorbird.techniques.calibration import own_log_p, product_of_two

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierPrior:
    """Puts the classifier's opinion, to the power of `weight`, into requests whose choices it knows all of.

    A prior that a request has already comes from a wrapper around this one: it weighs what this one makes of it.
    `max_dev` says to how many dev examples both exponents are fitted, 0 that they were given.
    """

    kind: ClassVar[str] = "linear_prior"

    classifier: LabelClassifier
    weight: float
    trust: float
    max_dev: int = 0

    def __call__(self, request: Request) -> Request:
        places = {label: n for n, label in enumerate(self.classifier.labels)}
        if request.choices is None or not all(choice in places for choice in request.choices):
            return request
        log_p_L = self.classifier.log_p(request.question)
        weights = [self.weight * float(log_p_L[places[choice]]) for choice in request.choices]
        outer = request.prior
        if outer is None:
            return replace(request, prior=Prior(tuple(weights), self.trust))
        both = [outer.trust * own + given for own, given in zip(weights, outer.log_weights, strict=True)]
        return replace(request, prior=Prior(tuple(both), outer.trust * self.trust))

    def unfitted(self) -> ClassifierPrior:
        """With both opinions at their word, unless the exponents were given."""
        return replace(self, weight=1.0, trust=1.0) if self.max_dev else self

    def fitted(self, base: Model, data: Data) -> ClassifierPrior:
        """With the exponents that fit the base's answers on dev, unless they were given."""
        if not self.max_dev:
            return self
        dev = data.dev[: self.max_dev]
        answers = answer_all(base, [data.task.ask(e) for e in dev], "linear_prior")
        weight, trust = fit_exponents(self.classifier, dev, answers)
        log.info("linear_prior: classifier to the power of %.2f, model %.2f.", weight, trust)
        return replace(self, weight=weight, trust=trust)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the classifier's weights."""
        self.classifier.save(folder / "classifier.safetensors")
        return {
            "labels": list(self.classifier.labels),
            "weight": self.weight,
            "trust": self.trust,
            "max_dev": self.max_dev,
        }


def load_prior(folder: Path, settings: dict[str, Any]) -> ClassifierPrior:
    """The prior that was saved in a folder."""
    classifier = load_classifier(folder / "classifier.safetensors", settings["labels"], default_embedder())
    return ClassifierPrior(classifier, settings["weight"], settings["trust"], settings["max_dev"])


@dataclass(frozen=True)
class LinearPrior:
    """Wraps a classifying model so that a linear classifier over sentence embeddings has its say too.

    How far to trust either is fitted to the model it wraps, and again when that is trained beneath it.

    Args:
        weight: exponent of the classifier's probabilities, above 0; None fits it on dev, with `trust`.
        trust: exponent of the model's own probabilities, above 0; likewise.
        max_dev: dev examples that are asked to fit them, at most.

    Raises:
        RecipeError: an exponent of 0 or less, or one without the other.
        DataError: the task is to answer freely; or there are no training examples, or none of a second label.
        Unsupported: the model tells no probabilities.
    """

    weight: float | None = None
    trust: float | None = None
    max_dev: int = 128

    def __post_init__(self) -> None:
        given = [exponent for exponent in (self.weight, self.trust) if exponent is not None]
        if len(given) == 1 or not all(exponent > 0 for exponent in given):
            raise RecipeError(
                f"linear_prior: weight is {self.weight} and trust is {self.trust}; expected two numbers above 0, or "
                "neither, to fit them on dev."
            )

    def apply(self, model: Model, data: Data) -> Model:
        if data.task.kind != "classify":
            raise DataError(
                "linear_prior: the task is to answer freely, and a classifier only knows labels. Leave it out, or "
                "give examples whose completions are few labels."
            )
        if not data.train:
            raise DataError("linear_prior: there are no training examples to fit. Give some with --examples.")
        classifier = fit_classifier(data.train, default_embedder())
        if self.weight is not None and self.trust is not None:
            return Wrapped(model, ClassifierPrior(classifier, self.weight, self.trust))
        return Wrapped(model, ClassifierPrior(classifier, 1.0, 1.0, self.max_dev).fitted(model, data))


def fit_exponents(
    classifier: LabelClassifier, examples: Sequence[Example], answers: Sequence[Completion]
) -> tuple[float, float]:
    """The classifier's and the model's exponent under which the right labels are likeliest; 1 and 1 of nothing.

    Raises:
        Unsupported: answers without probabilities.
    """
    places = {label: n for n, label in enumerate(classifier.labels)}
    own_log_p(answers, classifier.labels, "linear_prior")  # refuses answers without probabilities
    # An answer of no probabilities at all left no choice.
    known = [
        (e, a) for e, a in zip(examples, answers, strict=True) if a.probabilities and e.completion in places
    ]
    if not known:
        return 1.0, 1.0
    own_NL = own_log_p([a for _, a in known], classifier.labels, "linear_prior")
    other_NL = np.array([classifier.log_p(e.prompt) for e, _ in known])
    right_N = np.array([places[e.completion] for e, _ in known], dtype=np.intp)
    trust, weight, _ = product_of_two(own_NL, other_NL, right_N)
    return weight, trust
