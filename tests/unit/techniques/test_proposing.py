import json

import pytest
from endpoint import Endpoint, said

from tailorbird.errors import EndpointError, RecipeError
from tailorbird.models.blank import Blank
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.proposing import NUM_PROPOSED, endpoint, proposed_instructions
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data

DATA = tiny_data()
GOOD = json.dumps({"instructions": ["Sort the mail.", "Who is to answer?", "Sort the mail.", " ", "x" * 900]})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


def proposed(respond):
    server = Endpoint(respond)
    with server.running() as url:
        return proposed_instructions(endpoint(f"{url}#strong", ""), DATA, 0), server.bodies


def test_an_endpoint_is_told_the_task_and_its_instructions_are_read():
    found, (body,) = proposed(lambda _: (200, said(f"Here you are: {GOOD}")))
    assert found == ("Sort the mail.", "Who is to answer?")
    question = body["messages"][-1]["content"]
    assert DATA.task.instruction in question
    assert all(f"Output: {label}" in question for label in DATA.task.labels)
    assert not any(e.prompt in question for e in DATA.test if e.prompt not in [t.prompt for t in DATA.train])
    items = body["response_format"]["json_schema"]["schema"]["properties"]["instructions"]
    assert items["maxItems"] == NUM_PROPOSED


def test_an_endpoint_without_schemas_is_asked_without():
    found, bodies = proposed(lambda body: (400, {}) if "response_format" in body else (200, said(GOOD)))
    assert found
    assert len(bodies) == 2


@pytest.mark.parametrize("answer", ["no idea", '{"instructions": 3}', '{"instructions": [3, ""]}'])
def test_what_is_no_instruction_is_left_and_said(answer, caplog):
    assert proposed(lambda _: (200, said(answer)))[0] == ()
    assert "strong proposed no usable instruction" in caplog.text


def test_an_endpoint_that_fails_is_an_error():
    with pytest.raises(EndpointError, match="HTTP 401"):
        proposed(lambda _: (401, {"error": {"message": "no key"}}))


def test_what_is_proposed_races_with_the_rest():
    class Likes(Blank):
        """Right where it is told to sort the mail."""

        def answer(self, requests):
            answers = super().answer(requests)
            return [self.made(r, a) for r, a in zip(requests, answers, strict=True)]

        def made(self, request, answer):
            from dataclasses import replace

            right = next(e.completion for e in DATA.dev if e.prompt == request.question)
            told = request.messages[0].content == "Sort the mail."
            return replace(answer, text=right if told else "none")

    server = Endpoint(lambda _: (200, said(GOOD)))
    with server.running() as url:
        technique = FewShot(
            k=1, select="nearest", layout="chat", tune=True, calibrate="none", proposer=f"{url}#strong"
        )
        made = technique.apply(Likes(), DATA).rewrite
    assert made.instruction == "Sort the mail."


@pytest.mark.parametrize("reference", ["starter", "http://x/v1", "http://x/v1#", "#m"])
def test_a_proposer_is_an_endpoints_model(reference):
    with pytest.raises(RecipeError, match=r"few_shot: proposer is .*expected an endpoint's model, URL#model"):
        FewShot(tune=True, proposer=reference)


@pytest.mark.parametrize("settings", [{}, {"tune": True, "instruction": "x"}])
def test_a_proposer_without_a_race_is_refused(settings):
    with pytest.raises(RecipeError, match="which takes tune = true and no instruction given"):
        FewShot(proposer="http://127.0.0.1:1/v1#m", **settings)
