import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailorbird.models.chat_template import Prompt
from tailorbird.models.generation import Row, Sampler, cut_at_stop
from tailorbird.records import Message, Request, Sampling
from tailorbird.testing.tiny import tiny_model

MODEL = tiny_model()
TEMPLATE = MODEL.engine.template
QUESTIONS = ("Where is my parcel?", "x", "the brake makes a noise and a wheel came off", "東京")


def asked(text="Where is my parcel?", **sampling):
    return Request((Message("user", text),), Sampling(**{"max_tokens": 24, **sampling}))


def streamed(request):
    return "".join(MODEL.stream(request))


def test_greedy_answers_are_the_same_in_a_batch_alone_and_streamed():
    requests = [asked(text, max_tokens=4 + 8 * n) for n, text in enumerate(QUESTIONS)]
    together = [a.text for a in MODEL.answer(requests)]
    assert together == [MODEL.answer([request])[0].text for request in requests]
    assert together == [streamed(request) for request in requests]


def test_greedy_answers_are_the_most_likely_token_after_each_token():
    request = asked(max_tokens=12)
    ids = list(TEMPLATE.prompt(request).ids)
    written = []
    while len(written) < 12:
        with torch.no_grad():
            token = int(MODEL.engine.model(torch.tensor([ids + written])).logits[0, -1].argmax())
        if token in TEMPLATE.stop_ids:
            break
        written.append(token)
    answer = MODEL.answer([request])[0]
    assert answer.text == TEMPLATE.decode(written)
    assert answer.usage.output_tokens == len(written)


def test_an_answer_ends_after_max_tokens_and_says_so():
    answer = MODEL.answer([asked(max_tokens=3)])[0]
    assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 3)


def test_an_answer_ends_where_the_context_is_full():
    model = tiny_model(context=96)
    request = asked("x " * 10, max_tokens=500)
    answer = model.answer([request])[0]
    assert answer.usage.input_tokens + answer.usage.output_tokens <= 96
    assert "".join(model.stream(request)) == answer.text


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it():
    whole = MODEL.answer([asked()])[0]
    for start in range(1, len(whole.text) - 2, 3):
        stop = whole.text[start : start + 2]
        if "\ufffd" in stop:
            continue
        request = asked(stop=(stop, "never said"))
        answer = MODEL.answer([request])[0]
        assert answer.text == whole.text[: whole.text.index(stop)]
        assert answer.finish_reason == "stop"
        assert answer.usage.output_tokens <= whole.usage.output_tokens
        assert streamed(request) == answer.text


def test_a_stop_text_ends_the_work_of_a_batch_too():
    stop = next(c for c in MODEL.answer([asked()])[0].text if c.isalnum())
    short, long = MODEL.answer([asked(stop=(stop,)), asked(QUESTIONS[2])])
    assert short.usage.output_tokens < long.usage.output_tokens


def test_a_seed_draws_the_same_answer_again_in_whatever_company():
    request = asked(temperature=1.0, seed=7)
    others = [asked(text, temperature=1.0, seed=n) for n, text in enumerate(QUESTIONS)]
    alone = MODEL.answer([request])[0].text
    assert MODEL.answer([*others, request])[-1].text == alone
    assert streamed(request) == alone
    assert len({MODEL.answer([asked(temperature=1.0, seed=n)])[0].text for n in range(8)}) > 4


def test_without_a_seed_answers_differ():
    assert len({MODEL.answer([asked(temperature=1.5)])[0].text for _ in range(6)}) > 1


def test_tokens_are_drawn_by_their_probabilities_inside_the_nucleus():
    logits_V = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    draw = Sampler(asked(temperature=1.0, seed=0, top_p=0.8))
    counts = torch.bincount(torch.tensor([draw(logits_V) for _ in range(2000)]), minlength=4) / 2000
    assert counts[2:].sum() == 0
    assert counts[0].item() == pytest.approx(0.625, abs=0.04)


def test_a_low_temperature_comes_close_to_greedy():
    draw = Sampler(asked(temperature=0.01, seed=0))
    assert {draw(torch.tensor([1.0, 1.2, 0.9])) for _ in range(50)} == {1}


class Dictated:
    """Stands for a sampler: writes given tokens."""

    def __init__(self, ids):
        self.ids = iter(ids)

    def __call__(self, logits_V):
        return next(self.ids)


def pieces_of(text, stop=()):
    """What a stream sends while a text is written token by token, and the text as answered."""
    request = asked(max_tokens=1000, stop=stop)
    row = Row(Prompt((1,), request), TEMPLATE)
    row._sampler = Dictated([*TEMPLATE.text(text), TEMPLATE.stop_id])
    row._most = 10**6
    sent = []
    while row.finish_reason is None:
        row.take(torch.empty(0))
        settled = row.settled
        assert settled.startswith("".join(sent))
        sent.append(settled[len("".join(sent)) :])
    return [piece for piece in sent if piece], row.text


def test_a_character_split_over_tokens_is_sent_whole():
    text = "नमस्ते 🦜!"
    assert len(TEMPLATE.text("🦜")) > 1
    pieces, answered = pieces_of(text)
    assert "".join(pieces) == answered == text
    assert not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.lists(st.text("abé🦜 ", min_size=1, max_size=3), max_size=2),
)
@example(" a🦜", ["a", " a🦜"])
def test_streamed_pieces_join_to_the_answer_whatever_is_said(text, stops):
    pieces, answered = pieces_of(text, tuple(stops))
    assert "".join(pieces) == answered == cut_at_stop(text, stops)[0]


def test_the_first_stop_text_cuts():
    assert cut_at_stop("one two three", ["three", "two"]) == ("one ", True)
    assert cut_at_stop("one", ["two", ""]) == ("one", False)


def test_of_overlapping_stop_texts_the_one_that_is_complete_first_cuts_and_then_the_longest():
    assert cut_at_stop("one two three", ["two three", "wo"]) == ("one t", True)
    assert cut_at_stop("one two three", ["wo", "two"]) == ("one ", True)
