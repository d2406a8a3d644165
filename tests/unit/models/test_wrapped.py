from dataclasses import dataclass, replace
from typing import ClassVar

from tailorbird.models.blank import Blank, Scripted
from tailorbird.models.model import Wrapped, as_seen_by_weights, on_weights, rewrites_of, weights_of
from tailorbird.records import Message, Request
from tailorbird.testing.models import check_model


@dataclass(frozen=True)
class Suffix:
    """A rewrite that adds a letter to what is asked."""

    letter: str
    kind: ClassVar[str] = "suffix"

    def __call__(self, request):
        last = request.messages[-1]
        return replace(
            request, messages=(*request.messages[:-1], replace(last, content=last.content + self.letter))
        )

    def save(self, folder):
        return {"letter": self.letter}


ECHO = Scripted(lambda request: request.choices[0] if request.choices else request.question, name="echo")
MODEL = Wrapped(Wrapped(ECHO, Suffix("a")), Suffix("b"))
REQUEST = Request((Message("user", "x"),))


def test_a_request_passes_the_outermost_wrapper_first():
    assert MODEL.answer([REQUEST])[0].text == "xba"
    assert "".join(MODEL.stream(REQUEST)) == "xba"
    assert as_seen_by_weights(MODEL, REQUEST).question == "xba"
    assert [rewrite.letter for rewrite in rewrites_of(MODEL)] == ["b", "a"]


def test_a_wrapped_model_keeps_the_models_contract():
    check_model(Wrapped(Blank(), Suffix("a")))


def test_weights_are_replaced_beneath_the_wrappers_and_the_given_model_stays():
    retrained = on_weights(
        MODEL, lambda weights: Scripted(lambda r: r.question.upper(), name=f"new {weights.name}")
    )
    assert retrained.answer([REQUEST])[0].text == "XBA"
    assert retrained.name == "new echo + suffix + suffix"
    assert MODEL.answer([REQUEST])[0].text == "xba"
    assert weights_of(MODEL) is ECHO
