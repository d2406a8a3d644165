"""The keyword index beside a large knowledge index: tantivy, which finds the best passages without scoring all.

SQLite's FTS5 scores every passage that has one of the words, which takes tens of milliseconds at 100,000 passages.
tantivy skips those that can't be among the best (block-max WAND, Ding & Suel 2011). Words are cut, folded and stemmed
nearly as FTS5 does it, and BM25 has the same constants. A title counts twice, and of the headings the innermost, by
being indexed twice in one field: one BM25 a field, added up, ranks worse (nDCG@10 on SciFact .63 instead of .69).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.data.storage import atomic_folder
from tailorbird.errors import IntegrityError
from tailorbird.sources.keywords import telling_words
from tailorbird.sources.optional import need
from tailorbird.sources.vector_store import Allowed, Numbers

WRITER_BYTES = 128_000_000
"""Memory that indexing takes before it writes."""
FEW = 500
"""So few allowed passages are asked for by number."""
MOST_WORD_CHARS = 200
"""Longer words, such as encoded data, are not looked for."""


@dataclass(frozen=True)
class WordBatch:
    """Passages by number [N]: of each its title, its headings, its text, and its terms (see `scopes`)."""

    numbers: Numbers
    titles: Sequence[str]
    headings: Sequence[tuple[str, ...]]
    texts: Sequence[str]
    terms: Sequence[tuple[str, ...]]


class WordIndex:
    """Passages in a folder of tantivy's, found by their words. Threads may share it.

    Args:
        folder: where it is, or will be once it is filled.

    Raises:
        Unsupported: tantivy is not installed.
    """

    grows = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        need("tantivy", "keyword index", "tantivy")
        import tantivy

        self._tantivy = tantivy
        self._analyzer = _analyzer(self._tantivy)
        self._index: Any = None

    def count(self) -> int:
        """How many passages it holds.

        Raises:
            IntegrityError: It is not there, or damaged.
        """
        return int(self._opened().searcher().num_docs)

    def fill(self, batches: Iterator[WordBatch], count: int) -> None:
        """Hold these passages and nothing else; searches under way go on with what was there."""
        del count
        with atomic_folder(self.folder, replace=True) as folder:
            index = self._tantivy.Index(_schema(self._tantivy), path=str(folder))
            index.register_tokenizer("words", self._analyzer)
            self._write(index, np.empty(0, np.int64), batches)
        self._index = None

    def change(self, gone: Numbers, batches: Iterator[WordBatch]) -> None:
        """Forget some passages and hold others; those that it holds already are replaced."""
        index = self._opened()
        self._write(index, gone, batches)
        index.reload()

    def search(self, query: str, limit: int, allowed: Allowed | None = None) -> dict[int, float]:
        """BM25 of the best passages that share words with a text, by number; higher is better."""
        index = self._opened()
        query_class, should = self._tantivy.Query, self._tantivy.Occur.Should
        stems = dict.fromkeys(
            stem
            for word in telling_words(query)
            if len(word) <= MOST_WORD_CHARS
            for stem in self._analyzer.analyze(word)
        )
        if not stems or limit <= 0:
            return {}
        words = [
            (should, query_class.term_query(index.schema, "words", stem, index_option="freq"))
            for stem in stems
        ]
        wanted = self._within(index.schema, query_class.boolean_query(words), allowed)
        searcher = index.searcher()
        hits = searcher.search(wanted, limit, count=False).hits
        numbers = searcher.fast_field_values("number", [address for _, address in hits])
        return {int(n): round(score, 6) for n, (score, _) in zip(numbers, hits, strict=True)}

    def remove(self) -> None:
        """Delete it."""
        from shutil import rmtree

        self._index = None
        rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Give back what it has open."""
        self._index = None

    def _within(self, schema: Any, words: Any, allowed: Allowed | None) -> Any:
        """The search, of allowed passages only."""
        if allowed is None:
            return words
        make, must = self._tantivy.Query, self._tantivy.Occur.Must
        if allowed.count <= FEW or allowed.pattern:
            only = [make.term_set_query(schema, "number", allowed.numbers().tolist())]
        else:
            only = [make.term_set_query(schema, "terms", list(terms)) for terms in allowed.clauses]
        silent = [(must, make.const_score_query(query, 0.0)) for query in only]
        return make.boolean_query([(must, words), *silent])

    def _write(self, index: Any, gone: Numbers, batches: Iterator[WordBatch]) -> None:
        writer = index.writer(WRITER_BYTES, 1)
        new = index.searcher().num_docs == 0
        for number in gone.tolist():
            writer.delete_documents_by_term("number", number)
        for batch in batches:
            for i, number in enumerate(batch.numbers.tolist()):
                if not new:
                    writer.delete_documents_by_term("number", number)
                writer.add_document(self._document(batch, i, number))
        writer.commit()
        writer.wait_merging_threads()

    def _document(self, batch: WordBatch, i: int, number: int) -> Any:
        document = self._tantivy.Document()
        document.add_unsigned("number", number)
        headings = batch.headings[i]
        for text in (batch.titles[i], batch.titles[i], *headings, *headings[-1:], batch.texts[i]):
            document.add_text("words", text)
        for term in batch.terms[i]:
            document.add_text("terms", term)
        return document

    def _opened(self) -> Any:
        if self._index is None:
            try:
                index = self._tantivy.Index.open(str(self.folder))
                index.register_tokenizer("words", self._analyzer)
                index.config_reader("manual")
                index.reload()
            except (ValueError, OSError) as error:
                raise IntegrityError(
                    f"{self.folder}: the keyword index can't be opened: {error}. "
                    "It is made again by the next `tailor knowledge sync`."
                ) from None
            self._index = index
        return self._index


def _schema(tantivy: Any) -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("number", indexed=True, fast=True)
    builder.add_text_field("words", tokenizer_name="words", index_option="freq")
    builder.add_text_field("terms", tokenizer_name="raw", index_option="basic")
    return builder.build()


def _analyzer(tantivy: Any) -> Any:
    """Cuts and stems nearly as FTS5's `porter unicode61 remove_diacritics 2` does."""
    steps = (
        tantivy.Filter.remove_long(MOST_WORD_CHARS),
        tantivy.Filter.lowercase(),
        tantivy.Filter.ascii_fold(),
        tantivy.Filter.stemmer("english"),
    )
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in steps:
        builder = builder.filter(step)
    return builder.build()
