"""Label scoring gives the probabilities that forwarding every label by itself gives."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailorbird.errors import NotFound
from tailorbird.models import label_scoring
from tailorbird.models.gguf_file import starter_file
from tailorbird.models.local import open_local
from tailorbird.records import Message, Request
from tailorbird.testing.tiny import tiny_model

ENGINE = tiny_model().engine
WORDS = (
    "order",
    "repair",
    "pay",
    "card",
    "card lost",
    "a",
    " b",
    "é",
    "東京",
    "x" * 12,
    "how long does it take",
)

label = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("_".join)
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
closed_sets = st.lists(label | texts, min_size=2, max_size=60, unique=True)
prompts = st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=5)


def brute_force(engine, request):
    """Every label forwarded on its own, without cache, mask or trie; its probability among the labels."""
    template = engine.template
    prompt = list(template.prompt(request).ids)
    tokens = [list(template.text(choice)) for choice in request.choices]
    scores = []
    for ids in tokens:
        continued = any(other != ids and other[: len(ids)] == ids for other in tokens)
        path = [*ids, template.stop_id] if continued else ids
        with torch.no_grad():
            log_p_TV = engine.model(torch.tensor([prompt + path])).logits[0].double().log_softmax(-1)
        scores.append(sum(log_p_TV[len(prompt) - 1 + n, token].item() for n, token in enumerate(path)))
    return torch.tensor(scores).softmax(0).tolist()


def assert_exact(engine, requests, tolerance):
    for request, answer in zip(requests, engine.answer(requests, None), strict=True):
        expected = brute_force(engine, request)
        found = [answer.probabilities[choice] for choice in request.choices]
        assert found == pytest.approx(expected, abs=tolerance)
        assert sum(found) == pytest.approx(1, abs=1e-9)
        assert answer.probabilities[answer.text] == max(found)


@pytest.fixture(params=["one_pass", "rounds", "padded_rounds"], scope="module")
def way(request):
    """The ways through the trie, the rounds without leaving a node out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_scoring, "SMALL_TRIE", 10**9 if request.param == "one_pass" else 0)
        patch.setattr(label_scoring, "NEGLIGIBLE", 0.0)
        assert ENGINE.network.can_branch  # a tiny Llama does
        if request.param == "padded_rounds":
            patch.setattr(ENGINE.network, "can_branch", False)
        yield request.param


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(prompts, closed_sets)
def test_probabilities_of_any_labels_after_any_prompts_are_those_of_brute_force(way, questions, labels):
    requests = [Request((Message("user", q),), choices=tuple(labels)) for q in questions]
    assert_exact(ENGINE, requests, 1e-4)


@pytest.mark.parametrize(
    "labels",
    [
        ("a", "ab", "abc", "abcd"),
        ("0", "1", "2"),
        ("card", "card lost", "card lost abroad", "cards"),
        tuple(f"label_{n}" for n in range(60)),
    ],
    ids=["each_a_prefix_of_the_next", "single_tokens", "words_that_continue", "sixty_that_share_a_start"],
)
def test_probabilities_are_exact_for(way, labels):
    requests = [Request((Message("user", "x" * n),), choices=labels) for n in (0, 1, 7, 200)]
    assert_exact(ENGINE, requests, 1e-4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(prompts, st.lists(label | texts, min_size=30, max_size=60, unique=True))
def test_leaving_out_the_negligible_keeps_the_label_and_changes_no_probability_by_more(questions, labels):
    requests = [Request((Message("user", q),), choices=tuple(labels)) for q in questions]
    for request, answer in zip(requests, ENGINE.answer(requests, None), strict=True):
        expected = dict(zip(labels, brute_force(ENGINE, request), strict=True))
        assert expected[answer.text] == pytest.approx(max(expected.values()), abs=1e-4)
        assert answer.probabilities == pytest.approx(expected, abs=label_scoring.NEGLIGIBLE + 1e-4)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_a_label_that_another_continues_is_closed_by_the_stop_token():
    answer = ENGINE.answer([Request((Message("user", "hi"),), choices=("card", "card lost"))], None)[0]
    prompt = list(ENGINE.template.prompt(answer.asked).ids)
    ids = [*ENGINE.template.text("card"), ENGINE.template.stop_id]
    with torch.no_grad():
        log_p_TV = ENGINE.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    closed = sum(log_p_TV[len(prompt) - 1 + n, token].item() for n, token in enumerate(ids))
    with torch.no_grad():
        other = list(ENGINE.template.text("card lost"))
        log_p_TV = ENGINE.model(torch.tensor([prompt + other])).logits[0].log_softmax(-1)
    longer = sum(log_p_TV[len(prompt) - 1 + n, token].item() for n, token in enumerate(other))
    odds = answer.probabilities["card"] / answer.probabilities["card lost"]
    assert torch.tensor(odds).log().item() == pytest.approx(closed - longer, abs=1e-3)


def test_the_order_of_the_choices_does_not_matter():
    labels = ("order", "repair", "payment", "order status")
    asked = [Request((Message("user", "where is it?"),), choices=c) for c in (labels, labels[::-1])]
    one, other = ENGINE.answer(asked, None)
    assert one.text == other.text
    assert dict(one.probabilities) == pytest.approx(dict(other.probabilities), abs=1e-6)


@pytest.mark.slow
def test_the_starter_model_scores_labels_exactly():
    try:
        starter_file()
    except NotFound as error:
        pytest.skip(str(error))
    engine = open_local("starter").engine
    labels = ("card_arrival", "card", "cards", "lost_or_stolen_card", "order status", "refund")
    system = Message("system", "Name the category of the message. Categories: " + ", ".join(labels) + ".")
    questions = ("where is my card", "I lost my wallet with the card in it, help!!", "refund me")
    assert_exact(engine, [Request((system, Message("user", q)), choices=labels) for q in questions], 1e-4)
