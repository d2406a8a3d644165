"""Bodies: JSON that is safe to work on, or 400."""

import json

import pytest

from tailorbird.server.failures import Refusal
from tailorbird.server.json_body import DEEPEST_JSON, read_json


@pytest.mark.parametrize("value", [{}, {"a": [1, None, True, "é \0"]}, 3])
def test_json_is_read(value):
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"\xff", "not JSON in UTF-8"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"9" * 10_000, "not JSON"),
        (b'["\\ud83d"]', "half a character"),
        (b'{"\\udc00": 1}', "half a character"),
        (b"[" * 200_000, "nested deeper than 64"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
    ],
)
def test_anything_else_is_refused(body, words):
    with pytest.raises(Refusal, match=words) as caught:
        read_json(body)
    assert caught.value.failure.status == 400


def test_the_deepest_nesting_is_still_read():
    assert read_json(b"[" * DEEPEST_JSON + b"]" * DEEPEST_JSON)
