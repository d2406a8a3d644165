"""The shipped contracts find the faults that they are there to find."""

from dataclasses import dataclass, replace

import pytest

from tailorbird.data.task import Data
from tailorbird.models.blank import Blank, Scripted
from tailorbird.testing.models import check_model
from tailorbird.testing.techniques import check_technique
from tailorbird.testing.tiny import tiny_data

GOOD = Scripted(lambda request: min(request.choices) if request.choices else request.question.upper())


@dataclass
class Faulty:
    """A good model with one fault."""

    fault: str
    name: str = "faulty"

    def answer(self, requests):
        answers = GOOD.answer(requests)
        match self.fault:
            case "order":
                return answers[::-1]
            case "count":
                return answers[:-1]
            case "company":
                return [
                    replace(a, text=a.text + "!" * (len(requests) > 1)) if not a.probabilities else a
                    for a in answers
                ]
            case "leaves":
                return [replace(a, text="other") if a.probabilities else a for a in answers]
            case "sum":
                return [
                    replace(
                        a,
                        probabilities={k: v / 2 for k, v in a.probabilities.items()}
                        if a.probabilities
                        else None,
                    )
                    for a in answers
                ]
        return answers

    def stream(self, request):
        answer = GOOD.answer([request])[0]
        yield answer.text + ("!" if self.fault == "stream" and not request.choices else "")
        return None if self.fault == "return" else answer


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("order", "alone|is none of"),
        ("count", "requests got"),
        ("company", "alone"),
        ("leaves", "'other' is none of"),
        ("sum", "the probabilities sum to 0.5"),
        ("stream", "streamed"),
        ("return", "the stream returned None"),
    ],
)
def test_a_faulty_model_is_found_out(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_model(Faulty(fault))


def test_a_good_model_passes():
    check_model(GOOD)
    check_model(Faulty("none"))


def test_a_model_that_answers_what_is_no_closed_set_is_found_out():
    @dataclass
    class Lax(Faulty):
        def answer(self, requests):
            known = [
                replace(r, choices=tuple(dict.fromkeys(c for c in r.choices if c)) or ("x",))
                if r.choices is not None
                else r
                for r in requests
            ]
            return GOOD.answer(known)

    with pytest.raises(AssertionError, match="expected a RequestError"):
        check_model(Lax("none"))


@dataclass(frozen=True)
class Peeks:
    def apply(self, model, data):
        return Blank(str(len(data.test)))


@dataclass(frozen=True)
class Spoils:
    def apply(self, model, data):
        model.fault = "leaves"
        return Blank()


@dataclass
class Thaws:
    def apply(self, model, data):
        return Blank()


@dataclass(frozen=True)
class Fine:
    def apply(self, model, data):
        assert data.train
        assert isinstance(data, Data)
        return Blank()


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (Peeks(), "read data.test"),
        (Spoils(), "the given model said"),
        (Thaws(), "Thaws is not frozen"),
        (Blank(), "no method apply"),
    ],
)
def test_a_faulty_technique_is_found_out(technique, message):
    with pytest.raises(AssertionError, match=message):
        check_technique(technique, Faulty("none"), tiny_data())


def test_a_good_technique_passes_and_its_model_is_given_back():
    assert check_technique(Fine(), Faulty("none"), tiny_data()) == Blank()
