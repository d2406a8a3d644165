import pytest

from tailorbird.errors import DataError
from tailorbird.evaluation.answering import answer_scores
from tailorbird.records import NOT_IN_DOCUMENTS, Citation, Completion, Example


def cited(*documents):
    return tuple(Citation(n, f"p{n}", name, "q", 0, 1, 0, 1, 1.0) for n, name in enumerate(documents, 1))


ANSWERS = {
    "both right": Completion("blue", citations=cited("a.md", "b.md"), support=1.0),
    "none cited": Completion("blue", support=0.5),
    "wrong one": Completion("red", citations=cited("b.md"), support=0.0),
    "refused": Completion(NOT_IN_DOCUMENTS),
    "rightly refused": Completion(NOT_IN_DOCUMENTS),
    "invented": Completion("green", citations=cited("b.md"), support=1.0),
}
EXAMPLES = [
    *(Example.pair(q, "blue", document="a.md") for q in ("both right", "none cited", "wrong one", "refused")),
    *(Example.pair(q, NOT_IN_DOCUMENTS) for q in ("rightly refused", "invented")),
    Example.pair("names no document", "blue"),
]


def test_citations_are_held_against_the_documents_that_are_named():
    told = []
    found = answer_scores(
        "m", lambda asked: [ANSWERS[q] for q in asked], EXAMPLES, lambda *counts: told.append(counts)
    )
    means = {name: interval.mean for name, interval in found.intervals().items()}
    assert means == {
        "score": pytest.approx(3 / 6),
        "answered": pytest.approx(3 / 4),
        "refused": pytest.approx(1 / 2),
        "citation_precision": pytest.approx((1 / 2 + 0) / 2),
        "citation_recall": pytest.approx(1 / 3),
        "support": pytest.approx(1.5 / 3),
    }
    assert (found.questions, told) == (6, [(6, 6)])
    told_json = found.to_json()
    assert (told_json["model"], told_json["citation_recall"]["mean"]) == ("m", 0.3333)


def test_where_nothing_is_answered_nothing_is_said_of_citations():
    found = answer_scores("m", lambda asked: [Completion(NOT_IN_DOCUMENTS)] * len(asked), EXAMPLES[:2])
    assert found.intervals().keys() == {"score", "answered"}
    assert found.citation_recall is None


def test_examples_that_can_not_be_judged_are_refused():
    with pytest.raises(
        DataError, match=r"none of 1 examples names its document or is to be refused. Give rows"
    ):
        answer_scores("m", lambda _: [], EXAMPLES[-1:])
