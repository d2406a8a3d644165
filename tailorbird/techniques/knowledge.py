"""Knowledge: answer from outside sources instead of from what the weights happen to remember.

Retrieval-augmented generation (Lewis et al. 2020): passages that match the question are put before it
as numbered evidence. Where nothing matches well enough the answer is that the documents don't say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import NOT_IN_DOCUMENTS, Message, Request
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import reranker_of
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.relevance import fit_threshold, synced_index
from tailorbird.sources.source import Source

INSTRUCTION = (
    "Answer the question briefly, with words from the numbered passages. "
    f"If they do not hold the answer, say: {NOT_IN_DOCUMENTS}"
)
MOST_PASSAGES = 50


@dataclass(frozen=True)
class Lookup:
    """Puts the best passages of a source into a request's evidence.

    If even the best is less similar than `threshold`, the request is left one choice: to say that the
    documents don't tell. A closed set of the caller's is never narrowed.
    """

    kind: ClassVar[str] = "knowledge"

    source: Source = field(compare=False)
    k: int
    threshold: float
    instruction: str | None = INSTRUCTION

    def __call__(self, request: Request) -> Request:
        found = self.source.search(request.question, self.k)
        # A source without vectors gives no similarities to hold against a threshold.
        relevant = not found or max(p.score for p in found) >= self.threshold
        if request.choices is None and not (found and relevant):
            return replace(request, choices=(NOT_IN_DOCUMENTS,), evidence=())
        messages = request.messages
        if self.instruction is not None and request.choices is None:
            messages = (Message("system", self.instruction), *(m for m in messages if m.role != "system"))
        return replace(request, messages=messages, evidence=(*request.evidence, *found))

    def save(self, folder: Path) -> dict[str, Any]:
        """Copies the index beside the model, so that it answers from what was measured."""
        settings: dict[str, Any] = {"k": self.k, "threshold": self.threshold, "instruction": self.instruction}
        if not isinstance(self.source, KnowledgeIndex):
            settings["live"] = source_settings(self.source)
            return settings
        self.source.copy(folder / "index.db")
        return {**settings, "ranking": self.source.ranking.to_json()}


def source_settings(source: Source) -> dict[str, Any]:
    """What makes a live source again: its class's plug-in name and its fields."""
    from dataclasses import asdict, is_dataclass

    if not is_dataclass(source) or isinstance(source, type):
        raise RecipeError(
            f"knowledge: source {type(source).__name__} cannot be saved with a model. Make it a frozen "
            "dataclass and register it under the entry point 'tailorbird.sources'."
        )
    return {"source": type(source).__name__.lower(), **asdict(source)}


def load_lookup(folder: Path, settings: dict[str, Any]) -> Lookup:
    """The lookup that was saved in a folder."""
    rest = {key: value for key, value in settings.items() if key not in {"live", "ranking"}}
    if live := settings.get("live"):
        fields = {key: value for key, value in live.items() if key != "source"}
        return Lookup(_live_source(live["source"])(**fields), **rest)
    # Models that say nothing of it were measured when ranks were fused.
    ranking = Ranking(**settings.get("ranking", {"fusion": "ranks"}))
    index = KnowledgeIndex(
        folder / "index.db",
        default_embedder(),
        read_only=True,
        ranking=ranking,
        reranker=reranker_of(ranking),
    )
    return Lookup(index, **rest)


def _live_source(name: str) -> Callable[..., Source]:
    if name == "wikipedia":
        from tailorbird.sources.wikipedia import Wikipedia

        return Wikipedia
    for point in entry_points(group="tailorbird.sources"):
        if point.name == name:
            return point.load()
    raise Unsupported(
        f"knowledge: the model asks the live source {name!r}, which is not installed. "
        "Install the plug-in that it was made with."
    )


@dataclass(frozen=True)
class Knowledge:
    """Wraps a model so that it answers from documents or a live source.

    Args:
        k: passages put before the question, 1–50.
        threshold: similarity in [-1, 1] that the best passage must reach; None finds the one that
            tells the training examples with and without an answer in the documents apart best.
        documents: a folder; None takes the data's documents.
        source: a live source instead of a folder.
        instruction: replaces the task's for free answers; None keeps the task's.
        max_chars: length of a passage in characters.
        rerank: how many of the first passages are read again; None leaves it to the knowledge base, which
            does not unless told to.
        reranker: what reads them: empty for the embedder's own tokens, else a cross-encoder's folder or
            `hf:org/name`.

    Raises:
        RecipeError: k out of range.
        DataError: there are no documents.
    """

    k: int = 3
    threshold: float | None = None
    documents: Path | None = None
    source: Source | None = field(default=None, compare=False)
    instruction: str | None = INSTRUCTION
    max_chars: int = 600
    rerank: int | None = None
    reranker: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_PASSAGES:
            raise RecipeError(f"knowledge: k is {self.k}; expected 1 to {MOST_PASSAGES} passages.")

    def apply(self, model: Model, data: Data) -> Model:
        source = self.source
        if source is None:
            folder = self.documents or data.documents
            if folder is None:
                raise DataError(
                    "knowledge: there are no documents. Give a folder with --documents DIR or documents = "
                    '"DIR" '
                    "in tailor.toml, or leave the knowledge arms out."
                )
            source = synced_index(folder, self.max_chars)
            if self.rerank is not None:
                source.ranking = replace(source.ranking, rerank=self.rerank, reranker=self.reranker)
                source.reranker = reranker_of(source.ranking)
        threshold = self.threshold
        if threshold is None:
            threshold = fit_threshold(source, data.train, self.k) if self.source is None else -1.0
        return Wrapped(model, Lookup(source, self.k, threshold, self.instruction))
