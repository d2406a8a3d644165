from dataclasses import replace

import pytest
import torch

from tailorbird.models import prefill as prefill_module
from tailorbird.models.prefill import PrefixCache, common_prefix
from tailorbird.records import Message, Request, Sampling
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.tiny import tiny_data, tiny_model

LONG = "You name the category of a message that a customer wrote to a bicycle shop. " * 2
LABELS = ("order", "repair", "payment", "order status")


def requests(choices=LABELS, system=LONG):
    texts = ("where is my parcel?", "the brake is broken", "x", "you charged me twice, " * 3)
    return [
        Request((Message("system", system), Message("user", text)), Sampling(max_tokens=6), choices=choices)
        for text in texts
    ]


def unshared(engine, asked, monkeypatch):
    """The answers of the plain path: each alone, nothing kept."""
    with monkeypatch.context() as patched:
        patched.setattr(prefill_module, "SHORTEST_PREFIX", 10**6)
        return [engine.answer([request], None)[0] for request in asked]


def assert_same(found, expected):
    assert [a.text for a in found] == [a.text for a in expected]
    for one, other in zip(found, expected, strict=True):
        assert dict(one.probabilities or {}) == pytest.approx(dict(other.probabilities or {}), abs=1e-5)


def test_the_common_prefix_is_what_all_sequences_begin_with():
    assert common_prefix([(1, 2, 3), (1, 2), (1, 2, 9, 9)]) == 2
    assert common_prefix([(1,), (2,)]) == 0
    assert common_prefix([(), (1,)]) == 0
    assert common_prefix([(4, 5)]) == 2


@pytest.mark.parametrize("choices", [LABELS, None], ids=["closed", "free"])
def test_sharing_a_prefix_changes_no_answer(choices, monkeypatch):
    engine = tiny_model().engine
    asked = requests(choices)
    expected = unshared(engine, asked, monkeypatch)
    assert_same(engine.answer(asked, None), expected)
    assert_same(engine.answer(asked, None), expected)
    assert_same([engine.answer([request], None)[0] for request in asked], expected)


def test_answers_are_the_same_after_other_prompts_ran_in_between(monkeypatch):
    engine = tiny_model().engine
    asked = requests()
    expected = unshared(engine, asked, monkeypatch)
    engine.answer(requests(None, system=LONG[:40] + "Something else entirely. " * 4), None)
    engine.answer(asked[:1], None)
    engine.answer(requests(None), None)
    assert_same(engine.answer(asked, None), expected)


def test_what_was_computed_with_old_weights_is_not_used_after_they_changed():
    model, data = tiny_model(), tiny_data()
    tuned = FineTune(rank=4, epochs=1).apply(model, data)
    asked = requests()
    before = tuned.answer(asked)
    with torch.no_grad():
        for name, parameter in tuned.engine.model.named_parameters():
            if f".{tuned.adapter}." in name and "lora_B" in name:
                parameter.add_(0.2)
    tuned.engine.weights_changed(tuned.adapter)
    after = tuned.answer(asked)
    tuned.engine.weights_changed(tuned.adapter)
    assert_same(after, tuned.answer(asked))
    moved = [
        abs(a.probabilities["order"] - b.probabilities["order"]) for a, b in zip(after, before, strict=True)
    ]
    assert max(moved) > 1e-3


def test_cached_tokens_are_those_not_computed_for_this_request_alone():
    engine = tiny_model().engine
    first, *others = requests()
    fresh = engine.answer([first], None)[0].usage
    again = engine.answer([first], None)[0].usage
    assert fresh.cached_tokens == 0
    assert again.cached_tokens == again.input_tokens - 1
    batch = [a.usage.cached_tokens for a in engine.answer(others, None)]
    assert min(batch) == max(batch) > len(LONG) / 8


@pytest.mark.parametrize("choices", [LABELS, None], ids=["closed", "free"])
def test_several_answers_depend_on_nothing_asked_before_to_the_last_bit(choices):
    asked = requests(choices)
    alike = [replace(r, messages=(*r.messages[:1], Message("user", "where is my bell?"))) for r in asked[:1]]
    fresh = tiny_model().engine.answer(asked, None)
    busy = tiny_model().engine
    for request in [*alike, *asked[1:]]:
        busy.answer([request], None)
    busy.answer(requests(choices, system=LONG[:60] + "Something else entirely. " * 4), None)
    busy.answer([*alike, asked[0]], None)  # they begin with more than all of `asked` do
    again = busy.answer(asked, None)
    assert [(a.text, a.probabilities, a.usage) for a in again] == [
        (a.text, a.probabilities, a.usage) for a in fresh
    ]


def test_a_past_that_was_given_goes_last_and_is_continued_for_what_begins_with_it():
    cache = PrefixCache(kept_tokens=10)
    cache.keep(None, (1, 2, 3, 4), "before", settled=True)
    cache.give(None, (1, 2, 3), "given")
    assert cache.find_settled(None, (1, 2, 3, 4)) is None  # computed in one pass: from now on it would not be
    assert cache.find_given(None, (1, 2, 3, 9)) == (3, "given")
    assert cache.find_given(None, (1, 2, 9)) == (0, None)
    cache.keep(None, (1, 2, 3), "continued from another")
    assert cache.find_settled(None, (1, 2, 3)) == "given"
    cache.keep(None, (8,) * 6, "later", settled=True)
    assert cache.find_given(None, (1, 2, 3)) == (3, "given")
    assert cache.find(None, (1, 2, 3, 4)) == (3, "given")
    cache.forget(None)
    assert cache.find_given(None, (1, 2, 3)) == (0, None)


def test_a_cache_keeps_the_prefixes_used_last_and_gives_back_the_longest():
    cache = PrefixCache(kept_tokens=10)
    cache.keep(None, (1, 2, 3), "a")
    cache.keep(None, (1, 2, 4, 5), "b")
    assert cache.find(None, (1, 2, 4, 9)) == (3, "b")
    assert cache.find(None, (1, 2, 3, 9)) == (3, "a")
    cache.keep(None, (7, 7, 7, 7), "c")
    assert cache.find(None, (1, 2, 3)) == (3, "a")  # used after "b", so "b" went
    assert cache.find(None, (1, 2, 4, 5)) == (2, "a")


def test_a_cache_keeps_adapters_apart_and_forgets_one_at_a_time():
    cache = PrefixCache()
    cache.keep(None, (1, 2), "base")
    cache.keep("x", (1, 2), "adapted")
    assert cache.find("x", (1, 2)) == (2, "adapted")
    assert cache.find("y", (1, 2)) == (0, None)
    cache.forget("x")
    assert cache.find("x", (1, 2)) == (0, None)
    assert cache.find(None, (1, 2)) == (2, "base")
