"""From what a live source found to the passages that speak to the question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tailorbird.data.documents import Limits, clean_text
from tailorbird.data.passages import split_document
from tailorbird.records import Document, Passage, content_hash
from tailorbird.sources.bm25 import BM25
from tailorbird.sources.fusion import reciprocal_rank_fusion

MAX_QUERY = 500
"""Characters of a question that are sent; no search reads more, and addresses have an end."""
MAX_RESULTS = 50
"""Results of one question that are looked at."""
MAX_TEXT = 50_000
"""Characters of one result that are looked at."""
MAX_TEXTS = 300_000
"""Characters of all results of one question that are looked at: more take longer to rank than a question may."""

_UNSENDABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]+")


def best_passages(documents: Iterable[Document], query: str, k: int) -> list[Passage]:
    """At most `k` passages: the order in which the documents were found fused with BM25 over their passages."""
    passages: dict[str, Passage] = {}
    room = MAX_TEXTS
    for document in documents:
        if room <= 0:
            break
        for passage in split_document(replace(document, text=document.text[:room])):
            passages.setdefault(passage.id, passage)
        room -= len(document.text)
    found = list(passages.values())
    if not found or k <= 0:
        return []
    scores = BM25([p.text for p in found], idf="lucene").scores(query)
    by_words = sorted(range(len(found)), key=lambda i: (-scores[i], i))
    fused = reciprocal_rank_fusion([range(len(found)), by_words])
    return [found[i] for i, _ in fused[:k]]


def document_at(place: str, text: str, title: str = "", version: str = "") -> Document | None:
    """What was found at a place as a document, without control and invisible characters; None without text."""
    text = clean_text(_encodable(text[:MAX_TEXT])).strip()
    title = " ".join(clean_text(_encodable(title[:300])).split())
    if not text:
        return None
    place = _UNSENDABLE.sub(" ", place[:2000]).strip() or "unnamed"
    return Document(place, text, title, version or content_hash([title, text]))


def parsing_limits(timeout_s: float) -> Limits:
    """What parsing one found document may take where the whole question has only so many seconds."""
    return Limits(cpu_s=max(1.0, timeout_s), wall_s=max(1.0, timeout_s))


def sendable(query: str) -> str:
    """A question without control characters, cut at a word's end to `MAX_QUERY` characters."""
    words = " ".join(_UNSENDABLE.sub(" ", query).split())
    if len(words) <= MAX_QUERY:
        return words
    return words[: MAX_QUERY + 1].rpartition(" ")[0] or words[:MAX_QUERY]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
