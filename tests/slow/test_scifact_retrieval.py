"""Retrieval on SciFact (5,183 abstracts, 300 claims): nDCG@10 of both rankings and of their fusion."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from tailorbird.records import Document
from tailorbird.sources.embedder import default_embedder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.stores import SearchSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Abstracts:
    """SciFact's corpus, an abstract a document."""

    file: Path
    name = "scifact"
    complete = True

    def documents(self):
        for line in self.file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Document(row["_id"], row["text"], title=row["title"])


def read_judgements(file):
    judgements = defaultdict(dict)
    for line in file.read_text(encoding="utf-8").splitlines():
        query, _, document, relevance = line.split()
        judgements[query][document] = int(relevance)
    return judgements


def ndcg_at_10(documents, relevance):
    gains = [relevance.get(document, 0) for document in documents[:10]]
    ideal = sorted(relevance.values(), reverse=True)[:10]
    return discounted(gains) / discounted(ideal)


def discounted(gains):
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


@pytest.fixture(scope="module")
def index(shared_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("scifact") / "index.db"
    with KnowledgeIndex(path, default_embedder(), max_chars=100_000) as index:
        report = index.sync(Abstracts(shared_data / "scifact" / "corpus.jsonl"))
        assert report.added == 5183
        yield index


@pytest.fixture(scope="module")
def mean_ndcg(shared_data):
    judgements = read_judgements(shared_data / "scifact" / "qrels.scifact.test.txt")
    lines = (shared_data / "scifact" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    claims = {row["_id"]: row["text"] for row in map(json.loads, lines)}

    def measure(search):
        scores = []
        for claim, relevance in judgements.items():
            documents = [passage.document for passage in search(claims[claim], 40)]
            scores.append(ndcg_at_10(list(dict.fromkeys(documents)), relevance))
        return sum(scores) / len(scores)

    return measure


def test_words_alone_reach_the_published_bm25(index, mean_ndcg):
    assert mean_ndcg(index.keyword_search) >= 0.679 - 0.01


def test_meaning_alone_reaches_the_published_minilm(index, mean_ndcg):
    assert mean_ndcg(index.vector_search) >= 0.645 - 0.003


def test_both_together_beat_either(index, mean_ndcg):
    assert mean_ndcg(index.search) >= 0.735


@pytest.mark.parametrize("search", ["keyword_search", "vector_search", "search"])
def test_what_stands_beside_the_file_ranks_as_well_as_the_file(index, mean_ndcg, search):
    pytest.importorskip("faiss")
    pytest.importorskip("tantivy")
    alone = mean_ndcg(getattr(index, search))
    settings = SearchSettings(store="faiss", words="tantivy")
    with KnowledgeIndex(index.path, default_embedder(), max_chars=100_000, settings=settings) as beside:
        beside.catch_up()
        assert mean_ndcg(getattr(beside, search)) == pytest.approx(alone, abs=0.005)
