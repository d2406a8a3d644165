import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from tailorbird.errors import DataError
from tailorbird.evaluation.retrieval import (
    DEPTH,
    answer_place,
    evaluate_retrieval,
    rank_scores,
)
from tailorbird.records import NOT_IN_DOCUMENTS, Document, Example
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

THINGS = ("card", "rate", "fee", "loan", "branch", "passport", "limit", "salary")


class Listing:
    name, complete = "listing", True

    def documents(self):
        return (Document(f"{thing}.md", f"What there is to know of a {thing}.", thing) for thing in THINGS)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with KnowledgeIndex(tmp_path_factory.mktemp("retrieval") / "index.db", WordHash()) as index:
        index.sync(Listing())
        yield index


def asked(thing, document=None, completion="x"):
    return Example.pair(f"Tell me of the {thing}", completion, document=document)


def questions():
    return [asked(thing, f"{thing}.md") for thing in THINGS]


@given(
    st.permutations([f"d{n}" for n in range(15)]),
    st.sets(st.sampled_from([f"d{n}" for n in range(15)]), min_size=1),
)
def test_scores_of_a_ranking_agree_with_sklearn(ranked, relevant):
    found = rank_scores(ranked, relevant)
    gains = [[float(name in relevant) for name in ranked]]
    order = [[float(-n) for n in range(len(ranked))]]
    assert found[f"ndcg@{DEPTH}"] == pytest.approx(ndcg_score(gains, order, k=DEPTH))
    first = min(ranked.index(name) for name in relevant)
    assert found[f"mrr@{DEPTH}"] == pytest.approx(1 / (first + 1) if first < DEPTH else 0)
    assert found["recall@5"] == len(relevant & set(ranked[:5])) / len(relevant)


def test_every_question_is_asked_three_ways(index):
    report = evaluate_retrieval(index, questions())
    assert [ranking.name for ranking in report.rankings] == ["words", "meaning", "both"]
    assert all(ranking.scores["recall@1"].mean == 1 for ranking in report.rankings)
    assert (report.questions, report.unknown) == (8, 0)
    assert json.loads(json.dumps(report.to_json()))["rankings"][2]["ndcg@10"]["mean"] == 1


def test_a_document_that_is_not_there_is_counted_and_never_found(index):
    report = evaluate_retrieval(index, [*questions(), asked("card", "absent.md")])
    assert report.unknown == 1
    assert report.rankings[2].scores["recall@10"].mean == pytest.approx(8 / 9)


def test_questions_without_documents_are_refused(index):
    with pytest.raises(DataError, match=r'none of 1 examples names its document. Give rows with "document"'):
        evaluate_retrieval(index, [asked("card")])


def test_passages_are_held_against_the_answers_places(index):
    placed = replace(asked("card", "card.md"), span=(0, 10))
    report = evaluate_retrieval(index, [placed], 1)
    (passage,) = index.passages_of("card.md")
    scores = report.passages.scores
    assert (report.passages.k, report.passages.questions) == (1, 1)
    assert scores["recall"].mean == 1
    assert scores["precision"].mean == scores["iou"].mean == pytest.approx(10 / len(passage.text))
    assert report.passages.characters == len(passage.text)
    assert report.to_json()["passages"]["recall"]["mean"] == 1


def test_an_answers_place_is_the_one_that_reads_like_it(index):
    found = answer_place(index, asked("card", "card.md", completion="a Card"))
    assert found == ("card.md", 25, 31)
    assert index.passages_of("card.md")[0].text[25:31] == "a card"
    assert answer_place(index, asked("card", "card.md", completion="ard")) is None  # no whole word
    assert answer_place(index, asked("card", "card.md", completion="not there")) is None
    assert answer_place(index, asked("card", "absent.md", completion="a card")) is None
    assert answer_place(index, asked("card")) is None
    assert evaluate_retrieval(index, [asked("card", "card.md", "not there")]).passages is None


def test_abstention_is_told_by_similarity_and_by_words(index):
    examples = [*questions(), asked("moon", completion=NOT_IN_DOCUMENTS), asked("nobody knows whose")]
    report = evaluate_retrieval(index, examples)
    assert [curve.score for curve in report.abstention] == ["similarity", "words"]
    # One that names no document and isn't to be refused can't be judged.
    assert all(curve.points[-1].risk == pytest.approx(1 / 9) for curve in report.abstention)
    assert report.to_json()["abstention"][0]["auroc"] == report.abstention[0].auroc


def test_synthetic_questions_are_counted(index):
    assert evaluate_retrieval(index, [replace(e, synthetic=True) for e in questions()]).synthetic == 8
