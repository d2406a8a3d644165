"""Few-shot: a metaprompt of the instruction and 3–5 examples of the task in front of every request.

Brown et al. 2020, "Language Models are Few-Shot Learners". Which examples are shown matters most:
the ones nearest to the request beat any fixed choice by far on tasks with many labels.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.folders import read_back, write_examples
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import Example, Message, Request
from tailorbird.sources.bm25 import BM25
from tailorbird.sources.embedder import Embedder, default_embedder
from tailorbird.sources.fusion import reciprocal_rank_fusion

Select = Literal["fixed", "balanced", "nearest"]
MOST_EXAMPLES = 16


@dataclass(frozen=True)
class Metaprompt:
    """Puts examples, as turns of the conversation, before the request's last user message.

    With `select` "nearest" the pool's most similar examples are shown, the most similar last; otherwise
    the pool itself is shown, the same for every request, so that its tokens are computed once.
    A request made from an example never gets that example, nor one with the same prompt.
    """

    kind: ClassVar[str] = "few_shot"

    pool: tuple[Example, ...]
    k: int
    select: Select
    instruction: str | None = None
    finder: NearestFinder | None = field(default=None, compare=False, repr=False)

    def __call__(self, request: Request) -> Request:
        shown = self.shown_for(request)
        last = max(
            (i for i, m in enumerate(request.messages) if m.role == "user"), default=len(request.messages)
        )
        turns: list[Message] = []
        for example in shown:
            turns.extend(m for m in example.messages if m.role != "system")
            turns.append(Message("assistant", example.completion))
        before = request.messages[:last]
        if self.instruction is not None:
            before = (Message("system", self.instruction), *(m for m in before if m.role != "system"))
        return replace(request, messages=(*before, *turns, *request.messages[last:]))

    def shown_for(self, request: Request) -> list[Example]:
        """The examples that this request gets, in the order shown."""
        banned = _same_prompt(request.question) if request.example_id else None
        allowed = [
            i
            for i, e in enumerate(self.pool)
            if e.id != request.example_id and (banned is None or _same_prompt(e.prompt) != banned)
        ]
        if self.select != "nearest" or self.finder is None:
            return [self.pool[i] for i in allowed[: self.k]]
        return [self.pool[i] for i in reversed(self.finder.nearest(request.question, self.k, set(allowed)))]

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the examples where a person can read and edit them, and their embeddings beside."""
        write_examples(folder / "examples.jsonl", self.pool)
        if self.finder is not None:
            from safetensors.numpy import save_file

            save_file({"vectors": self.finder.vectors}, str(folder / "vectors.safetensors"))
        settings = {"k": self.k, "select": self.select, "instruction": self.instruction}
        (folder / "metaprompt.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False))
        return settings


def load_metaprompt(folder: Path, settings: dict[str, Any]) -> Metaprompt:
    """The metaprompt that was saved in a folder."""
    pool = read_back(folder / "examples.jsonl")
    finder = None
    if settings["select"] == "nearest":
        from safetensors.numpy import load_file

        vectors = load_file(str(folder / "vectors.safetensors"))["vectors"]
        finder = NearestFinder([e.prompt for e in pool], default_embedder(), vectors)
    return Metaprompt(pool, settings["k"], settings["select"], settings["instruction"], finder)


class NearestFinder:
    """Ranks texts by likeness to a query: BM25 and embedding, fused by reciprocal rank."""

    def __init__(self, texts: Sequence[str], embedder: Embedder, vectors: np.ndarray | None = None) -> None:
        self.bm25 = BM25(list(texts))
        self.embedder = embedder
        self.vectors = embedder.embed(list(texts)) if vectors is None else vectors

    def nearest(self, query: str, k: int, allowed: set[int]) -> list[int]:
        """Indexes of the k most similar allowed texts, most similar first."""
        by_words = np.argsort(-self.bm25.scores(query), kind="stable")[:50]
        by_meaning = np.argsort(-(self.vectors @ self.embedder.embed([query])[0]), kind="stable")[:50]
        rankings = [[int(i) for i in ranking if int(i) in allowed] for ranking in (by_words, by_meaning)]
        return [i for i, _ in reciprocal_rank_fusion(rankings)][:k]


@dataclass(frozen=True)
class FewShot:
    """Wraps a model in a metaprompt.

    Args:
        k: examples shown, 0–16; typically 3–5.
        select: "nearest" finds the most similar for each request; "balanced" shows one set, spread
            over the labels; "fixed" shows the first `k` of the training examples.
        instruction: replaces the task's instruction; None keeps it.
        seed: of the balanced draw.

    Raises:
        RecipeError: k out of range or an unknown `select`.
    """

    k: int = 5
    select: Select = "nearest"
    instruction: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.k <= MOST_EXAMPLES:
            raise RecipeError(f"few_shot: k is {self.k}; expected 0 to {MOST_EXAMPLES}. 3 to 5 are typical.")
        if self.select not in ("fixed", "balanced", "nearest"):
            raise RecipeError(
                f"few_shot: select is {self.select!r}; expected 'fixed', 'balanced' or 'nearest'."
            )

    def apply(self, model: Model, data: Data) -> Model:
        if not data.train and self.k:
            raise DataError(
                f"few_shot: there are no training examples to show. Give some, or set k = 0 (now {self.k})."
            )
        if self.select == "nearest":
            finder = NearestFinder([e.prompt for e in data.train], default_embedder())
            return Wrapped(model, Metaprompt(tuple(data.train), self.k, "nearest", self.instruction, finder))
        # One more than shown, so that a training request loses itself and still gets k.
        chosen = data.train if self.select == "fixed" else balanced(data.train, self.seed)
        return Wrapped(model, Metaprompt(tuple(chosen[: self.k + 1]), self.k, self.select, self.instruction))


def balanced(examples: Sequence[Example], seed: int) -> list[Example]:
    """All examples, drawn round robin over completions: every start of the list is spread over them."""
    shuffled = sorted(examples, key=lambda e: e.id)
    random.Random(seed).shuffle(shuffled)
    groups: dict[str, list[Example]] = {}
    for example in shuffled:
        groups.setdefault(example.completion, []).append(example)
    queues, drawn = list(groups.values()), []
    while queues:
        drawn.extend(queue.pop(0) for queue in queues)
        queues = [queue for queue in queues if queue]
    return drawn


def _same_prompt(prompt: str) -> str:
    return " ".join(prompt.lower().split())
