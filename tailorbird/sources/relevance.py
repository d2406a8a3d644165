"""When do the documents speak to a question? The index of a folder, and the similarity that tells."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tailorbird.data.documents import KNOWN_KINDS
from tailorbird.data.storage import cache_folder
from tailorbird.errors import DataError
from tailorbird.records import NOT_IN_DOCUMENTS, Example, content_hash
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.folder import Folder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.knowledge_base import KnowledgeBase, is_knowledge_base, read_knowledge_base
from tailorbird.sources.source import Source

UNCALIBRATED_THRESHOLD = 0.15
"""Similarity below which a passage has next to nothing to do with a question (all-MiniLM-L6-v2)."""


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
    answerable = sum(1 for _, there in scored if there)
    if not 0 < answerable < len(scored):
        return UNCALIBRATED_THRESHOLD
    cuts = sorted({UNCALIBRATED_THRESHOLD, *(score for score, _ in scored)})

    def merit(cut: float) -> float:
        kept = sum(1 for score, there in scored if there and score >= cut) / answerable
        refused = sum(1 for score, there in scored if not there and score < cut) / (len(scored) - answerable)
        return 2 * kept + refused

    return max(cuts, key=lambda cut: (merit(cut), -cut))
