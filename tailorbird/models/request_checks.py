"""What every model refuses: requests whose answer could only be a guess at what was meant."""

from __future__ import annotations

import math
from dataclasses import replace

from tailorbird.errors import RequestError, Unsupported
from tailorbird.records import ABSTAINED, Completion, Request


def check_request(request: Request) -> None:
    """Refuses a request that makes no sense, whatever the model.

    Raises:
        RequestError: there is no message, a setting of the sampling is out of its range, the choices
            are empty, contain an empty text or one twice, or a prior doesn't fit them.
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
    if request.prompt_tokens is not None and request.prompt_tokens < 1:
        raise RequestError(f"request: prompt_tokens is {request.prompt_tokens}; expected 1 or more.")
    if not 0 <= request.abstain_below < 1:
        raise RequestError(
            f"request: abstain_below is {request.abstain_below}; expected a probability from 0 to below 1."
        )
    if request.channel < 0 or (request.channel and request.choices is None):
        raise RequestError(
            f"request: channel is {request.channel}; expected 0, or an exponent above 0 of a request with choices."
        )
    if request.choices is not None:
        check_choices(request.choices)
        if request.schema is not None:
            raise RequestError(
                "request: it has choices and a schema. Give one of the two; choices are an enum."
            )
    if request.prior is not None:
        _check_prior(request)


def refuse_bounds(request: Request, name: str, *, schema: bool = False) -> None:
    """For models that cannot do what only local weights can: what is asked for is never ignored.

    Args:
        request: what is asked.
        name: of the model.
        schema: whether it can be bound to a JSON schema.

    Raises:
        Unsupported: the request has a schema, or a channel.
    """
    if request.schema is not None and not schema:
        raise Unsupported(
            f"model {name!r} cannot be bound to a JSON schema. Ask without one, or ask local weights or an endpoint."
        )
    if request.channel:
        raise Unsupported(
            f"model {name!r} cannot say how well a message follows from a label (the noisy channel). Use local weights "
            "or another calibration."
        )


def _check_prior(request: Request) -> None:
    assert request.prior is not None
    weights, trust = request.prior.log_weights, request.prior.trust
    if len(weights) != len(request.choices or ()):
        raise RequestError(
            f"request: its prior has {len(weights)} weights for {len(request.choices or ())} choices; expected one a "
            "choice. Leave the prior out, or give the choices that it was made for."
        )
    if not all(map(math.isfinite, weights)) or not 0 < trust < math.inf:
        raise RequestError(
            f"request: its prior has trust {trust} and weights from {min(weights)} to {max(weights)}; expected "
            "finite ones, and trust above 0."
        )


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


def weighed(completion: Completion, request: Request) -> Completion:
    """An answer made without the request's prior, with it.

    For models that tell every choice's probability; one of probability 0 stays so.

    Raises:
        Unsupported: this one doesn't.
    """
    prior, chances = request.prior, completion.probabilities
    if request.choices is None or len(request.choices) == 1:
        return completion
    if prior is None:
        return if_sure(completion, request)
    if chances is None:
        raise Unsupported(
            "request: it has a prior, and the model gives no probabilities that it could be multiplied with. Ask "
            'without one; of an endpoint that sends logprobs, with labels = "logprobs".'
        )
    scores = {
        choice: prior.trust * math.log(chances[choice]) + weight if chances[choice] else -math.inf
        for choice, weight in zip(request.choices, prior.log_weights, strict=True)
    }
    best = max(scores, key=lambda choice: scores[choice])
    shares = {choice: math.exp(score - scores[best]) for choice, score in scores.items()}
    total = math.fsum(shares.values())
    weighed_p = {choice: p / total for choice, p in shares.items()}
    return if_sure(replace(completion, text=best, probabilities=weighed_p), request)


def if_sure(completion: Completion, request: Request) -> Completion:
    """The answer, or where its label is less likely than the request asks for, that the model is unsure.

    Raises:
        Unsupported: it tells no probabilities.
    """
    if not request.abstain_below or request.choices is None or len(request.choices) == 1:
        return completion
    if completion.probabilities is None:
        raise Unsupported(
            f"request: answers likelier than {request.abstain_below} are wanted, and the model tells no probabilities. "
            'Ask without that; of an endpoint that sends logprobs, with labels = "logprobs".'
        )
    sure = completion.probabilities[completion.text] >= request.abstain_below
    return completion if sure else replace(completion, text=ABSTAINED)
