"""How well an index finds the documents that hold the answers, and how closely its passages enclose them.

Measured on questions whose document is known: by words, by meaning and by both. A document's rank is that of
its first passage. Where an answer stands is what its example says, or the one place of its document that reads
like it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailorbird.errors import DataError
from tailorbird.evaluation.abstention import AbstentionCurve, abstention_curve
from tailorbird.evaluation.passage_overlap import Span, overlap
from tailorbird.evaluation.refusing import RefusalScores, refusal_scores
from tailorbird.evaluation.statistics import Interval, score_interval
from tailorbird.records import NOT_IN_DOCUMENTS, Example, Passage
from tailorbird.sources.index import KnowledgeIndex

DEPTH = 10
"""Documents of a ranking that count."""
PASSAGES_A_DOCUMENT = 5
"""Passages that are looked up for each of them: a document may come with several."""
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class RankingScores:
    """One way of ranking: its mean scores with 95 % intervals, by metric, and seconds a question takes."""

    name: str
    scores: Mapping[str, Interval]
    median_s: float


@dataclass(frozen=True)
class PassageScores:
    """How the `k` passages a model would be given overlap the answers: `recall`, `precision` and `iou`, each in
    [0, 1], of `questions` whose answer's place is known. `characters` is how many a model would read, on average.
    """

    k: int
    questions: int
    scores: Mapping[str, Interval]
    characters: float


@dataclass(frozen=True)
class RetrievalReport:
    """What was found. `unknown` counts questions whose document is not in the index, which none can find."""

    questions: int
    unknown: int
    rankings: tuple[RankingScores, ...]
    refusal: RefusalScores | None
    passages: PassageScores | None = None
    abstention: tuple[AbstentionCurve, ...] = ()
    synthetic: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rows = [
            {
                "ranking": ranking.name,
                "median_s": round(ranking.median_s, 4),
                **_intervals(ranking.scores),
            }
            for ranking in self.rankings
        ]
        found = self.passages
        passages = found and {
            "k": found.k,
            "questions": found.questions,
            "characters": round(found.characters, 1),
            **_intervals(found.scores),
        }
        return {
            "questions": self.questions,
            "synthetic": self.synthetic,
            "unknown": self.unknown,
            "rankings": rows,
            "passages": passages,
            "refusal": _refusal(self.refusal) if self.refusal else None,
            "abstention": [curve.to_json() for curve in self.abstention],
        }


def evaluate_retrieval(index: KnowledgeIndex, examples: Sequence[Example], k: int = 3) -> RetrievalReport:
    """Asks an index every question whose document is known, three ways.

    Args:
        index: what is asked.
        examples: questions; those with a `document` are ranked, and those to be refused tell when to refuse.
        k: passages that a model would be given, of which the best decides whether it answers.

    Raises:
        DataError: no example names its document.
    """
    asked = with_documents(examples)
    known = index.document_names()
    ways: dict[str, Callable[[str, int], list[Passage]]] = {
        "words": index.keyword_search,
        "meaning": index.vector_search,
        "both": index.search,
    }
    rankings = tuple(_ranking(name, search, asked) for name, search in ways.items())
    unknown = sum(e.document not in known for e in asked)
    return RetrievalReport(
        len(asked),
        unknown,
        rankings,
        refusal_scores(index, examples, k),
        passage_scores(index, asked, k),
        abstention_curves(index, examples, k),
        synthetic=sum(e.synthetic for e in asked),
    )


def with_documents(examples: Sequence[Example]) -> list[Example]:
    """The questions whose document is known.

    Raises:
        DataError: no example names its document.
    """
    asked = [e for e in examples if e.document is not None and e.completion != NOT_IN_DOCUMENTS]
    if not asked:
        raise DataError(
            f'knowledge: none of {len(examples)} examples names its document. Give rows with "document": the name of '
            "the document that holds the answer, as `tailor knowledge search` shows it."
        )
    return asked


def rank_scores(ranked: Sequence[str], relevant: Collection[str], depth: int = DEPTH) -> dict[str, float]:
    """Recall, reciprocal rank and nDCG of one ranking, each in [0, 1].

    nDCG divides the sum of 1 / log2(rank + 1) over the relevant ones by the most it could be (Järvelin & Kekäläinen
    2002, with gains of 0 and 1).

    >>> rank_scores(["b", "a"], {"a"})["mrr@10"]
    0.5
    """
    hits = [rank for rank, name in enumerate(ranked[:depth], 1) if name in relevant]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(depth, len(relevant)) + 1))
    found = {f"recall@{n}": sum(rank <= n for rank in hits) / len(relevant) for n in RECALLS}
    found[f"ndcg@{depth}"] = sum(1 / math.log2(rank + 1) for rank in hits) / best
    found[f"mrr@{depth}"] = 1 / hits[0] if hits else 0.0
    return found


def passage_scores(index: KnowledgeIndex, asked: Sequence[Example], k: int) -> PassageScores | None:
    """How the first `k` passages overlap the answers; None where no answer's place is known."""
    rows: list[dict[str, float]] = []
    read: list[int] = []
    for example in asked:
        place = answer_place(index, example)
        if place is None:
            continue
        spans = [(p.document, p.start, p.end) for p in index.search(example.prompt, k)]
        found = overlap(spans, [place])
        rows.append({"recall": found.recall, "precision": found.precision, "iou": found.iou})
        read.append(sum(end - start for _, start, end in spans))
    if not rows:
        return None
    scores = {name: score_interval([row[name] for row in rows]) for name in rows[0]}
    return PassageScores(k, len(rows), scores, float(np.mean(read)))


def answer_place(index: KnowledgeIndex, example: Example) -> Span | None:
    """Where an answer stands: its example's span, or the one place of its document that reads like the completion.

    None where its document is not there, or holds these words nowhere or more than once.
    """
    if example.document is None:
        return None
    passages = index.passages_of(example.document)
    if example.span is not None:
        return (example.document, *example.span) if passages else None
    words = re.escape(example.completion.strip())
    found = [
        (example.document, p.start + match.start(), p.start + match.end())
        for p in passages
        for match in re.finditer(rf"(?<!\w){words}(?!\w)", p.text, re.IGNORECASE)
        if words
    ]
    return found[0] if len(found) == 1 else None


def abstention_curves(
    index: KnowledgeIndex, examples: Sequence[Example], k: int
) -> tuple[AbstentionCurve, ...]:
    """What two scores of the best passage tell of an answer: its similarity, and its BM25 by words.

    Of a question that the documents answer it can be right where its document is among the first `k` passages; of
    one they don't answer it can't. Questions that say neither are left out.
    """
    known = [e for e in examples if e.document is not None or e.completion == NOT_IN_DOCUMENTS]
    found = [index.search(e.prompt, k) for e in known]
    right = [
        e.completion != NOT_IN_DOCUMENTS and e.document in {p.document for p in passages}
        for e, passages in zip(known, found, strict=True)
    ]
    similar = [max((p.score for p in passages), default=-1.0) for passages in found]
    shared = [max((p.score for p in index.keyword_search(e.prompt, 1)), default=0.0) for e in known]
    return abstention_curve("similarity", similar, right), abstention_curve("words", shared, right)


def _intervals(scores: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {
        name: {"mean": round(i.mean, 4), "low": round(i.low, 4), "high": round(i.high, 4)}
        for name, i in scores.items()
    }


def _refusal(found: RefusalScores) -> dict[str, Any]:
    shares = {"kept": found.kept, "refused": found.refused, "left_out": found.left_out}
    return {
        "auroc": round(found.auroc, 4),
        "similarity_auroc": round(found.similarity_auroc, 4),
        **_intervals({name: interval for name, interval in shares.items() if interval is not None}),
        "answerable": found.answerable,
        "unanswerable": found.unanswerable,
    }


def _ranking(
    name: str, search: Callable[[str, int], list[Passage]], asked: Sequence[Example]
) -> RankingScores:
    rows: list[dict[str, float]] = []
    seconds: list[float] = []
    for example in asked:
        began = time.perf_counter()
        passages = search(example.prompt, DEPTH * PASSAGES_A_DOCUMENT)
        seconds.append(time.perf_counter() - began)
        ranked = list(dict.fromkeys(passage.document for passage in passages))
        rows.append(rank_scores(ranked, {str(example.document)}))
    scores = {metric: score_interval([row[metric] for row in rows]) for metric in rows[0]}
    return RankingScores(name, scores, float(np.median(seconds)))
