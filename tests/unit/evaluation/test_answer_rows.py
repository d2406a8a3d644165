"""An answer's record keeps where its passages are from, and what it had to do without."""

import json
from dataclasses import replace

import pytest

from tailorbird.evaluation.answer_rows import (
    completion_from_json,
    completion_to_json,
    request_from_json,
    request_to_json,
)
from tailorbird.evaluation.report_answers import _seen
from tailorbird.records import Completion, Message, Passage, Reader, Request, Scope

WIKI = Passage("w", "https://wiki.example/Card", "A card.", "Card", source="wiki")
ASKED = Request(
    (Message("user", "card?"),), evidence=(WIKI,), lacking=("source shop: it took longer than 5 s.",)
)
ANSWER = Completion("A card.", asked=ASKED, dropped=("evidence 2: context full",))


def test_a_record_comes_back_whole():
    row = json.loads(json.dumps(completion_to_json(ANSWER)))
    assert completion_from_json(row) == ANSWER
    assert ANSWER.left_out == ("source shop: it took longer than 5 s.", "evidence 2: context full")


def test_a_record_of_earlier_is_read():
    row = json.loads(json.dumps(completion_to_json(ANSWER)))
    del row["asked"]["lacking"]
    del row["asked"]["evidence"][0]["source"]
    assert completion_from_json(row).asked == replace(ASKED, lacking=(), evidence=(replace(WIKI, source=""),))


def test_a_report_shows_both():
    shown = _seen("knowledge", ANSWER)
    assert "passage 1 · wiki · Card · https://wiki.example/Card" in shown
    assert "sources that failed" in shown
    assert "source shop: it took longer than 5 s." in shown
    assert "left out to fit the context" in shown


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
