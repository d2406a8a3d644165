from dataclasses import replace

import pytest

from tailorbird.data.task import Task
from tailorbird.models.model import Wrapped, as_seen_by_weights
from tailorbird.records import NOT_IN_DOCUMENTS, Example
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.knowledge import Knowledge
from tailorbird.techniques.technique import Recipe
from tailorbird.techniques.through_wrappers import dev_score, to_sequences
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_documents, tiny_model, tiny_questions

RECIPES = {
    "plain": Recipe(),
    "few_shot": FewShot(k=2),
    "knowledge": Knowledge(k=1),
    "both": Recipe((Knowledge(k=1), FewShot(k=1))),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_training_sees_the_tokens_that_serving_sees(recipe, tmp_path):
    data = tiny_data(tiny_documents(tmp_path / "documents"))
    weights = tiny_model()
    model = recipe.apply(weights, data)
    sequences = to_sequences(weights, model, data, data.train)
    template = weights.engine.template
    for example, sequence, answer in zip(
        data.train, sequences, model.answer([data.task.ask(e) for e in data.train]), strict=True
    ):
        assert sequence.prompt == template.prompt(as_seen_by_weights(model, data.task.ask(example))).ids
        assert sequence.prompt == template.prompt(answer.asked).ids
        assert answer.usage.input_tokens == len(sequence.prompt)
        assert sequence.completion == template.completion(example.completion)


def test_examples_that_never_reach_the_weights_are_not_trained_on(tmp_path):
    data = tiny_questions(tiny_documents(tmp_path / "documents"))
    weights = tiny_model()
    model = Knowledge(k=1, threshold=0.2).apply(weights, data)
    reach = [
        e for e in data.train if as_seen_by_weights(model, data.task.ask(e)).choices != (NOT_IN_DOCUMENTS,)
    ]
    assert 0 < len(reach) < len(data.train)
    assert len(to_sequences(weights, model, data, data.train)) == len(reach)


def test_the_dev_score_is_the_metric_with_the_sureness_of_the_right_label_to_break_ties():
    data, weights = tiny_data(), tiny_model()
    score = dev_score(weights, weights, data, data.dev)
    answers = weights.answer([data.task.ask(e) for e in data.dev])
    right = [a.text == e.completion for a, e in zip(answers, data.dev, strict=True)]
    sure = [a.probabilities[e.completion] for a, e in zip(answers, data.dev, strict=True)]
    assert score == pytest.approx(sum(right) / len(right) + 0.01 * sum(sure) / len(sure))


def test_the_dev_score_of_free_answers_is_the_metric_alone():
    weights = tiny_model()
    example = Example.pair(
        "x",
        weights.answer([Task("answer", "", max_tokens=4).request(Example.pair("x", "").messages)])[0].text,
    )
    data = replace(tiny_questions(), task=Task("answer", "", max_tokens=4))
    assert dev_score(weights, weights, data, [example]) == pytest.approx(1.0)


def test_the_dev_score_asks_through_the_wrappers(monkeypatch):
    data, weights = tiny_data(), tiny_model()
    wrapped = FewShot(k=1, select="fixed").apply(weights, data)
    assert isinstance(wrapped, Wrapped)
    asked = []
    answer = weights.engine.answer
    monkeypatch.setattr(weights.engine, "answer", lambda rs, adapter: asked.extend(rs) or answer(rs, adapter))
    dev_score(weights, wrapped, data, data.dev[:2])
    assert asked == [as_seen_by_weights(wrapped, data.task.ask(e)) for e in data.dev[:2]]
