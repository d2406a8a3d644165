from dataclasses import replace

import pytest

from tailorbird.data.task import Data
from tailorbird.errors import DataError
from tailorbird.models.blank import Blank
from tailorbird.models.floors import NearestExample, NearestSentence
from tailorbird.records import NOT_IN_DOCUMENTS
from tailorbird.techniques.floors import BlankFloor, EmbeddingFloor, MajorityFloor, NearestFloor, TfidfFloor
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_documents, tiny_model, tiny_questions

DATA = tiny_data()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", lambda: WordHash(512))


def accuracy(model, data):
    answers = model.answer([data.task.ask(e) for e in data.test])
    return sum(a.text == e.completion for a, e in zip(answers, data.test, strict=True)) / len(data.test)


def test_floors_that_learn_words_beat_the_majority_on_words_they_have_seen():
    majority = accuracy(MajorityFloor().apply(tiny_model(), DATA), DATA)
    assert majority == pytest.approx(1 / 3)
    assert accuracy(TfidfFloor().apply(tiny_model(), DATA), DATA) > 0.9
    assert accuracy(EmbeddingFloor().apply(tiny_model(), DATA), DATA) > 0.9
    assert accuracy(NearestFloor().apply(tiny_model(), DATA), DATA) > 0.9
    assert accuracy(BlankFloor().apply(tiny_model(), DATA), DATA) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "floor"), [("tfidf_linear", TfidfFloor()), ("embedding_linear", EmbeddingFloor())]
)
def test_a_classifier_has_no_free_answers(name, floor, tmp_path):
    with pytest.raises(DataError, match=rf"'{name}': the task is to answer freely.*Leave this arm out"):
        floor.apply(Blank(), tiny_questions(tiny_documents(tmp_path / "documents")))


def test_the_nearest_floor_reads_documents_where_answers_are_free_and_examples_elsewhere(tmp_path):
    documents = tiny_documents(tmp_path / "documents")
    assert isinstance(NearestFloor().apply(Blank(), tiny_data(documents)), NearestExample)
    assert isinstance(NearestFloor().apply(Blank(), tiny_questions()), NearestExample)
    data = tiny_questions(documents)
    model = NearestFloor().apply(Blank(), data)
    assert isinstance(model, NearestSentence)
    for example, answer in zip(data.train, model.answer([data.task.ask(e) for e in data.train]), strict=True):
        assert (answer.text == NOT_IN_DOCUMENTS) == (example.completion == NOT_IN_DOCUMENTS)
    assert model.answer([data.task.ask(data.train[1])])[0].text == "A new brake costs forty euros."


@pytest.mark.parametrize("floor", [MajorityFloor(), TfidfFloor(), EmbeddingFloor(), NearestFloor()])
def test_without_training_examples_a_floor_cannot_be_fitted(floor):
    with pytest.raises(DataError, match=r"there are no training examples to fit. Give some with --examples"):
        floor.apply(Blank(), Data(DATA.task, ()))


def test_a_classifier_of_one_label_is_refused_when_it_is_made():
    one = replace(DATA, train=tuple(e for e in DATA.train if e.completion == "order"))
    with pytest.raises(DataError, match="a classifier needs two or more"):
        TfidfFloor().apply(Blank(), one)
    with pytest.raises(DataError, match=r"have 1 label\(s\); it needs two or more. Add examples"):
        EmbeddingFloor().apply(Blank(), one)
