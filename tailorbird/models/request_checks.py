"""What every model refuses: requests whose answer could only be a guess at what was meant."""

from __future__ import annotations

from tailorbird.errors import RequestError
from tailorbird.records import Completion, Request


def check_request(request: Request) -> None:
    """Refuses a request that makes no sense, whatever the model.

    Raises:
        RequestError: there is no message, a setting of the sampling is out of its range, or the choices
            are empty, contain an empty text or one twice.
    """
    if not request.messages:
        raise RequestError("request: it has no messages. Give at least one user message.")
    sampling = request.sampling
    if sampling.max_tokens < 1:
        raise RequestError(f"request: max_tokens is {sampling.max_tokens}; expected 1 or more.")
    if not 0 <= sampling.temperature <= 100:
        raise RequestError(f"request: temperature is {sampling.temperature}; expected 0 (greedy) or more.")
    if not 0 < sampling.top_p <= 1:
        raise RequestError(f"request: top_p is {sampling.top_p}; expected above 0 and at most 1.")
    if request.choices is not None:
        check_choices(request.choices)


def check_choices(choices: tuple[str, ...]) -> None:
    """Refuses a closed set that is not a set of answers.

    Raises:
        RequestError: it is empty, contains an empty text or one twice.
    """
    if not choices:
        raise RequestError(
            "choices: the closed set is empty. Name its answers, or give None to let the model speak."
        )
    if not all(choice.strip() for choice in choices):
        raise RequestError(
            f"choices: label {choices.index(next(c for c in choices if not c.strip()))} is empty. Name it."
        )
    if len(set(choices)) < len(choices):
        twice = next(c for c in choices if choices.count(c) > 1)
        raise RequestError(f"choices: {twice!r} is there {choices.count(twice)} times. Give each label once.")


def only_choice(request: Request) -> Completion:
    """The answer to a request that leaves one choice: nothing needs to be computed."""
    assert request.choices is not None
    return Completion(request.choices[0], "choice", probabilities={request.choices[0]: 1.0}, asked=request)
