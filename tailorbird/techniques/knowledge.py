"""Knowledge: answer from outside sources instead of from what the weights happen to remember.

Retrieval-augmented generation (Lewis et al. 2020): passages that match the question are put before it
as numbered evidence. Where nothing matches well enough the answer is that the documents don't say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.model import Model, Wrapped
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import reranker_of
from tailorbird.sources.live_sources import LiveSource
from tailorbird.sources.merged import Merged
from tailorbird.sources.relevance import (
    UNCALIBRATED_THRESHOLD,
    fit_relevance,
    fit_threshold,
    synced_index,
)
from tailorbird.sources.source import Source
from tailorbird.techniques.grounding import missing_share
from tailorbird.techniques.lookup import INSTRUCTION, Lookup

MOST_PASSAGES = 50


@dataclass(frozen=True)
class Knowledge:
    """Wraps a model so that it answers from documents or a live source.

    Args:
        k: passages put before the question, 1–50.
        threshold: similarity in [-1, 1] that the best passage must reach; None finds a gate that tells the
            training examples with and without an answer in the documents apart best.
        documents: a folder; None takes the data's documents.
        sources: live sources that are asked beside the documents, or alone where there are none.
        source: a source of a program's own instead of all these.
        instruction: replaces the task's for free answers; None keeps the task's.
        max_chars: length of a passage in characters.
        missing: the share of the examples, 0–1, that fine-tuning beneath sees a second time without what holds
            their answer, to learn to say so. None: as many as make one in ten that is to be refused.
        check_answers: whether an answer is withheld where the evidence holds too little of it; how much that is, is
            found on the dev examples.
        rerank: how many of the first passages are read again; None leaves it to the knowledge base, which
            does not unless told to.
        reranker: what reads them: empty for the embedder's own tokens, else a cross-encoder's folder or
            `hf:org/name`.

    Raises:
        RecipeError: k or missing out of range, or two sources of one name.
        DataError: there are neither documents nor sources.
    """

    k: int = 3
    threshold: float | None = None
    documents: Path | None = None
    sources: tuple[LiveSource, ...] = ()
    source: Source | None = field(default=None, compare=False)
    instruction: str | None = INSTRUCTION
    max_chars: int = 600
    missing: float | None = None
    check_answers: bool = True
    rerank: int | None = None
    reranker: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_PASSAGES:
            raise RecipeError(f"knowledge: k is {self.k}; expected 1 to {MOST_PASSAGES} passages.")
        if self.missing is not None and not 0 <= self.missing <= 1:
            raise RecipeError(f"knowledge: missing is {self.missing}; expected a share of 0 to 1.")
        if self.reranker and not self.rerank:
            raise RecipeError(
                f"knowledge: reranker is {self.reranker!r}, but rerank is {self.rerank}, so it would read nothing. "
                "Set rerank to 10 or 20, or leave the reranker out."
            )
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RecipeError(f"knowledge: the source {twice[0]!r} is named twice. Name every source once.")

    def apply(self, model: Model, data: Data) -> Model:
        missing = missing_share(data.train) if self.missing is None else self.missing
        lookup = replace(self._lookup(data), missing=missing)
        return Wrapped(model, lookup.fitted(model, data))

    def _lookup(self, data: Data) -> Lookup:
        if self.source is not None:
            return self._over(self.source, -1.0)
        index = self._index(data)
        if self.sources:
            # Live passages have similarities of the same kind, and nobody is asked live for it: see decision 29.
            threshold = UNCALIBRATED_THRESHOLD if index is None else fit_threshold(index, data.train, self.k)
            return self._over(Merged(self.sources, index), threshold)
        assert index is not None
        relevance = fit_relevance(index, data.train, self.k) if self.threshold is None else None
        return replace(self._over(index, UNCALIBRATED_THRESHOLD), relevance=relevance)

    def _over(self, source: Source, threshold: float) -> Lookup:
        """The lookup in a source, with this threshold where none was given."""
        return Lookup(
            source,
            self.k,
            threshold if self.threshold is None else self.threshold,
            self.instruction,
            checked=self.check_answers,
        )

    def _index(self, data: Data) -> KnowledgeIndex | None:
        """The documents' index; None where there are live sources only."""
        folder = self.documents or data.documents
        if folder is not None:
            index = synced_index(folder, self.max_chars)
            if self.rerank is not None:
                index.ranking = replace(index.ranking, rerank=self.rerank, reranker=self.reranker)
                index.reranker = reranker_of(index.ranking)
            return index
        if self.sources:
            if self.rerank:
                raise RecipeError(
                    f"knowledge: rerank is {self.rerank}, but there are no documents whose passages would be read "
                    "again: live sources rank theirs. Leave rerank out, or give documents."
                )
            return None
        raise DataError(
            'knowledge: there are no documents. Give a folder with --documents DIR or documents = "DIR" in '
            "tailor.toml, or a live source with --source NAME, or leave the knowledge arms out."
        )
