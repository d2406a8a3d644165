import math
from dataclasses import replace

import pytest

from tailorbird.errors import DataError
from tailorbird.models.embedding_linear import EmbeddingLinear
from tailorbird.models.floors import Majority, NearestExample, NearestSentence, TfidfLinear
from tailorbird.records import NOT_IN_DOCUMENTS, Example, Message, Prior, Request
from tailorbird.sources.folder import Folder
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.testing.models import check_model
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_documents

DATA = tiny_data()
EXAMPLES = (
    Example.pair("my bike is broken", "repair"),
    Example.pair("the brake is broken", "repair"),
    Example.pair("where is my parcel", "order"),
)


def ask(text, choices=("order", "repair")):
    return Request((Message("user", text),), choices=choices)


@pytest.fixture
def index(tmp_path):
    made = KnowledgeIndex(tmp_path / "index.db", WordHash(512), max_chars=200)
    made.sync(Folder(tiny_documents(tmp_path / "documents")))
    return made


@pytest.mark.parametrize(
    "model",
    [
        Majority(DATA.train),
        TfidfLinear(DATA.train),
        EmbeddingLinear(DATA.train, WordHash()),
        NearestExample(DATA.train, WordHash()),
    ],
    ids=lambda m: m.name,
)
def test_a_fitted_floor_keeps_the_models_contract(model):
    check_model(model)


def test_the_nearest_sentence_keeps_the_models_contract(index):
    check_model(NearestSentence(index, WordHash(512), 0.2))


def test_majority_says_the_most_frequent_completion_with_its_share():
    free, closed = Majority(EXAMPLES).answer([ask("x", None), ask("x")])
    assert free.text == closed.text == "repair"
    assert dict(closed.probabilities) == pytest.approx({"repair": 2 / 3, "order": 1 / 3})


def test_majority_keeps_to_the_choices_it_is_given():
    some, none = Majority(EXAMPLES).answer([ask("x", ("order", "refund")), ask("x", ("refund", "other"))])
    assert (some.text, dict(some.probabilities)) == ("order", {"order": 1.0, "refund": 0.0})
    assert (none.text, dict(none.probabilities)) == ("refund", {"refund": 0.5, "other": 0.5})


def test_a_tie_of_the_majority_is_broken_by_the_text():
    assert Majority(EXAMPLES[1:]).answer([ask("x", None)])[0].text == "order"


def test_tfidf_learns_the_words_of_each_label():
    model = TfidfLinear(DATA.train)
    answers = model.answer([DATA.task.ask(e) for e in DATA.train])
    assert all(a.text == e.completion for a, e in zip(answers, DATA.train, strict=True))
    said, chosen = model.answer(
        [ask("the chain broke", None), ask("the wheel is broken", ("order", "repair", "new"))]
    )
    assert said.text == chosen.text == "repair"
    assert chosen.probabilities["new"] == 0


def test_tfidf_of_two_labels_tells_them_apart():
    answers = TfidfLinear(EXAMPLES).answer([ask("bike broken"), ask("where parcel")])
    assert [a.text for a in answers] == ["repair", "order"]


def test_the_classifier_over_embeddings_gives_probabilities_of_the_choices_asked_for():
    model = EmbeddingLinear(EXAMPLES, WordHash(512))
    free, both, other = model.answer(
        [ask("my brake is broken", None), ask("where is it"), ask("my brake", ("repair", "new"))]
    )
    assert (free.text, both.text, other.text) == ("repair", "order", "repair")
    assert 0.5 < both.probabilities["order"] < 1
    assert dict(other.probabilities) == {"repair": 1.0, "new": 0.0}


def test_a_prior_is_multiplied_with_what_a_floor_says():
    model, asked = Majority(EXAMPLES), ask("x")
    told = replace(asked, prior=Prior((math.log(8.0), 0.0)))
    doubting = replace(told, prior=Prior((math.log(8.0), 0.0), trust=3.0))
    plain, with_prior, trusting = model.answer([asked, told, doubting])
    assert dict(plain.probabilities) == pytest.approx({"order": 1 / 3, "repair": 2 / 3})
    assert dict(with_prior.probabilities) == pytest.approx({"order": 0.8, "repair": 0.2})
    assert with_prior.text == "order"
    assert dict(trusting.probabilities) == pytest.approx({"order": 0.5, "repair": 0.5})


def test_tfidf_of_one_label_is_no_classifier():
    with pytest.raises(
        DataError, match=r"the 2 training examples have 1 label\(s\).*Add examples of another label"
    ):
        TfidfLinear(EXAMPLES[:2]).answer([ask("x")])


def test_the_nearest_example_says_what_the_most_similar_example_says():
    model = NearestExample(EXAMPLES, WordHash(512))
    assert [a.text for a in model.answer([ask("parcel?", None), ask("broken brake", None)])] == [
        "order",
        "repair",
    ]
    assert model.answer([ask("broken brake", ("order", "new"))])[0].text == "order"


def test_the_nearest_sentence_comes_from_the_documents_or_is_a_refusal(index):
    model = NearestSentence(index, WordHash(512), 0.3)
    asked = ("What does a new brake cost?", "Who painted Guernica?")
    assert [a.text for a in model.answer([ask(q, None) for q in asked])] == [
        "A new brake costs forty euros.",
        NOT_IN_DOCUMENTS,
    ]
