import math
from dataclasses import replace

import numpy as np
import pytest

from tailorbird.data.task import Data, Task
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.blank import Blank, Scripted
from tailorbird.models.embedding_linear import LabelClassifier
from tailorbird.models.model import rewrites_of
from tailorbird.records import Completion, Example, Message, Prior, Request
from tailorbird.techniques.linear_prior import LinearPrior, fit_exponents
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA = tiny_data()
LABELS = ("order", "payment", "repair")


@pytest.fixture(autouse=True)
def small_embedder(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", lambda: WordHash(512))


def accuracy(model, examples):
    answers = model.answer([DATA.task.ask(e) for e in examples])
    return sum(a.text == e.completion for a, e in zip(answers, examples, strict=True)) / len(examples)


def test_a_model_that_knows_nothing_becomes_the_classifier():
    model = LinearPrior().apply(Blank(), DATA)
    assert accuracy(model, DATA.test) > 0.9
    rewrite = rewrites_of(model)[0]
    request = DATA.task.ask(DATA.test[0])
    chances = model.answer([request])[0].probabilities
    log_p_L = rewrite.weight * rewrite.classifier.log_p(request.question)
    expected = np.exp(log_p_L) / np.exp(log_p_L).sum()
    assert dict(chances) == pytest.approx(dict(zip(rewrite.classifier.labels, expected, strict=True)))


def test_local_weights_say_what_their_own_probabilities_times_the_classifiers_say():
    base = tiny_model()
    model = LinearPrior(weight=0.7, trust=0.4).apply(base, DATA)
    rewrite = rewrites_of(model)[0]
    for example in DATA.test[:4]:
        request = DATA.task.ask(example)
        own, both = base.answer([request])[0].probabilities, model.answer([request])[0].probabilities
        other = dict(zip(rewrite.classifier.labels, rewrite.classifier.log_p(request.question), strict=True))
        product = {label: own[label] ** 0.4 * math.exp(0.7 * other[label]) for label in own}
        total = sum(product.values())
        assert dict(both) == pytest.approx({k: v / total for k, v in product.items()}, abs=1e-5)


def four_labels(count=400, seed=0):
    """Examples, with a classifier and answers that err independently of each other."""
    random = np.random.default_rng(seed)
    labels = ("a", "b", "c", "d")
    right = random.integers(0, 4, count)

    class Told(LabelClassifier):
        def log_p(self, text):
            return told[int(text)]

    def noisy(sharpness):
        seen = 2.0 * np.eye(4)[right] + random.normal(0, 1, (count, 4))
        scores = 2.0 * seen  # the log-odds of such evidence, up to a constant
        scores = sharpness * (scores - np.log(np.exp(scores).sum(1, keepdims=True)))
        return scores - np.log(np.exp(scores).sum(1, keepdims=True))

    told, own = noisy(1.0), noisy(5.0)  # the model is five times as sure as it may be
    examples = [Example.pair(str(n), labels[label]) for n, label in enumerate(right)]
    answers = [Completion("a", probabilities=dict(zip(labels, np.exp(row), strict=True))) for row in own]
    return Told(labels, np.zeros((4, 1)), np.zeros(4), WordHash()), examples, answers, told, own, right


def test_an_overconfident_model_is_trusted_less_and_both_together_are_right_more_often_than_either():
    classifier, examples, answers, told, own, right = four_labels()
    weight, trust = fit_exponents(classifier, examples[:200], answers[:200])
    assert 0.7 < weight < 1.5
    assert 0.1 < trust < 0.4
    held = slice(200, None)
    scores = {"told": told[held], "own": own[held], "both": (weight * told + trust * own)[held]}
    right_by = {name: float((row.argmax(1) == right[held]).mean()) for name, row in scores.items()}
    assert right_by["both"] > max(right_by["told"], right_by["own"]) + 0.03
    chosen = scores["both"] - np.log(np.exp(scores["both"]).sum(1, keepdims=True))
    assert np.exp(chosen.max(1)).mean() == pytest.approx(right_by["both"], abs=0.05)


def test_without_dev_both_count_as_they_are():
    rewrite = rewrites_of(LinearPrior().apply(Blank(), replace(DATA, dev=())))[0]
    assert (rewrite.weight, rewrite.trust) == (1.0, 1.0)


def test_requests_with_choices_it_does_not_know_and_free_ones_pass_unchanged():
    rewrite = rewrites_of(LinearPrior(weight=1.0, trust=1.0).apply(Blank(), DATA))[0]
    for choices in (None, ("order", "something else")):
        request = Request((Message("user", "my bike"),), choices=choices)
        assert rewrite(request) is request
    some = rewrite(Request((Message("user", "my bike is broken"),), choices=("repair", "order")))
    assert some.prior.log_weights[0] > some.prior.log_weights[1]


def test_a_prior_that_is_there_already_weighs_what_comes_of_this_one():
    inner = LinearPrior(weight=0.8, trust=0.5).apply(tiny_model(), DATA)
    plain = Request((Message("user", "my bike"),), choices=LABELS)
    alone = inner.answer([plain])[0].probabilities
    given = dict(zip(LABELS, (1.0, 2.0, 3.0), strict=True))
    both = inner.answer([replace(plain, prior=Prior(tuple(given.values()), trust=0.3))])[0].probabilities
    product = {label: alone[label] ** 0.3 * math.exp(given[label]) for label in LABELS}
    total = sum(product.values())
    assert dict(both) == pytest.approx({label: p / total for label, p in product.items()}, abs=1e-5)


@pytest.mark.parametrize(("weight", "trust"), [(1.0, None), (None, 1.0), (0.0, 1.0), (1.0, -1.0)])
def test_exponents_are_two_above_0_or_none(weight, trust):
    with pytest.raises(
        RecipeError, match=r"linear_prior: weight is .* expected two numbers above 0, or neither"
    ):
        LinearPrior(weight=weight, trust=trust)


def test_it_says_what_it_cannot_work_with(tmp_path):
    with pytest.raises(DataError, match=r"linear_prior: the task is to answer freely.*Leave it out"):
        LinearPrior().apply(Blank(), tiny_questions())
    with pytest.raises(DataError, match=r"linear_prior: there are no training examples.*--examples"):
        LinearPrior().apply(Blank(), Data(Task("classify", "", ("a", "b")), ()))
    one = replace(DATA, train=tuple(e for e in DATA.train if e.completion == "order"))
    with pytest.raises(DataError, match=r"have 1 label\(s\); it needs two or more"):
        LinearPrior().apply(Blank(), one)


def test_a_model_without_probabilities_is_refused():
    class Silent(Scripted):
        def answer(self, requests):
            return [replace(answer, probabilities=None) for answer in super().answer(requests)]

    with pytest.raises(Unsupported, match=r"the model gives no probabilities.*endpoint that sends logprobs"):
        LinearPrior().apply(Silent(lambda _: "order"), DATA)
