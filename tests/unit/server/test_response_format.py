"""Schemas: closed sets of strings are sets of choices, all others go to the model's grammar."""

import json

import pytest

from tailorbird.server.failures import Refusal
from tailorbird.server.response_format import MOST_CHOICES, ClosedSet, Schema, read_response_format

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
        ({"type": "grammar"}, "'grammar' is not supported; expected 'text', 'json_object' or 'json_schema'"),
        ({"type": "text", "extra": 1}, "extra: not supported here"),
        ({"type": "json_schema"}, "expected an object with 'name' and 'schema'"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": ENUM}}, "1 to 64 letters"),
        (form(ENUM, strict="yes"), "expected true or false"),
        (form(ENUM, other=1), "other: not supported here"),
        (form(None), "expected a JSON schema"),
    ],
)
def test_what_is_no_response_format_is_refused_and_never_ignored(value, words):
    with pytest.raises(Refusal) as caught:
        read_response_format(value)
    assert words in str(caught.value)
    assert caught.value.failure.status == 400
    assert caught.value.failure.param.startswith("response_format")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "array", "items": ENUM},
        {**ENUM, "pattern": "(a+)+$"},
        {"type": "integer", "enum": [1]},
        {"enum": ["a", 1]},
        {"enum": [str(i) for i in range(MOST_CHOICES + 1)]},
        {"enum": ["a"], "const": "a"},
        {"type": "object", "properties": {"a": ENUM, "b": ENUM}},
        obj({"type": "string"}),
        obj(ENUM, required=["other"]),
        obj(ENUM, additionalProperties={"type": "string"}),
        obj(ENUM, minProperties=2),
        obj({"$ref": "#/$defs/E"}, **{"$defs": {"E": {"$ref": "#/$defs/E"}}}),
    ],
)
def test_any_other_schema_is_handed_on_whole(schema):
    found = read_response_format(form(schema))
    assert isinstance(found, Schema)
    assert json.loads(found.text) == schema


def test_any_object_can_be_asked_for():
    assert read_response_format({"type": "json_object"}) == Schema('{"type": "object"}')


def test_where_a_client_gives_an_enum_an_unsure_model_says_the_likeliest():
    from tailorbird.records import ABSTAINED, Completion
    from tailorbird.server.wire_answers import answer_text

    unsure = Completion(ABSTAINED, "choice", probabilities={"a": 0.4, "b": 0.6})
    assert answer_text(unsure, ClosedSet(("a", "b"), "label")) == '{"label": "b"}'
    assert answer_text(unsure, None) == ABSTAINED
