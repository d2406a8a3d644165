"""The fitted floors: what any customization must beat to be worth its trouble. They run in milliseconds.

Each is fitted from examples alone and is refitted from them when loaded, so nothing is unpickled.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tailorbird.errors import DataError
from tailorbird.models.model import Pieces, in_one_piece
from tailorbird.models.request_checks import check_request, refuse_bounds, weighed
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, Request
from tailorbird.sources.embedder import MAX_TOKENS, Embedder, MiniLM
from tailorbird.sources.index import KnowledgeIndex

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def answer_each(requests: Sequence[Request], one: Callable[[Request], Completion]) -> list[Completion]:
    """Answers one by one with the time of each."""
    answers = []
    for request in requests:
        check_request(request)
        refuse_bounds(request, "floor")
        started = time.perf_counter()
        answer = one(request)
        answers.append(
            replace(weighed(answer, request), seconds=time.perf_counter() - started, asked=request)
        )
    return answers


def _chosen(text: str, request: Request) -> Completion:
    """An answer that is one of the choices where there are choices."""
    if request.choices is None:
        return Completion(text)
    return likeliest({c: float(c == text) for c in request.choices})


def likeliest(scores: dict[str, float]) -> Completion:
    """The choice of the highest score, ties by order; where none has any, all are equally likely."""
    total = sum(scores.values())
    probabilities = {c: score / total if total else 1 / len(scores) for c, score in scores.items()}
    return Completion(max(scores, key=lambda c: scores[c]), "choice", probabilities=probabilities)


def owned_up(answer: Completion, embedder: Embedder, request: Request) -> Completion:
    """The answer, with a word on it where the embedder did not read the whole question."""
    if not isinstance(embedder, MiniLM) or embedder.reads_whole(request.question):
        return answer
    return replace(answer, dropped=(*answer.dropped, f"the message but for its first {MAX_TOKENS} tokens"))


@dataclass(frozen=True)
class Majority:
    """Always says the most frequent completion of the training examples."""

    examples: tuple[Example, ...]
    name: str = "majority"
    num_parameters: int = 0

    @cached_property
    def shares(self) -> dict[str, float]:
        """Every completion's share of the examples, most frequent first, ties by text."""
        counts = Counter(e.completion for e in self.examples)
        return {
            c: n / len(self.examples) for c, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        }

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return answer_each(requests, self._one)

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request) -> Completion:
        if request.choices is None:
            return Completion(next(iter(self.shares)))
        return likeliest({c: self.shares.get(c, 0.0) for c in request.choices})


@dataclass(frozen=True)
class TfidfLinear:
    """Words (1–2) and characters (2–5) weighted by TF-IDF, and a linear support vector classifier."""

    examples: tuple[Example, ...]
    name: str = "tfidf_linear"
    num_parameters: int = 0

    @cached_property
    def pipeline(self) -> Any:
        """The fitted scikit-learn pipeline."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline, make_union
        from sklearn.svm import LinearSVC

        labels = [e.completion for e in self.examples]
        if len(set(labels)) < 2:
            raise DataError(
                f"floor 'tfidf_linear': the {len(labels)} training examples have {len(set(labels))} "
                "label(s); a classifier needs two or more. Add examples of another label."
            )
        features = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        )
        return make_pipeline(features, LinearSVC(random_state=0)).fit(
            [e.prompt for e in self.examples], labels
        )

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """All at once: on one message the machinery around it takes most of the time."""
        for request in requests:
            check_request(request)
            refuse_bounds(request, "floor")
        if not requests:
            return []
        started = time.perf_counter()
        # [N, labels], or [N] for two labels, of which it is the second one's.
        margins = self.pipeline.decision_function([request.question for request in requests])
        found = [weighed(self._one(r, row), r) for r, row in zip(requests, margins, strict=True)]
        each = (time.perf_counter() - started) / len(requests)
        return [replace(a, seconds=each, asked=r) for a, r in zip(found, requests, strict=True)]

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request, margins: Any) -> Completion:
        margins = np.atleast_1d(margins)
        classes = list(self.pipeline.classes_)
        scores = dict(zip(classes, (-margins[0], margins[0]) if len(classes) == 2 else margins, strict=True))
        if request.choices is None:
            return Completion(max(classes, key=lambda c: (scores[c], c)))
        # The margins order the labels; as probabilities they are only a monotone stand-in.
        return likeliest({c: float(np.exp(scores[c])) if c in scores else 0.0 for c in request.choices})


@dataclass(frozen=True)
class NearestExample:
    """Says what the most similar training example says (cosine of sentence embeddings)."""

    examples: tuple[Example, ...]
    embedder: Embedder
    name: str = "nearest"
    num_parameters: int = 0

    @cached_property
    def vectors(self) -> np.ndarray:
        """The training prompts' embeddings, [N, D]."""
        return self.embedder.embed([e.prompt for e in self.examples])

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return answer_each(requests, self._one)

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request) -> Completion:
        similarity = self.vectors @ self.embedder.embed([request.question])[0]
        order = np.argsort(-similarity, kind="stable")
        said = (self.examples[int(i)].completion for i in order)
        nearest = next((text for text in said if request.choices is None or text in request.choices), "")
        return owned_up(_chosen(nearest, request), self.embedder, request)


@dataclass(frozen=True)
class NearestSentence:
    """Says the sentence of the best passages that is most similar to the question.

    Below `threshold` (the similarity of question and best passage) it says that the documents don't tell.
    """

    index: KnowledgeIndex
    embedder: Embedder
    threshold: float
    name: str = "nearest"
    num_parameters: int = 0

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return answer_each(requests, self._one)

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request) -> Completion:
        found = self.index.search(request.question, 3, only=request.only)
        if not found or max(p.score for p in found) < self.threshold:
            return _chosen(NOT_IN_DOCUMENTS, request)
        sentences = [s.strip() for p in found for s in _SENTENCE_END.split(p.text) if len(s.split()) > 2]
        sentences = sentences or [found[0].text]
        similarity = self.embedder.embed(sentences) @ self.embedder.embed([request.question])[0]
        return _chosen(sentences[int(similarity.argmax())], request)
