"""The noisy channel gives the probability of the message that forwarding it after every label gives."""

from dataclasses import replace

import pytest
import torch

from tailorbird.errors import RequestError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.noisy_channel import TURNED_INSTRUCTION, turned_round
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Example, Message, Prior, Request
from tailorbird.testing.tiny import tiny_model

MODEL = tiny_model()
LABELS = ("order", "repair", "payment")
SHOWN = (Example.pair("my bike is broken", "repair"), Example.pair("where is my order", "order"))


def asked(text="my parcel is late", **fields):
    turns = (Message("system", "Sort."), Message("user", text))
    return Request(turns, choices=LABELS, examples=SHOWN, **fields)


def brute_force(request):
    """Every label's log-probability of the message and its stop token, forwarded alone."""
    template, found = MODEL.engine.template, []
    for label in request.choices:
        prompt = list(template.prompt(turned_round(request, label)).ids)
        message = list(template.completion(request.question, request.layout))
        with torch.no_grad():
            log_p_TV = MODEL.engine.model(torch.tensor([prompt + message])).logits[0].double().log_softmax(-1)
        found.append(sum(log_p_TV[len(prompt) - 1 + n, token].item() for n, token in enumerate(message)))
    return torch.tensor(found)


def own(request):
    chances = MODEL.answer([request])[0].probabilities
    return torch.tensor([chances[label] for label in LABELS]).log()


@pytest.mark.parametrize("layout", ["chat", "plain"])
@pytest.mark.parametrize("text", ["my parcel is late", "x", "when do you ship it, and what does it cost?"])
def test_a_label_is_as_likely_as_the_message_after_it(layout, text):
    request = asked(text, layout=layout)
    prior = Prior((0.0, 1.0, 2.0), 0.7)
    answer = MODEL.answer([replace(request, channel=0.5, prior=prior)])[0]
    expected = 0.7 * own(request) + torch.tensor(prior.log_weights) + 0.5 * brute_force(request)
    found = [answer.probabilities[label] for label in LABELS]
    assert found == pytest.approx(expected.softmax(0).tolist(), abs=1e-4)
    assert answer.text == LABELS[int(expected.argmax())]


def test_the_conversation_is_turned_round_with_its_examples():
    turned = turned_round(asked(), "order")
    said = [(m.role, m.content) for m in turned.conversation]
    assert said == [
        ("system", TURNED_INSTRUCTION),
        ("user", "repair"),
        ("assistant", "my bike is broken"),
        ("user", "order"),
        ("assistant", "where is my order"),
        ("user", "order"),
    ]


def test_batched_or_alone_it_is_the_same():
    requests = [asked(text, channel=1.0) for text in ("my parcel is late", "a brake", "twice charged")]
    for request, together in zip(requests, MODEL.answer(requests), strict=True):
        alone = MODEL.answer([request])[0]
        assert dict(alone.probabilities) == pytest.approx(dict(together.probabilities), abs=1e-5)


def test_who_cannot_turn_round_says_so():
    for model in (Blank(), RemoteWeights("http://127.0.0.1:1/v1", "far")):
        with pytest.raises(Unsupported, match=r"cannot say how well a message follows from a label"):
            model.answer([asked(channel=1.0)])
    with pytest.raises(
        RequestError, match=r"channel is 1.0; expected 0, or an exponent above 0 of a request with"
    ):
        MODEL.answer([replace(asked(channel=1.0), choices=None)])
    with pytest.raises(RequestError, match=r"channel is -1.0"):
        MODEL.answer([asked(channel=-1.0)])
