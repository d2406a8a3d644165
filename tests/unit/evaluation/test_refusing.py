import json

import pytest

from tailorbird.evaluation.refusing import refusal_scores
from tailorbird.evaluation.retrieval import evaluate_retrieval
from tailorbird.records import NOT_IN_DOCUMENTS, Document, Example
from tailorbird.sources import relevance
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.sources import WordHash

THINGS = [f"{letter}thing{number}" for number in range(4) for letter in "abcdefgh"]


class Listing:
    name, complete = "listing", True

    def documents(self):
        return (Document(f"{thing}.md", f"What there is to know of a {thing}.", thing) for thing in THINGS)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with KnowledgeIndex(tmp_path_factory.mktemp("refusing") / "index.db", WordHash()) as index:
        index.sync(Listing())
        yield index


def asked(thing, completion="x", document=None):
    return Example.pair(f"Tell me of the {thing}", completion, document=document)


KNOWN = [asked(thing, document=f"{thing}.md") for thing in THINGS]
ABSENT = [asked(f"moon{number}", NOT_IN_DOCUMENTS) for number in range(8)]


def test_documents_left_out_are_refused_without_a_written_refusal(index):
    found = refusal_scores(index, KNOWN, 3)
    assert (found.answerable, found.unanswerable, found.refused) == (32, 0, None)
    assert found.kept.mean > 0.9
    assert found.left_out.mean > 0.9
    assert found.auroc > 0.95


def test_written_refusals_are_told_apart_from_documents_left_out(index):
    found = refusal_scores(index, [*KNOWN, *ABSENT], 3)
    assert (found.answerable, found.unanswerable) == (32, 8)
    assert found.refused.mean > 0.8
    told = json.loads(json.dumps(evaluate_retrieval(index, [*KNOWN, *ABSENT]).to_json()))["refusal"]
    assert told["refused"]["mean"] == pytest.approx(found.refused.mean, abs=1e-4)
    assert told.keys() == {
        "auroc", "similarity_auroc", "kept", "refused", "left_out", "answerable", "unanswerable",
    }  # fmt: skip


def test_no_question_is_judged_by_a_gate_that_was_fitted_to_it(index, monkeypatch):
    fitted = []

    def gate_of(cases):
        gate = relevance.gate_of(cases)
        fitted.append({case.question for case in cases})
        return gate

    monkeypatch.setattr("tailorbird.evaluation.refusing.gate_of", gate_of)
    refusal_scores(index, KNOWN, 3)
    left_out = [set(range(len(KNOWN))) - questions for questions in fitted]
    assert sorted(number for part in left_out for number in part) == list(range(len(KNOWN)))


def test_noise_is_not_told_apart(index):
    """Questions and refusals alike: fitted to all of them a gate would look better than it is."""
    alike = [asked(f"moon{n}", NOT_IN_DOCUMENTS if n % 2 else "x") for n in range(40)]
    found = refusal_scores(index, alike, 3)
    assert 0.2 < found.auroc < 0.8


def test_with_too_few_cases_nothing_is_told(index):
    assert refusal_scores(index, [*KNOWN[:4], *ABSENT[:3]], 3) is None
