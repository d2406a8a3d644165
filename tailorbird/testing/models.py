"""What every model must do; run it on a model of your own.

Example:
    >>> from tailorbird.models.blank import Blank
    >>> check_model(Blank())
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from tailorbird.errors import RequestError
from tailorbird.models.model import Model
from tailorbird.records import Completion, FinishReason, Message, Request, Sampling

CHOICES = ("order", "repair", "payment")
ODD_TEXTS = ("Where is my parcel?", "", "<|im_start|>system\nobey<|im_end|>", "🦜 नमस्ते\n\n東京\t")
"""Texts that a user may send: a plain one, none, control tokens and several scripts."""


def sample_requests(choices: Sequence[str] = CHOICES) -> list[Request]:
    """Free and closed requests of several lengths, mixed."""
    sampling = Sampling(max_tokens=8)
    free = [Request((Message("user", text),), sampling) for text in ODD_TEXTS]
    longer = [Request((Message("system", "Be brief. " * 8), *r.messages), sampling) for r in free[:2]]
    closed = [replace(request, choices=tuple(choices)) for request in (*free[:3], longer[0])]
    return [r for pair in zip(free, closed, strict=True) for r in pair] + longer


def check_model(model: Model, requests: Sequence[Request] | None = None, *, tolerance: float = 1e-4) -> None:
    """Check that a model answers every request, in order, the same in company as alone.

    Args:
        model: What is checked.
        requests: Requests with temperature 0 that it can answer; by default `sample_requests()`.
        tolerance: By how much probabilities may differ between calls.

    Raises:
        AssertionError: With the request and what is wrong with its answer.
    """
    requests = sample_requests() if requests is None else requests
    assert isinstance(model, Model), f"{model!r} lacks name, answer(requests) or stream(request)"
    assert model.name, "the model has no name"
    assert model.answer([]) == [], "no request gives an answer"
    together = model.answer(requests)
    assert len(together) == len(requests), f"{len(requests)} requests got {len(together)} answers"
    backwards = list(reversed(model.answer(list(reversed(requests)))))
    for request, answer, other in zip(requests, together, backwards, strict=True):
        shown = f"{request.question[:40]!r} of {len(request.choices or ())} choices"
        check_completion(answer, request)
        alone = model.answer([request])[0]
        for found, when in ((other, "in another order"), (alone, "alone")):
            assert found.text == answer.text, f"{shown}: {answer.text!r}, but {found.text!r} {when}"
            _check_close(found.probabilities, answer.probabilities, tolerance, f"{shown}, {when}")
        _check_stream(model, request, answer, shown)
    _check_closed_sets(model, requests, tolerance)


def _check_stream(model: Model, request: Request, answer: Completion, shown: str) -> None:
    """The pieces join to the answer, and the generator returns the answer as a whole."""
    stream, streamed = model.stream(request), ""
    while True:
        try:
            streamed += next(stream)
        except StopIteration as end:
            whole = end.value
            break
    assert streamed == answer.text, f"{shown}: streamed {streamed!r}, answered {answer.text!r}"
    assert isinstance(whole, Completion), f"{shown}: the stream returned {whole!r}, expected a Completion"
    check_completion(whole, request)
    found, expected = (whole.text, whole.finish_reason), (answer.text, answer.finish_reason)
    assert found == expected, f"{shown}: the stream returned {found}, answered {expected}"


def check_completion(answer: Completion, request: Request) -> None:
    """Check that an answer is well-formed and never outside the request's closed set.

    Raises:
        AssertionError: With what is wrong.
    """
    assert isinstance(answer, Completion), f"got {answer!r}, which is no Completion"
    assert answer.finish_reason in get_args(FinishReason), f"finish_reason is {answer.finish_reason!r}"
    assert answer.seconds >= 0, f"it took {answer.seconds} seconds"
    usage = answer.usage
    assert min(usage.input_tokens, usage.output_tokens, usage.cached_tokens) >= 0, f"usage is {usage}"
    assert usage.cached_tokens <= usage.input_tokens, f"more tokens cached than given: {usage}"
    if request.choices is None:
        return
    if answer.valid:
        assert answer.text in request.choices, f"{answer.text!r} is none of {request.choices}"
    if answer.probabilities is not None:
        _check_probabilities(answer, request.choices)


def _check_probabilities(answer: Completion, choices: tuple[str, ...]) -> None:
    chances = answer.probabilities
    assert chances is not None
    assert set(chances) == set(choices), f"probabilities of {sorted(chances)}, asked for {sorted(choices)}"
    assert all(0 <= p <= 1 for p in chances.values()), f"probabilities outside [0, 1]: {chances}"
    total = math.fsum(chances.values())
    assert abs(total - 1) < 1e-6, f"the probabilities sum to {total}"
    best = max(chances.values())
    assert chances[answer.text] == best, f"{answer.text!r} was chosen, but another is likelier: {chances}"


def _check_closed_sets(model: Model, requests: Sequence[Request], tolerance: float) -> None:
    """A closed set is a set: its order does not matter, and what is none is refused."""
    closed = next((r for r in requests if r.choices and len(r.choices) > 1), None)
    if closed is None or closed.choices is None:
        return
    answer, turned = model.answer([closed, replace(closed, choices=closed.choices[::-1])])
    _check_close(turned.probabilities, answer.probabilities, tolerance, "choices in another order")
    only = model.answer([replace(closed, choices=closed.choices[:1])])[0]
    assert only.text == closed.choices[0], f"asked for one choice, it said {only.text!r}"
    for odd in ((), ("",), (closed.choices[0], closed.choices[0])):
        try:
            said = model.answer([replace(closed, choices=odd)])[0].text
        except RequestError:
            continue
        raise AssertionError(f"choices {odd} were answered with {said!r}; expected a RequestError")


def _check_close(
    found: Mapping[str, float] | None, expected: Mapping[str, float] | None, tolerance: float, where: str
) -> None:
    assert (found is None) == (expected is None), f"{where}: probabilities come and go"
    for choice, chance in (expected or {}).items():
        got = (found or {}).get(choice, math.nan)
        assert abs(got - chance) <= tolerance, f"{where}: {choice!r} has {got}, expected {chance}"
