"""Knowledge: answer from outside sources instead of from what the weights happen to remember.

Retrieval-augmented generation (Lewis et al. 2020): passages that match the question are put before it
as numbered evidence. Where nothing matches well enough the answer is that the documents don't say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.model import Model, Wrapped
from tailorbird.records import NOT_IN_DOCUMENTS, Message, Request
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.live_sources import LiveSource, kind_of, saved_source, with_tuples
from tailorbird.sources.merged import Merged, look_up
from tailorbird.sources.relevance import UNCALIBRATED_THRESHOLD, fit_threshold, synced_index
from tailorbird.sources.source import Source

INSTRUCTION = (
    "Answer the question briefly, with words from the numbered passages. "
    f"If they do not hold the answer, say: {NOT_IN_DOCUMENTS}"
)
MOST_PASSAGES = 50
INDEX = "index.db"


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
        asked = look_up(self.source, request.question, self.k)
        found = asked.passages
        request = replace(request, lacking=(*request.lacking, *asked.lacking))
        # A source without vectors gives no similarities to hold against a threshold.
        relevant = not found or max(p.score for p in found) >= self.threshold
        if request.choices is None and not (found and relevant):
            return replace(request, choices=(NOT_IN_DOCUMENTS,), evidence=())
        messages = request.messages
        if self.instruction is not None and request.choices is None:
            messages = (Message("system", self.instruction), *(m for m in messages if m.role != "system"))
        return replace(request, messages=messages, evidence=(*request.evidence, *found))

    def save(self, folder: Path) -> dict[str, Any]:
        """Copies the index beside the model, so that it answers from what was measured; of live sources, settings."""
        settings: dict[str, Any] = {"k": self.k, "threshold": self.threshold, "instruction": self.instruction}
        source = self.source
        if isinstance(source, Merged):
            settings["sources"] = [_live(one).to_json() for one in source.live]
            source = source.index
        if isinstance(source, KnowledgeIndex):
            source.copy(folder / INDEX)
        elif source is not None:
            settings["live"] = source_settings(source)
        return settings


def _live(source: object) -> LiveSource:
    if not isinstance(source, LiveSource):
        raise RecipeError(
            f"knowledge: {type(source).__name__} is merged but no LiveSource, so it can't be saved with a model. Name "
            "it in Knowledge(sources=(LiveSource(name, kind, settings),))."
        )
    return source


def source_settings(source: Source) -> dict[str, Any]:
    """What makes a live source again: its class's plug-in name and its fields."""
    from dataclasses import fields, is_dataclass

    if isinstance(source, LiveSource):
        return source.to_json()
    if not is_dataclass(source) or isinstance(source, type):
        raise RecipeError(
            f"knowledge: source {type(source).__name__} cannot be saved with a model. Make it a frozen "
            "dataclass and register it under the entry point 'tailorbird.sources'."
        )
    settings = {f.name: getattr(source, f.name) for f in fields(source) if f.init and f.compare}
    return {"source": kind_of(source), **settings}


def load_lookup(folder: Path, settings: dict[str, Any]) -> Lookup:
    """The lookup that was saved in a folder."""
    rest = {key: value for key, value in settings.items() if key not in {"live", "sources"}}
    source = _saved_source(folder, settings.get("live"))
    if sources := settings.get("sources"):
        return Lookup(Merged(tuple(saved_source(one) for one in sources), source), **rest)
    assert source is not None, f"{folder} holds neither an index nor a source"
    return Lookup(source, **rest)


def _saved_source(folder: Path, live: dict[str, Any] | None) -> Source | None:
    if live is None:
        path = folder / INDEX
        return KnowledgeIndex(path, default_embedder(), read_only=True) if path.is_file() else None
    if "kind" in live:
        return saved_source(live)
    own = {key: value for key, value in live.items() if key != "source"}
    return LiveSource(live["source"], live["source"], with_tuples(own)).source


@dataclass(frozen=True)
class Knowledge:
    """Wraps a model so that it answers from documents or a live source.

    Args:
        k: passages put before the question, 1–50.
        threshold: similarity in [-1, 1] that the best passage must reach; None finds the one that
            tells the training examples with and without an answer in the documents apart best.
        documents: a folder; None takes the data's documents.
        sources: live sources that are asked beside the documents, or alone where there are none.
        source: a source of a program's own instead of all these.
        instruction: replaces the task's for free answers; None keeps the task's.
        max_chars: length of a passage in characters.

    Raises:
        RecipeError: k out of range, or two sources of one name.
        DataError: there are neither documents nor sources.
    """

    k: int = 3
    threshold: float | None = None
    documents: Path | None = None
    sources: tuple[LiveSource, ...] = ()
    source: Source | None = field(default=None, compare=False)
    instruction: str | None = INSTRUCTION
    max_chars: int = 600

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_PASSAGES:
            raise RecipeError(f"knowledge: k is {self.k}; expected 1 to {MOST_PASSAGES} passages.")
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RecipeError(f"knowledge: the source {twice[0]!r} is named twice. Name every source once.")

    def apply(self, model: Model, data: Data) -> Model:
        if self.source is not None:
            threshold = -1.0 if self.threshold is None else self.threshold
            return Wrapped(model, Lookup(self.source, self.k, threshold, self.instruction))
        index = self._index(data)
        threshold = self.threshold
        if threshold is None:
            # Live passages have similarities of the same kind, and nobody is asked live for it: see decision 29.
            threshold = (
                fit_threshold(index, data.train, self.k) if index is not None else UNCALIBRATED_THRESHOLD
            )
        source = Merged(self.sources, index) if self.sources else index
        assert source is not None
        return Wrapped(model, Lookup(source, self.k, threshold, self.instruction))

    def _index(self, data: Data) -> KnowledgeIndex | None:
        """The documents' index; None where there are live sources only."""
        folder = self.documents or data.documents
        if folder is not None:
            return synced_index(folder, self.max_chars)
        if self.sources:
            return None
        raise DataError(
            'knowledge: there are no documents. Give a folder with --documents DIR or documents = "DIR" in '
            "tailor.toml, or a live source with --source NAME, or leave the knowledge arms out."
        )
