"""Models that know nothing: `Blank`, the floor beneath every floor, and `Scripted`, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tailorbird.errors import RequestError
from tailorbird.models.model import Pieces, in_one_piece
from tailorbird.models.request_checks import check_request, refuse_bounds, weighed
from tailorbird.records import Completion, Request


@dataclass(frozen=True)
class Blank:
    """Has learnt nothing: says nothing, and where it must choose takes the first choice, all being equal.

    Example:
        >>> from tailorbird.records import Message
        >>> Blank().answer([Request((Message("user", "hi"),), choices=("a", "b"))])[0].probabilities
        {'a': 0.5, 'b': 0.5}
    """

    name: str = "blank"
    num_parameters: int = 0

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return [_blank_answer(r) for r in requests]

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])


def _blank_answer(request: Request) -> Completion:
    check_request(request)
    refuse_bounds(request, "blank")
    if request.choices is None:
        return Completion("", asked=request)
    share = 1 / len(request.choices)
    shares = dict.fromkeys(request.choices, share)
    return weighed(Completion(request.choices[0], "choice", probabilities=shares, asked=request), request)


@dataclass(frozen=True)
class Scripted:
    """Answers by a function of the request; keeps to the choices or fails.

    Example:
        >>> from tailorbird.records import Message
        >>> shout = Scripted(lambda request: request.question.upper())
        >>> shout.answer([Request((Message("user", "hi"),))])[0].text
        'HI'
    """

    script: Callable[[Request], str]
    name: str = "scripted"
    num_parameters: int = 0

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._one(r) for r in requests]

    def stream(self, request: Request) -> Pieces:
        return in_one_piece(self.answer([request])[0])

    def _one(self, request: Request) -> Completion:
        check_request(request)
        text = self.script(request)
        if request.choices is None:
            return Completion(text, asked=request)
        if text not in request.choices:
            raise RequestError(
                f"scripted model: its script said {text!r}, which is none of the {len(request.choices)} "
                f"choices {list(request.choices[:5])}. Let the script return one of request.choices."
            )
        chances = {choice: float(choice == text) for choice in request.choices}
        return weighed(Completion(text, "choice", probabilities=chances, asked=request), request)
