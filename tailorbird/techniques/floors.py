"""The floors as techniques: what they fit replaces the weights, so that any comparison may include them."""

from __future__ import annotations

from dataclasses import dataclass

from tailorbird.data.task import Data
from tailorbird.errors import DataError
from tailorbird.models.blank import Blank
from tailorbird.models.embedding_linear import EmbeddingLinear
from tailorbird.models.floors import Majority, NearestExample, NearestSentence, TfidfLinear
from tailorbird.models.model import Model, on_weights
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.relevance import fit_threshold, synced_index


@dataclass(frozen=True)
class BlankFloor:
    """Knows nothing at all."""

    def apply(self, model: Model, data: Data) -> Model:  # noqa: ARG002 - it learns nothing
        return on_weights(model, lambda _: Blank())


@dataclass(frozen=True)
class MajorityFloor:
    """Always the most frequent completion."""

    def apply(self, model: Model, data: Data) -> Model:
        _need_examples("majority", data)
        return on_weights(model, lambda _: Majority(tuple(data.train)))


@dataclass(frozen=True)
class TfidfFloor:
    """TF-IDF and a linear classifier; for classification only."""

    def apply(self, model: Model, data: Data) -> Model:
        _need_examples("tfidf_linear", data)
        _need_labels("tfidf_linear", data)
        floor = TfidfLinear(tuple(data.train))
        _ = floor.pipeline  # fit now: building is what is timed as training
        return on_weights(model, lambda _: floor)


@dataclass(frozen=True)
class EmbeddingFloor:
    """Sentence embeddings and a linear classifier; for classification only."""

    def apply(self, model: Model, data: Data) -> Model:
        _need_examples("embedding_linear", data)
        _need_labels("embedding_linear", data)
        floor = EmbeddingLinear(tuple(data.train), default_embedder())
        _ = floor.classifier
        return on_weights(model, lambda _: floor)


@dataclass(frozen=True)
class NearestFloor:
    """The nearest example's completion; for free answers over documents the best passages' best sentence."""

    max_chars: int = 600

    def apply(self, model: Model, data: Data) -> Model:
        if data.task.kind == "answer" and data.documents is not None:
            index = synced_index(data.documents, self.max_chars)
            sentence = NearestSentence(index, default_embedder(), fit_threshold(index, data.train, 3))
            return on_weights(model, lambda _: sentence)
        _need_examples("nearest", data)
        floor = NearestExample(tuple(data.train), default_embedder())
        _ = floor.vectors
        return on_weights(model, lambda _: floor)


def _need_examples(name: str, data: Data) -> None:
    if not data.train:
        raise DataError(f"floor {name!r}: there are no training examples to fit. Give some with --examples.")


def _need_labels(name: str, data: Data) -> None:
    if data.task.kind != "classify":
        raise DataError(
            f"floor {name!r}: the task is to answer freely, and a classifier only knows labels. "
            "Leave this arm out, or give examples whose completions are few labels."
        )
