"""Every technique keeps the contract, and any two compose in either order."""

from itertools import product

import pytest

from tailorbird.models.folders import load_model, save_model
from tailorbird.models.model import rewrites_of, weights_of
from tailorbird.records import NOT_IN_DOCUMENTS, Message, Request, Sampling
from tailorbird.techniques.few_shot import FewShot, load_metaprompt
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.floors import BlankFloor, EmbeddingFloor, MajorityFloor, NearestFloor, TfidfFloor
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.techniques.knowledge import Knowledge
from tailorbird.techniques.linear_prior import LinearPrior, load_prior
from tailorbird.techniques.lookup import load_lookup
from tailorbird.techniques.technique import Recipe
from tailorbird.testing.models import check_model
from tailorbird.testing.sources import WordHash
from tailorbird.testing.techniques import check_technique
from tailorbird.testing.tiny import tiny_data, tiny_documents, tiny_model, tiny_questions

FOUR = {
    "knowledge": Knowledge(k=1),
    "few_shot": FewShot(k=2),
    "fine_tune": FineTune(rank=2, epochs=1, learning_rate=1e-2, max_dev=4),
    "from_scratch": FromScratch(depth=1, vocab_size=300, context=400, text_epochs=1, epochs=1, max_dev=4),
}
FLOORS = {
    "blank": BlankFloor(),
    "majority": MajorityFloor(),
    "tfidf_linear": TfidfFloor(),
    "embedding_linear": EmbeddingFloor(),
    "nearest": NearestFloor(),
}
OTHERS = {
    **FLOORS,
    "few_shot_fixed": FewShot(k=2, select="fixed"),
    "few_shot_balanced": FewShot(k=3, select="balanced"),
    "linear_prior": LinearPrior(),
    "empty_recipe": Recipe(),
}
WRAPS = {"knowledge", "few_shot"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.fixture(params=["labels", "questions"])
def data(request, tmp_path):
    documents = tiny_documents(tmp_path / "documents")
    return tiny_data(documents) if request.param == "labels" else tiny_questions(documents)


@pytest.mark.parametrize("name", [*FOUR, *OTHERS])
def test_a_technique_keeps_the_contract(name, tmp_path):
    data = tiny_data(tiny_documents(tmp_path / "documents"))
    check_technique({**FOUR, **OTHERS}[name], tiny_model(), data)


@pytest.mark.parametrize("pair", list(product(FOUR, FOUR)), ids="+".join)
def test_any_two_techniques_compose_in_this_order(pair, data, tmp_path):
    first, second = pair
    base = tiny_model(context=400)
    model = check_technique(Recipe((FOUR[first], FOUR[second])), base, data)
    kinds = [rewrite.kind for rewrite in rewrites_of(model)]
    assert kinds == [name for name in (second, first) if name in WRAPS]
    trained = {"fine_tune", "from_scratch"} & {first, second}
    assert (weights_of(model) is base) == (not trained)
    assert (weights_of(model).engine is base.engine) == ("from_scratch" not in trained)
    save_model(model, tmp_path / "saved", task=data.task)
    loaded = load_model(tmp_path / "saved", {"knowledge": load_lookup, "few_shot": load_metaprompt}).model
    asked = [data.task.ask(example) for example in data.test[:4]]
    assert [a.text for a in loaded.answer(asked)] == [a.text for a in model.answer(asked)]


@pytest.mark.parametrize("pair", list(product(FOUR, FLOORS)), ids="+".join)
def test_a_floor_takes_the_place_of_the_weights_beneath_any_technique(pair, tmp_path):
    first, second = pair
    data = tiny_data(tiny_documents(tmp_path / "documents"))
    model = FLOORS[second].apply(FOUR[first].apply(tiny_model(), data), data)
    assert weights_of(model).name == second
    check_model(model, [data.task.ask(example) for example in data.test[:2]])


@pytest.mark.parametrize("name", FOUR)
def test_a_technique_over_knowledge_still_refuses_what_the_documents_do_not_tell(name, tmp_path):
    data = tiny_questions(tiny_documents(tmp_path / "documents"))
    model = Recipe((Knowledge(k=1, threshold=0.2), FOUR[name])).apply(tiny_model(), data)
    request = Request((Message("user", "Zyx?"),), Sampling(max_tokens=4))
    assert model.answer([request])[0].text == NOT_IN_DOCUMENTS


@pytest.mark.parametrize("name", [*FOUR, *FLOORS])
def test_a_prior_goes_on_top_of_any_model_and_comes_back_with_it(name, tmp_path):
    data = tiny_data(tiny_documents(tmp_path / "documents"))
    below = {**FOUR, **FLOORS}[name]
    model = check_technique(Recipe((below, LinearPrior())), tiny_model(context=400), data)
    assert rewrites_of(model)[0].kind == "linear_prior"
    save_model(model, tmp_path / "saved", task=data.task)
    rewrites = {"knowledge": load_lookup, "few_shot": load_metaprompt, "linear_prior": load_prior}
    loaded = load_model(tmp_path / "saved", rewrites).model
    asked = [data.task.ask(example) for example in data.test[:4]]
    for found, expected in zip(loaded.answer(asked), model.answer(asked), strict=True):
        assert dict(found.probabilities) == pytest.approx(dict(expected.probabilities), abs=1e-5)
