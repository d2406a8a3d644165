"""Which settings find documents best? Chosen on one half of the questions, confirmed on the other.

Every setting is asked every question of the first half, and compared with the best by pairs. What can't be told
from the best is said so; of such settings the present one is kept. The second half is asked only what was
chosen, and what was in use before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tailorbird.data.splits import split
from tailorbird.errors import DataError
from tailorbird.evaluation.passage_overlap import overlap
from tailorbird.evaluation.retrieval import (
    DEPTH,
    PASSAGES_A_DOCUMENT,
    answer_place,
    rank_scores,
    with_documents,
)
from tailorbird.evaluation.statistics import Interval, holm, paired_interval, paired_p_value, score_interval
from tailorbird.records import Example
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.ranking import Ranking

METRIC = f"ndcg@{DEPTH}"
EVIDENCE = (1, 2, 3, 5, 8)
"""Numbers of passages that are tried as evidence, of the chosen setting."""
LEAST_QUESTIONS = 20
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Setting:
    """How long passages are, and how they are ranked."""

    max_chars: int
    ranking: Ranking

    @property
    def label(self) -> str:
        """Such as `600 characters, scores 0.5/0.5`, or `…, ranks k=60, rerank 10`."""
        r = self.ranking
        share = r.meaning_weight / (r.words_weight + r.meaning_weight)
        fusion = "scores" if r.fusion == "scores" else f"ranks k={r.fusion_k}"
        read = f", rerank {r.rerank}" + (f" by {r.reranker}" if r.reranker else "") if r.rerank else ""
        return f"{self.max_chars} characters, {fusion}, {100 * share:.0f} % meaning{read}"


@dataclass(frozen=True)
class SettingScores:
    """One setting on the choosing half: its nDCG@10, and its difference to the best with an adjusted p-value."""

    setting: Setting
    score: Interval
    difference: Interval
    p_adjusted: float
    median_s: float

    @property
    def tied(self) -> bool:
        """Whether it can't be told from the best."""
        return self.p_adjusted > SIGNIFICANT


@dataclass(frozen=True)
class EvidenceScores:
    """What `k` passages as evidence hold: how often the document, how much of the answers, in how many characters."""

    k: int
    document: Interval
    answer: Interval | None
    iou: Interval | None
    characters: float


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    `confirmed` is the chosen setting's nDCG@10 on the held-out half, `gain` its difference there to the
    setting that was in use.
    """

    questions: int
    held_out: int
    synthetic: int
    rows: tuple[SettingScores, ...]
    chosen: Setting
    present: Setting
    confirmed: Interval
    gain: Interval
    evidence: tuple[EvidenceScores, ...]

    @property
    def sentence(self) -> str:
        """The finding in words."""
        tied = sum(row.tied for row in self.rows) - 1
        noun = "other" if tied == 1 else "others"
        others = f"; {tied} {noun} can't be told from the best" if tied else "; it is told from all others"
        if self.chosen == self.present:
            best = "nothing beats what is set now" + (others if tied else "")
        else:
            best = f"best: {self.chosen.label}{others}"
        return (
            f"{best}. On {self.held_out} questions held out: {100 * self.confirmed.mean:.1f} "
            f"({100 * self.confirmed.low:.1f} to {100 * self.confirmed.high:.1f})"
            + ("" if self.chosen == self.present else f", {_signed(self.gain)} beside what is set now")
            + "."
        )

    @property
    def confirmed_better(self) -> bool:
        """Whether the held-out questions too find the chosen setting better than the present one."""
        return self.chosen != self.present and self.gain.mean > 0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "metric": METRIC,
            "questions": self.questions,
            "held_out": self.held_out,
            "synthetic": self.synthetic,
            "settings": [
                {
                    **_plain(row.setting),
                    **_rounded(row.score),
                    "difference": _rounded(row.difference),
                    "p_adjusted": round(row.p_adjusted, 4),
                    "tied": row.tied,
                    "median_s": round(row.median_s, 4),
                }
                for row in self.rows
            ],
            "chosen": _plain(self.chosen),
            "present": _plain(self.present),
            "confirmed": _rounded(self.confirmed),
            "gain": _rounded(self.gain),
            "evidence": [
                {
                    "k": row.k,
                    "characters": round(row.characters, 1),
                    "document": _rounded(row.document),
                    "answer": row.answer and _rounded(row.answer),
                    "iou": row.iou and _rounded(row.iou),
                }
                for row in self.evidence
            ],
            "sentence": self.sentence,
        }


def rankings_to_try(present: Ranking, *, rerank: bool = True) -> list[Ranking]:
    """The present ranking, then both fusions with meaning weighted from 0.3 to 0.7, and reranking of the first 10."""
    plain = replace(present, rerank=0)
    weighted = [
        replace(plain, fusion="scores", words_weight=round(1 - share, 2), meaning_weight=share)
        for share in (0.3, 0.4, 0.5, 0.6, 0.7)
    ]
    ranks = [replace(plain, fusion="ranks", fusion_k=k, words_weight=1, meaning_weight=1) for k in (10, 60)]
    read = [replace(present, rerank=present.rerank or 10)] if rerank else []
    found: dict[tuple[Any, ...], Ranking] = {}
    for ranking in (present, *weighted, *ranks, *read):
        found.setdefault(_identity(ranking), ranking)
    return list(found.values())


def sweep(
    examples: Sequence[Example],
    open_index: Callable[[Setting], KnowledgeIndex],
    settings: Sequence[Setting],
    on_setting: Callable[[Setting], None] | None = None,
) -> Sweep:
    """Tries settings on half of the questions and confirms what it chose on the other half.

    Args:
        examples: questions; those with a `document` are asked. Synthetic ones only help to choose.
        open_index: an index of these settings; settings of the same length of passages come one after another.
        settings: what is tried, the present one first.
        on_setting: told which setting is asked next.

    Raises:
        DataError: too few questions name their document.
    """
    asked = with_documents(examples)
    real = sum(not e.synthetic for e in asked)
    if real < LEAST_QUESTIONS:
        raise DataError(
            f"knowledge: {real} questions name their document and were not written by a program; a sweep needs at "
            f"least {LEAST_QUESTIONS}, half of them to choose and half to confirm. Add questions, or leave --sweep "
            "and --tune out."
        )
    parts = split(asked, dev=0.0, test=0.5)
    found: list[tuple[Setting, list[float], float]] = []
    for setting in settings:
        if on_setting:
            on_setting(setting)
        found.append((setting, *_asked(open_index(setting), parts.train)))
    best = max(found, key=lambda row: float(np.mean(row[1])))
    p_values = holm([paired_p_value(row[1], best[1]) for row in found])
    rows = tuple(
        SettingScores(s, score_interval(scores), paired_interval(scores, best[1]), p, median_s)
        for (s, scores, median_s), p in zip(found, p_values, strict=True)
    )
    present = settings[0]
    chosen = present if rows[0].tied else best[0]
    held, _ = _asked(open_index(chosen), parts.test)
    before, _ = _asked(open_index(present), parts.test)
    evidence = _evidence(open_index(chosen), parts.train)
    return Sweep(
        len(parts.train),
        len(parts.test),
        sum(e.synthetic for e in parts.train),
        rows,
        chosen,
        present,
        score_interval(held),
        paired_interval(held, before),
        evidence,
    )


def _asked(index: KnowledgeIndex, asked: Sequence[Example]) -> tuple[list[float], float]:
    """nDCG@10 of every question, and the median of the seconds that one takes."""
    scores: list[float] = []
    seconds: list[float] = []
    for example in asked:
        began = time.perf_counter()
        passages = index.search(example.prompt, DEPTH * PASSAGES_A_DOCUMENT)
        seconds.append(time.perf_counter() - began)
        ranked = list(dict.fromkeys(p.document for p in passages))
        scores.append(rank_scores(ranked, {str(example.document)})[METRIC])
    return scores, float(np.median(seconds))


def _evidence(index: KnowledgeIndex, asked: Sequence[Example]) -> tuple[EvidenceScores, ...]:
    found = [(e, answer_place(index, e), index.search(e.prompt, max(EVIDENCE))) for e in asked]
    rows: list[EvidenceScores] = []
    for k in EVIDENCE:
        there = [float(e.document in {p.document for p in passages[:k]}) for e, _, passages in found]
        spans = [[(p.document, p.start, p.end) for p in passages[:k]] for _, _, passages in found]
        over = [overlap(s, [place]) for s, (_, place, _) in zip(spans, found, strict=True) if place]
        read = [sum(end - start for _, start, end in s) for s in spans]
        rows.append(
            EvidenceScores(
                k,
                score_interval(there),
                score_interval([o.recall for o in over]) if over else None,
                score_interval([o.iou for o in over]) if over else None,
                float(np.mean(read)),
            )
        )
    return tuple(rows)


def _identity(ranking: Ranking) -> tuple[Any, ...]:
    """Equal for rankings that order everything alike."""
    share = round(ranking.meaning_weight / (ranking.words_weight + ranking.meaning_weight), 6)
    k = ranking.fusion_k if ranking.fusion == "ranks" else 0
    return ranking.fusion, share, k, ranking.rerank, ranking.reranker if ranking.rerank else ""


def _plain(setting: Setting) -> dict[str, Any]:
    return {"max_chars": setting.max_chars, **setting.ranking.to_json()}


def _rounded(found: Interval) -> dict[str, float]:
    return {"mean": round(found.mean, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def _signed(found: Interval) -> str:
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
