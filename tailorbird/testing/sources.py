"""What every source, connector and embedder must do; run these on your own plug-in.

Example:
    A test of a plug-in is one line: `check_source(MySource(), ["a question it can answer"])`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailorbird.records import Document, Passage
from tailorbird.sources.bm25 import words
from tailorbird.sources.embedder import Embedder
from tailorbird.sources.reranking import Reranker
from tailorbird.sources.source import Connector, Removed, Source, Unchanged, Unreadable, Versioned

ODD_QUERIES: tuple[str, ...] = (
    "",
    "   \n\t",
    '"',
    "'; DROP TABLE passages; --",
    'NEAR("a b", 2) AND NOT * OR ^x : {title} -y + (',
    "title:secret OR rowid:1 AND passages MATCH 'x'",
    "AND OR NOT",
    "🦜🪡 👩‍👩‍👧",
    "नमस्ते 東京 مرحبا Straße ﬁ İ",
    "a\x00b\ud800c\u200b",
    "%s %d {0} \\n \\",
    "?" * 100,
    "word " * 2000,
    "x" * 10_000,
)
"""Texts that a user may send and that have broken search before."""


@dataclass(frozen=True)
class WordHash:
    """An embedder for tests, made in no time: a text's words, each hashed to one of the dimensions.

    Texts that share words are similar; it knows nothing of meaning.
    """

    dimensions: int = 64

    @property
    def name(self) -> str:
        return f"word-hash-{self.dimensions}"

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text) or [text]:
                vectors[row, zlib.crc32(word.encode("utf-8", "replace")) % self.dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def check_source(source: Source, queries: Sequence[str]) -> None:
    """Check that a source answers any text with at most k passages, the same ones every time.

    Args:
        source: What is checked.
        queries: Questions that it can answer; each must find something.

    Raises:
        AssertionError: With what was asked and what is wrong with the answer.
    """
    assert isinstance(source, Source), f"{source!r} has no method search(query, k)"
    for query in queries:
        assert source.search(query, 3), f"{query!r} finds nothing"
    for query in (*queries, *ODD_QUERIES):
        _check_answers(source, query)


def _check_answers(source: Source, query: str) -> None:
    shown = repr(query[:60])
    assert source.search(query, 0) == [], f"{shown} with k=0 finds something"
    few, more, again = source.search(query, 2), source.search(query, 5), source.search(query, 5)
    assert len(few) <= 2, f"{shown} with k=2 finds {len(few)}"
    assert len(more) <= 5, f"{shown} with k=5 finds {len(more)}"
    assert more == again, f"{shown} finds other passages when asked again"
    ids = [passage.id for passage in more]
    assert len(set(ids)) == len(ids), f"{shown} finds a passage twice: {ids}"
    for passage in more:
        assert isinstance(passage, Passage), f"{shown} finds {passage!r}, which is no Passage"
        assert passage.id, f"{shown} finds a passage without an id: {passage}"
        assert passage.document, f"{shown} finds a passage without a document: {passage}"
        assert passage.text.strip(), f"{shown} finds an empty passage: {passage}"


def check_connector(connector: Connector) -> None:
    """Check that a connector has a lasting name and gives the same well-formed documents every time.

    Raises:
        AssertionError: With the document and what is wrong with it.
    """
    assert isinstance(connector, Connector), f"{connector!r} lacks name, complete or documents()"
    assert connector.name, "the connector has no name"
    assert connector.name == connector.name, "the connector's name changes"
    assert isinstance(connector.complete, bool), f"complete is {connector.complete!r}, expected True or False"
    first, again = list(connector.documents()), list(connector.documents())
    assert first == again, "the connector gives other documents when asked again"
    ids = [item.id for item in first]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    assert not repeated, f"the connector gives documents twice: {repeated}"
    for item in first:
        assert isinstance(item, Document | Removed | Unreadable), f"the connector gives {item!r}"
        assert item.id, f"the connector gives something without an id: {item!r}"
        if isinstance(item, Unreadable):
            assert item.reason, f"{item.id} is unreadable without a reason"
        if isinstance(item, Document):
            item.text.encode("utf-8")
            starts = list(item.page_starts)
            assert starts == sorted(starts), f"{item.id}: its pages are out of order: {starts}"


def check_versioned(connector: Versioned) -> None:
    """Check that a connector tells the documents that are as they were, and gives all others.

    Raises:
        AssertionError: With the document and what is wrong with it.
    """
    assert isinstance(connector, Versioned), f"{connector!r} lacks reading or changes(known)"
    assert connector.reading == connector.reading, "the connector's way of reading changes"
    whole = list(connector.documents())
    assert list(connector.changes({})) == whole, "with nothing known it gives other documents"
    versions = {item.id: item.version for item in whole if isinstance(item, Document)}
    for item, now in zip(whole, connector.changes(versions), strict=True):
        same = isinstance(now, Unchanged) if item.id in versions else now == item
        assert same, f"{item.id}: its version is known, and it gives {now!r}"
    for item, now in zip(whole, connector.changes(dict.fromkeys(versions, "another")), strict=True):
        assert now == item, f"{item.id}: another version is known, and it gives {now!r}"


def check_reranker(reranker: Reranker) -> None:
    """Check that a reranker scores any passage for any question by these two alone.

    Raises:
        AssertionError: With the question and what is wrong with its scores.
    """
    assert isinstance(reranker, Reranker), f"{reranker!r} lacks name, trust or scores(query, passages)"
    assert reranker.name, "the reranker has no name"
    assert 0 < reranker.trust <= 1, f"trust is {reranker.trust}, expected above 0 and at most 1"
    texts = ("The card was declined.", "Exchange rates change daily.", *filter(str.strip, ODD_QUERIES))
    passages = [Passage(str(number), "d.md", text) for number, text in enumerate(texts)]
    for query in ("Why was my card declined?", *ODD_QUERIES):
        shown = repr(query[:60])
        together = reranker.scores(query, passages[:4])
        assert len(together) == 4, f"{shown}: {len(together)} scores for 4 passages"
        assert np.isfinite(together).all(), f"{shown}: the scores are {together}, expected finite numbers"
        alone = [reranker.scores(query, [passage])[0] for passage in passages[:4]]
        assert alone == together, f"{shown}: a score depends on the other passages"
    assert np.isfinite(reranker.scores("Why?", passages)).all(), "an odd passage has no finite score"
    assert reranker.scores("Why?", []) == [], "no passages have scores"


def check_embedder(embedder: Embedder) -> None:
    """Check that an embedder gives unit vectors that depend on nothing but the text.

    Raises:
        AssertionError: With the text and what is wrong with its vector.
    """
    assert isinstance(embedder, Embedder), f"{embedder!r} lacks name, dimensions or embed(texts)"
    assert embedder.name, "the embedder has no name"
    texts = ["The card was declined.", "Exchange rates change daily.", *ODD_QUERIES]
    together = embedder.embed(texts)
    assert together.shape == (len(texts), embedder.dimensions), f"got an array of shape {together.shape}"
    assert together.dtype == np.float32, f"got {together.dtype}, expected float32"
    assert embedder.embed([]).shape == (0, embedder.dimensions), "no text gives an array of another shape"
    for text, vector in zip(texts, together, strict=True):
        shown = repr(text[:60])
        length = float(np.linalg.norm(vector))
        assert abs(length - 1) < 1e-3, f"{shown}: the vector's length is {length}, expected 1"
        alone = embedder.embed([text])[0]
        assert np.array_equal(alone, vector), f"{shown}: the vector depends on the other texts in the call"
