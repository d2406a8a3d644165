"""Answers bound to a JSON schema: whatever the weights would say, they are documents of it."""

import json
from dataclasses import replace

import pytest

from tailorbird.errors import InputError, RequestError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.records import Message, Request, Sampling
from tailorbird.testing.tiny import tiny_model

MODEL = tiny_model()
TICKET = {
    "type": "object",
    "properties": {
        "team": {"enum": ["order", "repair"]},
        "urgent": {"type": "boolean"},
        "days": {"type": "integer", "minimum": 0, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["team", "urgent", "days", "tags"],
    "additionalProperties": False,
}


def asked(text="my bike broke", schema=TICKET, **sampling):
    settings = Sampling(**{"max_tokens": 200, **sampling})
    return Request((Message("user", text),), settings, schema=json.dumps(schema))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_random_weights_write_documents_of_the_schema(temperature):
    requests = [asked(f"number {n}", temperature=temperature, seed=n) for n in range(6)]
    answers = MODEL.answer(requests)
    assert len({a.text for a in answers}) > 1
    for answer in answers:
        assert answer.finish_reason == "stop"
        found = json.loads(answer.text)
        assert set(found) == set(TICKET["properties"])
        assert found["team"] in ("order", "repair")
        assert isinstance(found["urgent"], bool)
        assert 0 <= found["days"] <= 30
        assert len(found["tags"]) <= 2
        assert all(len(tag) <= 4 for tag in found["tags"])


def test_without_a_schema_the_same_weights_write_no_document():
    with pytest.raises(ValueError, match=r"Expecting|Extra"):
        json.loads(MODEL.answer([replace(asked(), schema=None)])[0].text)


def test_batched_streamed_and_plainly_laid_out_it_is_the_same_kind_of_document():
    request = asked()
    alone = MODEL.answer([request])[0].text
    assert "".join(MODEL.stream(request)) == alone
    assert MODEL.answer([asked("other"), request])[1].text == alone
    plain = MODEL.answer([replace(request, layout="plain")])[0]
    assert set(json.loads(plain.text)) == set(TICKET["properties"])


def test_an_answer_that_is_cut_off_says_so():
    assert MODEL.answer([asked(max_tokens=3)])[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        ("[1", InputError, "schema: not valid JSON"),
        ("[1]", InputError, r"schema: got '\[1\]'; expected a JSON schema, an object"),
        ('{"type": "banana"}', RequestError, "schema: it can't be kept to"),
        ('{"if": {"type": "string"}}', RequestError, "schema: it can't be kept to .*if"),
        ('{"$ref": "http://127.0.0.1/x"}', RequestError, "schema: it can't be kept to"),
        ('{"enum": []}', RequestError, "schema: it can't be kept to"),
    ],
)
def test_a_schema_that_cannot_be_kept_to_is_refused(schema, error, message):
    with pytest.raises(error, match=message):
        MODEL.answer([replace(asked(), schema=schema)])


def test_choices_and_a_schema_together_are_refused():
    with pytest.raises(RequestError, match=r"choices and a schema\. Give one of the two"):
        MODEL.answer([replace(asked(), choices=("a", "b"))])


def test_a_model_that_cannot_be_bound_says_so():
    with pytest.raises(Unsupported, match="model 'blank' cannot be bound to a JSON schema"):
        Blank().answer([asked()])
