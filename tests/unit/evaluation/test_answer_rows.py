"""A request comes back from its JSON as it was, whoever may see what answers it."""

import json

import pytest

from tailorbird.evaluation.answer_rows import request_from_json, request_to_json
from tailorbird.records import Message, Reader, Request, Scope


@pytest.mark.parametrize(
    "only",
    [None, Scope(), Scope(Reader("acme", ("staff", "boss")), (("kind", "faq"),), "faq/*")],
    ids=["nothing", "empty", "reader"],
)
def test_a_request_comes_back_as_it_was(only):
    request = Request((Message("user", "When?"),), only=only)
    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


def test_a_request_written_before_there_were_scopes_is_read():
    row = request_to_json(Request((Message("user", "When?"),)))
    del row["only"]
    assert request_from_json(row).only is None
