import math
from dataclasses import replace

import pytest
import torch

from tailorbird.models.blank import Blank
from tailorbird.models.model import Likelihood, Predicting
from tailorbird.records import Message, Passage, Request
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.tiny import tiny_data, tiny_model

SHOP = "You answer for a bicycle shop."


def asked(question, **rest):
    return Request((Message("system", SHOP), Message("user", question)), **rest)


EXPECTED = [
    (asked("where is my order"), "order"),
    (asked("my bike is broken"), "repair, für drei Tage"),
    (asked("the bill is wrong", evidence=(Passage("p", "d.md", "Bills are sent on Monday."),)), "payment"),
    (asked("the chain fell apart", layout="plain"), "repair"),
]


def slowly(weights, request, text):
    """-Σ log p of the text's tokens, one whole pass for one text, in double precision."""
    template = weights.engine.template
    prompt, completion = template.prompt(request).ids, template.completion(text, request.layout)
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        log_p_1TV = weights.engine.model(ids[:, :-1]).logits.double().log_softmax(-1)
    log_p_1T = log_p_1TV.gather(2, ids[:, 1:, None])[..., 0]
    return -float(log_p_1T[0, len(prompt) - 1 :].sum()), len(completion)


def test_the_likelihood_is_that_of_the_model_run_on_each_text_alone():
    weights = tiny_model()
    alone = [slowly(weights, *pair) for pair in EXPECTED]
    found = weights.likelihood(EXPECTED)
    assert found.nats == pytest.approx(sum(nats for nats, _ in alone), rel=1e-5)
    assert found.tokens == sum(tokens for _, tokens in alone)
    assert found.size_bytes == sum(len(text.encode()) for _, text in EXPECTED)
    assert found.examples == len(EXPECTED)


def test_it_is_told_for_the_adapter_that_is_trained_and_falls_with_training():
    base, data = tiny_model(), tiny_data()
    expected = [(data.task.ask(example), example.completion) for example in data.test]
    before = base.likelihood(expected)
    trained = FineTune(rank=4, epochs=4, learning_rate=1e-2).apply(base, replace(data, dev=()))
    assert trained.likelihood(expected).perplexity < 0.5 * before.perplexity
    assert base.likelihood(expected) == before


def test_a_text_that_does_not_fit_behind_its_request_is_left_out():
    weights = tiny_model(context=128)
    long = "three days and a half " * 30
    assert weights.likelihood([(asked("when"), long)]) is None
    both = weights.likelihood([(asked("when"), long), EXPECTED[0]])
    assert both.examples == 1
    assert both.nats == pytest.approx(slowly(weights, *EXPECTED[0])[0], rel=1e-5)


def test_perplexity_is_per_token_and_bits_are_per_byte():
    found = Likelihood(nats=8 * math.log(2), tokens=4, size_bytes=2, examples=1)
    assert found.perplexity == pytest.approx(4)
    assert found.bits_per_byte == pytest.approx(4)
    assert math.isfinite(Likelihood(1e6, 1, 1, 1).perplexity)


def test_only_weights_of_this_machine_tell_how_likely_they_find_a_text():
    assert isinstance(tiny_model(), Predicting)
    assert not isinstance(Blank(), Predicting)
