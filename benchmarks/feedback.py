"""Pseudo-relevance feedback: the first documents found tell what else to look for. Measured, and not in the product.

Rocchio 1971 moves the question's vector towards theirs; RM3 (Abdul-Jaleel et al. 2004) adds their most telling
words to the question. Both take the first five of the default's documents.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tailorbird.sources.bm25 import BM25, words
from tailorbird.sources.keywords import STOP_WORDS

FED_BACK = 5
MOVED = 0.25
WORDS, WORDS_SHARE = 10, 0.3


def rocchio_search(index, search):
    """The default, with the question's vector moved a quarter of the way to the first documents' mean."""
    inner = index.embedder

    def again(question, k):
        first = search(question, FED_BACK)
        vector = inner.embed([question])[0]
        if first:
            texts = ["\n".join(filter(None, [p.title, p.text])) for p in first]
            vector = vector + MOVED * inner.embed(texts).mean(axis=0)
        index.embedder = _Fixed(inner, vector / np.linalg.norm(vector))
        try:
            return search(question, k)
        finally:
            index.embedder = inner

    return again


@dataclass
class _Fixed:
    """An embedder whose next text has this vector."""

    inner: object
    vector: np.ndarray

    @property
    def name(self):
        return self.inner.name

    @property
    def dimensions(self):
        return self.inner.dimensions

    def embed(self, texts):
        return self.vector[None] if len(texts) == 1 else self.inner.embed(texts)


@dataclass
class Found:
    """A document that was found."""

    document: str
    score: float = field(default=0.0)


def rm3_search(index, search, collection):
    """BM25 for the question's words and the first documents' most telling ones, with meaning as by default."""
    documents = list(collection.documents())
    texts = [f"{d.title} {d.text}" for d in documents]
    terms = [[w for w in words(text) if w not in STOP_WORDS] for text in texts]
    place = {d.id: i for i, d in enumerate(documents)}
    ranked = BM25(
        texts, k1=1.2, idf="lucene", tokenize=lambda text: [w for w in words(text) if w not in STOP_WORDS]
    )

    def again(question, k):
        first = search(question, FED_BACK)
        asked = Counter(dict.fromkeys(set(words(question)) - STOP_WORDS, 1 - WORDS_SHARE))
        weight = {w: v / max(1, len(asked)) for w, v in asked.items()}
        told = Counter()
        for passage in first:
            held = terms[place[passage.document]]
            for word, count in Counter(held).items():
                told[word] += count / max(1, len(held))
        total = sum(v for _, v in told.most_common(WORDS)) or 1.0
        for word, value in told.most_common(WORDS):
            weight[word] = weight.get(word, 0.0) + WORDS_SHARE * value / total
        scores = sum(
            (value * ranked.scores(word) for word, value in weight.items()), np.zeros(len(documents))
        )
        cosines = {p.document: p.score for p in index.vector_search(question, 50)}
        best = [int(i) for i in np.argsort(-scores, kind="stable")[:50] if scores[i] > 0]
        by_words = {documents[i].id: float(scores[i]) for i in best}
        least = min(cosines.values(), default=0.0)
        # A document that only the words found has a similarity below the fiftieth's.
        meaning = {**dict.fromkeys(by_words, least), **cosines}
        fused = index.ranking.fuse(list(by_words), list(cosines), by_words, meaning)
        return [Found(name) for name, _ in fused[:k]]

    return again
