import pytest

from tailorbird.errors import RequestError
from tailorbird.models.blank import Blank, Scripted
from tailorbird.records import Message, Request
from tailorbird.testing.models import check_model


def test_blank_keeps_the_models_contract():
    check_model(Blank())


def test_blank_says_nothing_and_takes_the_first_choice():
    free, closed = (Request((Message("user", "hi"),), choices=c) for c in (None, ("b", "a", "c", "d")))
    said, chosen = Blank().answer([free, closed])
    assert said.text == ""
    assert (chosen.text, chosen.probabilities["a"]) == ("b", 0.25)


def test_scripted_keeps_the_models_contract():
    check_model(Scripted(lambda request: max(request.choices or (request.question,))))


def test_scripted_may_not_leave_the_closed_set():
    request = Request((Message("user", "hi"),), choices=("a", "b"))
    with pytest.raises(
        RequestError, match=r"said 'z', which is none of the 2 choices \['a', 'b'\].*request.choices"
    ):
        Scripted(lambda _: "z").answer([request])
