import math

import pytest

from tailorbird.errors import RequestError
from tailorbird.models.request_checks import check_request
from tailorbird.records import Message, Prior, Request, Sampling

HELLO = (Message("user", "hi"),)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(()), "it has no messages.*at least one user message"),
        (Request(HELLO, Sampling(max_tokens=0)), "max_tokens is 0; expected 1 or more"),
        (Request(HELLO, Sampling(temperature=-1)), r"temperature is -1; expected 0 \(greedy\) or more"),
        (Request(HELLO, Sampling(temperature=float("nan"))), "temperature is nan"),
        (Request(HELLO, Sampling(top_p=0)), "top_p is 0; expected above 0 and at most 1"),
        (Request(HELLO, choices=()), "the closed set is empty"),
        (Request(HELLO, choices=("a", "")), "label 1 is empty"),
        (Request(HELLO, choices=("a", "b", "a")), "'a' is there 2 times. Give each label once"),
        (Request(HELLO, prior=Prior((0.0,))), "its prior has 1 weights for 0 choices; expected one a choice"),
        (
            Request(HELLO, choices=("a", "b"), prior=Prior((0.0,))),
            "1 weights for 2 choices.*give the choices that",
        ),
        (
            Request(HELLO, choices=("a", "b"), prior=Prior((0.0, -math.inf))),
            "weights from -inf to 0.0; expected fin",
        ),
        (Request(HELLO, choices=("a", "b"), prior=Prior((0.0, 0.0), trust=0.0)), "trust 0.0.*trust above 0"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_, message):
    with pytest.raises(RequestError, match=message):
        check_request(request_)


def test_a_plain_request_passes():
    check_request(Request(HELLO, Sampling(temperature=2, top_p=1), choices=("a", "b")))
