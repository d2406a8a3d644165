"""When do the documents speak to a question? The index of a folder, and the similarity that tells."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tailorbird.data.citing import telling
from tailorbird.data.documents import KNOWN_KINDS
from tailorbird.data.storage import cache_folder
from tailorbird.errors import DataError
from tailorbird.records import NOT_IN_DOCUMENTS, Example, Passage, content_hash
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.folder import Folder
from tailorbird.sources.gate import Gate, best_cut, fit_gate
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import KnowledgeBase, is_knowledge_base, read_knowledge_base
from tailorbird.sources.source import Source

UNCALIBRATED_THRESHOLD = 0.15
"""Similarity below which a passage has next to nothing to do with a question (all-MiniLM-L6-v2)."""

NEIGHBOURS = 10
"""Passages whose similarities are compared."""
MOST_CASES = 400
"""Questions that a gate is fitted to."""


def synced_index(folder: Path, max_chars: int) -> KnowledgeIndex:
    """The index of a folder, brought up to date; kept in the cache so that only changes are embedded again.

    A knowledge base is taken as it was last synced, its passages as long as they are.

    Raises:
        DataError: there is no readable document.
    """
    if is_knowledge_base(folder):
        return _index_of(read_knowledge_base(folder))
    key = hashlib.blake2b(f"{folder.resolve()}|{max_chars}".encode(), digest_size=8).hexdigest()
    index = KnowledgeIndex(
        cache_folder() / "knowledge" / key / "index.db", default_embedder(), max_chars=max_chars
    )
    report = index.sync(Folder(folder))
    if not report.passages:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.unreadable[:3])
        raise DataError(
            f"knowledge: no readable document in {folder}. {reasons or 'The folder is empty.'} "
            f"Expected {KNOWN_KINDS}."
        )
    return index


def documents_hash(folder: Path) -> str:
    """A hash of what a knowledge base would answer from."""
    base = read_knowledge_base(folder)
    with base.index() as index:
        return content_hash([index.fingerprint(), base.ranking.to_json()], 32)


def _index_of(base: KnowledgeBase) -> KnowledgeIndex:
    index = base.index()
    if not len(index):
        raise DataError(
            f"knowledge {base.name!r}: it holds no passages. Sync it first: tailor knowledge sync {base.name}."
        )
    return index


def fit_threshold(source: Source, examples: Sequence[Example], k: int) -> float:
    """The similarity that best separates questions the documents answer from those they don't.

    Among all cuts at a seen similarity the one with the highest 2 × (share of answerable questions
    kept) + (share of unanswerable ones refused) is taken, and of equally good ones the lowest: a wrong
    refusal cannot be made good later, while a model may still refuse by itself. Without examples of
    both kinds: `UNCALIBRATED_THRESHOLD`.
    """
    scored = []
    for example in examples:
        found = source.search(example.prompt, k)
        best = max((p.score for p in found), default=-1.0)
        scored.append((best, example.completion != NOT_IN_DOCUMENTS))
    there, absent = ([score for score, known in scored if known is kind] for kind in (True, False))
    return best_cut(there, absent, UNCALIBRATED_THRESHOLD) if there and absent else UNCALIBRATED_THRESHOLD


def relevance_figures(question: str, found: Sequence[Passage], k: int) -> tuple[float, ...]:
    """What tells whether passages speak to a question, all in [-1, 1].

    The best similarity; how far it stands out from that of the last of the `NEIGHBOURS` best; the part of the
    question's telling words that one of the first k passages holds.
    """
    best = sorted((p.score for p in found[:NEIGHBOURS]), reverse=True) or [-1.0]
    asked = telling(question)
    held = [telling(" ".join([p.title, *p.headings, p.text])) for p in found[:k]]
    covered = max((len(asked & words) for words in held), default=0) / max(1, len(asked))
    return best[0], best[0] - best[-1], covered


@dataclass(frozen=True)
class RelevanceCase:
    """What was found for a question, in figures: whether it should pass, and whether its document was left out."""

    question: int
    figures: tuple[float, ...]
    should_pass: bool
    left_out: bool = False


def relevance_cases(source: Source, examples: Sequence[Example], k: int) -> list[RelevanceCase]:
    """The cases that a gate is fitted to, `question` by the place of its example.

    An answerable question whose document is known is also a case of the other kind: what is found for it besides that
    document. So a gate can be fitted where nobody wrote down what the documents don't tell.
    """
    cases: list[RelevanceCase] = []
    for number, example in enumerate(examples):
        found = source.search(example.prompt, NEIGHBOURS + k)
        there = example.completion != NOT_IN_DOCUMENTS
        cases.append(RelevanceCase(number, relevance_figures(example.prompt, found, k), there))
        others = [p for p in found if p.document != example.document]
        if there and example.document is not None and others:
            figures = relevance_figures(example.prompt, others, k)
            cases.append(RelevanceCase(number, figures, should_pass=False, left_out=True))
    return cases


def gate_of(cases: Sequence[RelevanceCase]) -> Gate | None:
    """The gate that tells two kinds of cases apart; None with too few: see `fit_gate`."""
    good = [case.figures for case in cases if case.should_pass]
    return fit_gate(good, [case.figures for case in cases if not case.should_pass])


def fit_relevance(source: Source, examples: Sequence[Example], k: int) -> Gate | None:
    """The gate that tells questions which the documents answer from those they don't; None with too few examples."""
    return gate_of(relevance_cases(source, examples[:MOST_CASES], k))
