"""Schemas: closed sets of strings are kept to, all others refused."""

import json

import pytest

from tailorbird.server.failures import Refusal
from tailorbird.server.response_format import MOST_CHOICES, ClosedSet, read_response_format

ENUM = {"type": "string", "enum": ["a", "b"]}


def form(schema, **rest):
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **rest}}


def obj(inner, **rest):
    return {"type": "object", "properties": {"label": inner}, "required": ["label"], **rest}


@pytest.mark.parametrize("value", [None, {"type": "text"}])
def test_text_limits_nothing(value):
    assert read_response_format(value) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (ENUM, ClosedSet(("a", "b"))),
        ({"enum": ["a"]}, ClosedSet(("a",))),
        ({"const": "a", "title": "T"}, ClosedSet(("a",))),
        (obj(ENUM), ClosedSet(("a", "b"), "label")),
        (
            obj({**ENUM, "description": "d"}, additionalProperties=False, title="T"),
            ClosedSet(("a", "b"), "label"),
        ),
        (obj({"$ref": "#/$defs/E"}, **{"$defs": {"E": ENUM}}), ClosedSet(("a", "b"), "label")),
    ],
)
def test_an_enum_of_strings_is_a_closed_set(schema, expected):
    assert read_response_format(form(schema, strict=True, description="d")) == expected


def test_a_choice_is_worded_as_the_schema_wants_it():
    assert ClosedSet(("a",)).worded("a") == "a"
    assert json.loads(ClosedSet(('é"',), "label").worded('é"')) == {"label": 'é"'}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "expected an object with 'type'"),
        ({"type": "json_object"}, "'json_object' is not supported"),
        ({"type": "text", "extra": 1}, "extra: not supported here"),
        ({"type": "json_schema"}, "expected an object with 'name' and 'schema'"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": ENUM}}, "1 to 64 letters"),
        (form(ENUM, strict="yes"), "expected true or false"),
        (form(ENUM, other=1), "other: not supported here"),
        (form(None), "expected a JSON schema"),
        (form({"type": "string"}), "is no closed set"),
        (form({"type": "array", "items": ENUM}), "is no closed set"),
        (form({**ENUM, "pattern": "(a+)+$"}), "pattern: not supported here"),
        (form({"type": "integer", "enum": [1]}), "only enums of strings"),
        (form({"enum": ["a", 1]}), "expected 1 to 1000 strings"),
        (form({"enum": []}), "expected 1 to 1000 strings"),
        (form({"enum": [""]}), "not empty"),
        (form({"enum": [str(i) for i in range(MOST_CHOICES + 1)]}), "expected 1 to 1000"),
        (form({"enum": ["a", "a"]}), "names a string twice"),
        (form({"enum": ["a"], "const": "a"}), "'enum' and 'const'"),
        (form({"type": "object", "properties": {"a": ENUM, "b": ENUM}}), "exactly one property"),
        (form({"type": "object"}), "exactly one property"),
        (form(obj({"type": "string"})), "is no closed set"),
        (form(obj(ENUM, required=["other"])), 'expected ["label"]'),
        (form(obj(ENUM, additionalProperties={"type": "string"})), "expected false"),
        (form(obj(ENUM, minProperties=2)), "minProperties: not supported"),
        (form(obj({"$ref": "http://127.0.0.1/x"})), "a definition in this schema"),
        (
            form(obj({"$ref": "#/$defs/E"}, **{"$defs": {"E": {"$ref": "#/$defs/E"}}})),
            "reference to a reference",
        ),
    ],
)
def test_any_other_schema_is_refused_and_never_ignored(value, words):
    with pytest.raises(Refusal) as caught:
        read_response_format(value)
    assert words in str(caught.value)
    assert caught.value.failure.status == 400
    assert caught.value.failure.param.startswith("response_format")
