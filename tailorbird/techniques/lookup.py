"""What `knowledge` puts around a model: passages in front of a question, and the answer held against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tailorbird.data.citing import cited, support_for
from tailorbird.data.task import Data
from tailorbird.errors import RecipeError
from tailorbird.evaluation.metrics import is_refusal, is_unanswerable
from tailorbird.models.model import Model
from tailorbird.records import NOT_IN_DOCUMENTS, Completion, Example, Message, Passage, Request
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.gate import Gate
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import reranker_of
from tailorbird.sources.live_sources import LiveSource, kind_of, saved_source, with_tuples
from tailorbird.sources.merged import Found, Merged, look_up
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.relevance import NEIGHBOURS, relevance_figures
from tailorbird.sources.source import Source
from tailorbird.techniques.chat_queries import leans_on_what_was_said, search_queries
from tailorbird.techniques.grounding import FURTHER, fit_ground, ground_figures, with_gold, without_gold

INSTRUCTION = (
    "Answer the question briefly, with words from the numbered passages. "
    f"If they do not hold the answer, say: {NOT_IN_DOCUMENTS}"
)
INDEX = "index.db"


@dataclass(frozen=True)
class Lookup:
    """Puts the best passages of a source into a request's evidence, and holds the answer against them.

    A free answer passes two gates. Before it: where what was found has too little to do with the question, the request
    is left one choice, to say that the documents don't tell. `relevance` decides it, or without one the similarity
    `threshold` of the best passage. After it: where the evidence holds too little of the answer, by the gate `ground`,
    it is withheld. A closed set of the caller's is never narrowed. Only what the request's `only` allows is looked up.

    `missing` is the share of the examples that training sees a second time, without what holds their answer.
    """

    kind: ClassVar[str] = "knowledge"

    source: Source = field(compare=False)
    k: int
    threshold: float
    instruction: str | None = INSTRUCTION
    relevance: Gate | None = None
    ground: Gate | None = None
    missing: float = 0.0
    checked: bool = True

    def __call__(self, request: Request) -> Request:
        k = self.k if self.relevance is None else max(self.k, NEIGHBOURS)
        rankings = self._rankings(request, k)
        asked = _fused(rankings, k)
        request = replace(request, lacking=(*request.lacking, *asked.lacking))
        # A conversation speaks of what the documents hold; whether the question does is judged by what it finds alone.
        alone = not leans_on_what_was_said(request.question)
        judged = rankings[0] if alone else asked
        if request.choices is None and not self._speaks_to(request.question, judged.passages):
            return replace(request, choices=(NOT_IN_DOCUMENTS,), evidence=())
        return self.shown(request, asked.passages[: self.k])

    def found(self, request: Request, k: int) -> list[Passage]:
        """At most k passages for the request, as its conversation makes it understood."""
        return list(_fused(self._rankings(request, k), k).passages)

    def _rankings(self, request: Request, k: int) -> list[Found]:
        queries = search_queries(request.messages)
        # Several short rankings would be fused by little more than who comes first in each.
        depth = k if len(queries) == 1 else max(k, NEIGHBOURS)
        return [look_up(self.source, query, depth, request.only) for query in queries]

    def shown(self, request: Request, evidence: Sequence[Passage]) -> Request:
        """The request with these passages, and for a free answer with what to do with them."""
        messages = request.messages
        if self.instruction is not None and request.choices is None:
            messages = (Message("system", self.instruction), *(m for m in messages if m.role != "system"))
        return replace(request, messages=messages, evidence=(*request.evidence, *evidence))

    def lessons(self, example: Example, request: Request) -> Sequence[tuple[Example, Request]]:
        """The example with what holds its answer among the passages, and now and then without: see `grounding`."""
        if request.choices is not None or is_unanswerable(example):
            return [(example, self(request))]
        found = self.found(request, self.k + FURTHER)
        told = [(example, self.shown(request, with_gold(example, found, self.k)))]
        if without := without_gold(example, found, self.k, self.missing):
            refused = replace(example, completion=NOT_IN_DOCUMENTS)
            if example.rejected is not None:
                refused = replace(refused, rejected=example.completion)
            told.append((refused, self.shown(request, without)))
        return told

    @property
    def may_replace(self) -> bool:
        """An answer can be withheld where there is a gate behind it."""
        return self.ground is not None

    def review(self, completion: Completion) -> Completion:
        """The completion with citations; without enough ground, the answer that the documents don't tell."""
        asked = completion.asked
        if asked is None or asked.choices is not None or is_refusal(completion.text):
            return completion
        support = support_for(completion)
        # A refusal is no document of a schema's; of an answer whose passages had no room nothing is held.
        if self.ground is None or asked.schema is not None or not completion.text.strip():
            return cited(completion, support) if support else completion
        if support and self.ground.passes(ground_figures(completion, support)):
            return cited(completion, support)
        held = support.share if support else 0.0
        return replace(completion, text=NOT_IN_DOCUMENTS, withheld=completion.text, support=held)

    def unfitted(self) -> Lookup:
        """The same without the gate that was fitted to a model's answers."""
        return replace(self, ground=None)

    def fitted(self, base: Model, data: Data) -> Lookup:
        """The same with the gate behind the answers fitted to those of `base` to the dev examples."""
        if not self.checked or data.task.kind == "classify":
            return self.unfitted()
        return replace(self, ground=fit_ground(self.unfitted(), base, data))

    def save(self, folder: Path) -> dict[str, Any]:
        """Copies the index beside the model, so that it answers from what was measured; of live sources, settings."""
        settings: dict[str, Any] = {
            "k": self.k,
            "threshold": self.threshold,
            "instruction": self.instruction,
            "missing": self.missing,
            "checked": self.checked,
            **{name: gate.to_json() for name, gate in self._gates().items()},
        }
        source = self.source
        if isinstance(source, Merged):
            settings["sources"] = [_live(one).to_json() for one in source.live]
            source = source.index
        if isinstance(source, KnowledgeIndex):
            source.copy(folder / INDEX)
            settings["ranking"] = source.ranking.to_json()
        elif source is not None:
            settings["live"] = source_settings(source)
        return settings

    def _gates(self) -> dict[str, Gate]:
        gates = {"relevance": self.relevance, "ground": self.ground}
        return {name: gate for name, gate in gates.items() if gate is not None}

    def _speaks_to(self, question: str, found: Sequence[Passage]) -> bool:
        if not found:
            return False
        if self.relevance is not None:
            return self.relevance.passes(relevance_figures(question, found, self.k))
        # A source without vectors gives no similarities to hold against a threshold.
        return max(p.score for p in found[: self.k]) >= self.threshold


def _fused(rankings: Sequence[Found], k: int) -> Found:
    if len(rankings) == 1:
        return rankings[0]
    by_id = {p.id: p for found in reversed(rankings) for p in found.passages}
    fused = reciprocal_rank_fusion([[p.id for p in found.passages] for found in rankings])
    lacking = dict.fromkeys(reason for found in rankings for reason in found.lacking)
    return Found(tuple(by_id[name] for name, _ in fused[:k]), tuple(lacking))


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
    rest = {key: value for key, value in settings.items() if key not in {"live", "sources", "ranking"}}
    rest |= {name: Gate.from_json(rest[name]) for name in ("relevance", "ground") if name in rest}
    # Models that say nothing of it were measured when ranks were fused.
    ranking = Ranking(**settings.get("ranking", {"fusion": "ranks"}))
    source = _saved_source(folder, settings.get("live"), ranking)
    if sources := settings.get("sources"):
        return Lookup(Merged(tuple(saved_source(one) for one in sources), source), **rest)
    assert source is not None, f"{folder} holds neither an index nor a source"
    return Lookup(source, **rest)


def _saved_source(folder: Path, live: dict[str, Any] | None, ranking: Ranking) -> Source | None:
    path = folder / INDEX
    if live is None and not path.is_file():
        return None
    if live is None:
        reader = reranker_of(ranking)
        return KnowledgeIndex(path, default_embedder(), read_only=True, ranking=ranking, reranker=reader)
    if "kind" in live:
        return saved_source(live)
    own = {key: value for key, value in live.items() if key != "source"}
    return LiveSource(live["source"], live["source"], with_tuples(own)).source
