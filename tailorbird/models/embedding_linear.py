"""A linear classifier over sentence embeddings: learns labels in seconds, from a handful of examples each.

A sentence encoder that was trained to tell meanings apart, with logistic regression on top, is the strongest
of what needs no training of a network (Tunstall et al. 2022, arXiv 2209.11055, whose second step this is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tailorbird.errors import DataError
from tailorbird.models.floors import answer_each, likeliest, owned_up
from tailorbird.models.model import Pieces, in_one_piece
from tailorbird.records import Completion, Example, Request
from tailorbird.sources.embedder import Embedder

INVERSE_PENALTY = 100.0
"""Of the squared weights: embeddings have length 1, so weights must be large to tell labels apart."""
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class LabelClassifier:
    """Log-probabilities of labels from a text's embedding e: log softmax(W·e + b).

    `weights_LD` is W, float64 [labels, dimensions]; `bias_L` is b.
    """

    labels: tuple[str, ...]
    weights_LD: npt.NDArray[np.float64]  # noqa: N815
    bias_L: npt.NDArray[np.float64]  # noqa: N815
    embedder: Embedder

    def log_p(self, text: str) -> npt.NDArray[np.float64]:
        """Of every label, in nats, [labels]."""
        scores_L = self.weights_LD @ self.embedder.embed([text])[0].astype(np.float64) + self.bias_L
        scores_L -= scores_L.max()
        return scores_L - np.log(np.exp(scores_L).sum())

    def save(self, path: Path) -> None:
        """Writes the weights as safetensors."""
        from safetensors.numpy import save_file

        tensors = {"weights": self.weights_LD, "bias": self.bias_L}
        # safetensors writes memory as it lies, and scikit-learn's weights lie column by column.
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, str(path))


def load_classifier(path: Path, labels: Sequence[str], embedder: Embedder) -> LabelClassifier:
    """What `LabelClassifier.save` wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(str(path))
    return LabelClassifier(tuple(labels), tensors["weights"], tensors["bias"], embedder)


def fit_classifier(examples: Sequence[Example], embedder: Embedder) -> LabelClassifier:
    """Logistic regression of the completions on the embeddings of the last user messages.

    Raises:
        DataError: fewer than two labels.
    """
    from sklearn.linear_model import LogisticRegression

    said = [e.completion for e in examples]
    if len(set(said)) < 2:
        raise DataError(
            f"linear classifier: the {len(said)} training examples have {len(set(said))} label(s); it needs two or "
            "more. Add examples of another label."
        )
    vectors_ND = embedder.embed([e.prompt for e in examples])
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_ITERATIONS).fit(vectors_ND, said)
    weights, bias = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if len(weights) == 1:  # of two labels it keeps the second one's lead
        weights, bias = np.vstack([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return LabelClassifier(tuple(map(str, fitted.classes_)), weights, bias, embedder)


@dataclass(frozen=True)
class EmbeddingLinear:
    """The classifier as a model of its own: a floor."""

    examples: tuple[Example, ...]
    embedder: Embedder
    name: str = "embedding_linear"
    num_parameters: int = 0

    @cached_property
    def classifier(self) -> LabelClassifier:
        """Fitted on the examples."""
        return fit_classifier(self.examples, self.embedder)

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return answer_each(requests, self._one)

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request) -> Completion:
        labels, log_p_L = self.classifier.labels, self.classifier.log_p(request.question)
        if request.choices is None:
            return owned_up(Completion(labels[int(log_p_L.argmax())]), self.embedder, request)
        chances = dict(zip(labels, np.exp(log_p_L).tolist(), strict=True))
        answer = likeliest({choice: chances.get(choice, 0.0) for choice in request.choices})
        return owned_up(answer, self.embedder, request)
