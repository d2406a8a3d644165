import json

import pytest
from endpoint import Endpoint, said

from tailorbird.data.passages import split_document
from tailorbird.errors import EndpointError, RecipeError
from tailorbird.records import Document
from tailorbird.techniques.proposing import endpoint
from tailorbird.techniques.question_proposing import proposed_questions

TEXT = (
    "# Returns\n\nHelmets may be returned within 30 days, if the strip is unbroken. Return postage is £3.80.\n\n"
    "# Hours\n\nThe shop opens at nine on working days and at ten on Saturdays; on Sundays it stays closed all day."
)
PASSAGES = split_document(Document("shop.md", TEXT), max_chars=300)
ROWS = [
    {"question": "By when must a helmet come back?", "answer": "Within  30 days"},
    {"question": "What does sending goods back cost?", "answer": "£4.80"},
    {"question": "Is it 30 days?", "answer": "30 days"},
    {"question": "What does the text say of helmets?", "answer": "Helmets"},
    {"question": "Why?", "answer": 3},
    {"question": "When does it open on a Saturday?", "answer": "at ten"},
    "nonsense",
]


def proposed(respond, per_document=6):
    server = Endpoint(respond)
    with server.running() as url:
        return proposed_questions(endpoint(f"{url}#strong", ""), [PASSAGES], per_document), server.bodies


def test_questions_are_kept_where_their_passage_holds_the_answer_word_for_word():
    found, bodies = proposed(lambda _: (200, said(f"Here: {json.dumps({'questions': ROWS})}")), 14)
    assert [(e.prompt, e.completion) for e in found] == [
        ("By when must a helmet come back?", "within 30 days"),
        ("When does it open on a Saturday?", "at ten"),
    ]
    for example in found:
        assert TEXT[slice(*example.span)] == example.completion
        assert (example.document, example.synthetic) == ("shop.md", True)
    assert len(bodies) == 2
    asked = bodies[0]["messages"][-1]["content"]
    assert "(Returns)" in asked
    assert "Write 7 questions" in asked
    assert PASSAGES[0].text in asked
    assert bodies[0]["response_format"]["json_schema"]["schema"]["required"] == ["questions"]


def test_no_more_are_taken_than_asked_for():
    found, bodies = proposed(lambda _: (200, said(json.dumps({"questions": ROWS}))), 1)
    assert len(found) == len(bodies) == 1


def test_an_endpoint_without_schemas_is_asked_without():
    good = json.dumps({"questions": ROWS[:1]})
    found, bodies = proposed(lambda body: (400, {}) if "response_format" in body else (200, said(good)), 1)
    assert (len(found), len(bodies)) == (1, 2)


@pytest.mark.parametrize("answer", ["no idea", '{"questions": 3}', '{"questions": [{"question": "Who?"}]}'])
def test_what_is_no_question_is_left_and_said(answer, caplog):
    assert proposed(lambda _: (200, said(answer)))[0] == []
    assert "strong wrote no usable question about shop.md" in caplog.text


def test_an_endpoint_that_fails_is_an_error():
    with pytest.raises(EndpointError, match="HTTP 401"):
        proposed(lambda _: (401, {"error": {"message": "no key"}}))
    with pytest.raises(
        RecipeError, match=r"knowledge: proposer is 'strong'; expected an endpoint's model, URL#model"
    ):
        endpoint("strong", "", "knowledge")
