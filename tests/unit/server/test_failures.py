"""Failures: one HTTP answer for every error of the tree, and none says too much."""

import pytest

from tailorbird import errors
from tailorbird.server.failures import Refusal, failure_of, of_status


@pytest.mark.parametrize(
    ("error", "status", "code", "final"),
    [
        (errors.ContextTooLong("m"), 400, "context_length_exceeded", True),
        (errors.RequestError("m"), 400, "invalid_value", True),
        (errors.InputError("m"), 400, "invalid_value", True),
        (errors.Unsupported("m"), 400, "unsupported", True),
        (errors.EndpointError("m"), 502, "endpoint_error", False),
        (errors.EndpointError("m", 503), 502, "endpoint_error", False),
        (errors.EndpointError("m", 401), 502, "endpoint_error", True),
        (errors.IntegrityError("m"), 500, "engine_error", True),
        (errors.NotFound("m"), 500, "engine_error", True),
        (errors.TailorbirdError("m"), 500, "engine_error", True),
    ],
)
def test_every_error_has_its_status_and_says_whether_to_try_again(error, status, code, final):
    failure = failure_of(error, "req_1")
    assert (failure.status, failure.code, failure.message) == (status, code, "m")
    assert (failure.headers.get("x-should-retry") == "false") is final
    assert set(failure.body["error"]) == {"message", "type", "param", "code"}


def test_a_defect_names_the_request_and_nothing_else():
    failure = failure_of(KeyError("/home/someone/secret"), "req_1")
    assert (failure.status, failure.code) == (500, "internal_error")
    assert "secret" not in failure.message
    assert "req_1" in failure.message


def test_a_refusal_that_waiting_helps_is_not_final():
    assert "x-should-retry" not in Refusal("busy", status=429).failure.headers
    assert Refusal("wrong").failure.headers == {"x-should-retry": "false"}


def test_a_route_that_is_not_there_is_told_in_the_same_shape():
    assert of_status(404, "GET", "/x").code == "not_found"
    assert of_status(405, "PUT", "/x").message == "/x does not take PUT. See the Allow header."
    assert of_status(418, "GET", "/x").status == 418
