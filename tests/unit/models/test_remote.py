import json
import math
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from endpoint import Endpoint, said

from tailorbird.errors import ContextTooLong, EndpointError, InputError, RequestError, Unsupported
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Example, Message, Passage, Prior, Request, Sampling
from tailorbird.testing.models import check_model

LABELS = ("card", "card arrival", "refund")
FREE = Request(
    (Message("system", "Be brief."), Message("user", "Where is it?")),
    Sampling(max_tokens=9, stop=("!",), seed=3),
)
CLOSED = Request((Message("user", "Where is it?"),), choices=LABELS)


@contextmanager
def remote(respond, **settings):
    """Remote weights and the endpoint that they ask."""
    endpoint = Endpoint(respond)
    with endpoint.running() as url:
        yield RemoteWeights(url, "some-model", **{"key_env": "", **settings}), endpoint


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited between attempts, without waiting."""
    waited = []
    monkeypatch.setattr("tailorbird.models.remote.time.sleep", waited.append)
    return waited


def obedient(body):
    """Keeps to the schema if there is one, and streams if it is asked to."""
    if form := body.get("response_format"):
        label = min(form["json_schema"]["schema"]["properties"]["label"]["enum"])
        return 200, said(json.dumps({"label": label}))
    text = f"You said: {body['messages'][-1]['content']}"
    if not body.get("stream"):
        return 200, said(text)
    pieces = [{"choices": [{"delta": {"content": text[n : n + 3]}}]} for n in range(0, len(text), 3)]
    events = [{"choices": [{"delta": {"role": "assistant"}}]}, *pieces, {"choices": []}]
    lines = [": a comment", *(f"data: {json.dumps(event)}\n" for event in events), "data: [DONE]\n", ""]
    return 200, "\n".join(lines).encode()


def test_remote_weights_keep_the_models_contract():
    with remote(obedient) as (model, _):
        check_model(model)


def test_a_request_is_sent_as_it_is_and_the_answer_comes_back_whole(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    with remote(lambda _: (200, said("In Ghent.", finish_reason="length")), key_env="SOME_KEY") as (
        model,
        endpoint,
    ):
        answer = model.answer([FREE])[0]
    assert (answer.text, answer.finish_reason, answer.asked) == ("In Ghent.", "length", FREE)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_tokens) == (7, 2, 4)
    assert endpoint.headers[0]["Authorization"] == "Bearer secret"
    assert endpoint.bodies[0] == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 3,
        "stop": ["!"],
    }


def test_no_key_is_sent_where_there_is_none(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with remote(obedient, key_env="NO_SUCH_KEY") as (model, endpoint):
        model.answer([FREE])
    assert "Authorization" not in endpoint.headers[0]


def test_evidence_stands_before_the_question():
    with remote(obedient) as (model, endpoint):
        model.answer([replace(FREE, evidence=(Passage("p", "d", "In Ghent."),))])
    assert endpoint.bodies[0]["messages"][-1]["content"] == "[1] In Ghent.\n\nQuestion: Where is it?"


def test_answers_come_in_order_though_they_are_asked_at_once():
    def slow_first(body):
        time.sleep(0.1 if "0" in body["messages"][-1]["content"] else 0)
        return obedient(body)

    with remote(slow_first) as (model, _):
        requests = [Request((Message("user", f"number {n}"),)) for n in range(8)]
        assert [a.text for a in model.answer(requests)] == [f"You said: number {n}" for n in range(8)]


def test_a_closed_set_is_asked_by_a_schema_with_room_for_its_json():
    with remote(lambda _: (200, said('{"label": "card arrival"}'))) as (model, endpoint):
        answer = model.answer([CLOSED])[0]
    assert (answer.text, answer.finish_reason, answer.valid) == ("card arrival", "choice", True)
    form = endpoint.bodies[0]["response_format"]["json_schema"]
    assert form["schema"]["properties"]["label"]["enum"] == list(LABELS)
    assert form["strict"] is True
    assert endpoint.bodies[0]["max_tokens"] > CLOSED.sampling.max_tokens


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("Card arrival.", "card arrival"),
        ("card_arrival", "card arrival"),
        ("The category is **refund**", "refund"),
        ("I think it is `card arrival`!", "card arrival"),
        ("a card, or a refund", None),
        ("discard", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_where_a_schema_is_refused_the_words_are_read_and_nonsense_is_invalid(words, label):
    def respond(body):
        return (
            (400, {"error": {"message": "no response_format"}})
            if "response_format" in body
            else (200, said(words))
        )

    with remote(respond) as (model, _):
        answer = model.answer([CLOSED])[0]
    assert answer.text == (label or words)
    assert answer.valid is (label is not None)
    assert answer.probabilities is None


def test_a_schema_that_must_be_kept_and_is_refused_is_an_error():
    with remote(lambda _: (400, {"error": {"message": "no response_format"}}), labels="schema") as (model, _):
        with pytest.raises(EndpointError, match="HTTP 400: no response_format") as caught:
            model.answer([CLOSED])
        assert caught.value.status == 400


def test_an_endpoint_that_ignores_the_schema_is_read_all_the_same():
    with remote(lambda _: (200, said("refund"))) as (model, _):
        assert model.answer([CLOSED])[0].text == "refund"
    with remote(lambda _: (200, said('{"label": "other"}'))) as (model, _):
        assert model.answer([CLOSED])[0].valid is False


def logprobs(**chances):
    top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
    return said("x", logprobs={"content": [{"top_logprobs": top}]})


def test_log_probabilities_of_the_first_token_become_the_labels_probabilities():
    with remote(lambda _: (200, logprobs(ref=0.6, re=0.15, order=0.2)), labels="logprobs") as (
        model,
        endpoint,
    ):
        answer = model.answer([Request(CLOSED.messages, choices=("refund", "order", "card"))])[0]
    assert answer.text == "refund"
    assert dict(answer.probabilities) == pytest.approx(
        {"refund": 0.75 / 0.95, "order": 0.2 / 0.95, "card": 0}
    )
    assert endpoint.bodies[0]["max_tokens"] == 1


def test_a_prior_is_multiplied_with_an_endpoints_probabilities_and_refused_where_there_are_none():
    asked = Request(CLOSED.messages, choices=("refund", "order"), prior=Prior((0.0, math.log(9.0))))
    with remote(lambda _: (200, logprobs(refund=0.6, order=0.2)), labels="logprobs") as (model, _):
        answer = model.answer([asked])[0]
    assert answer.text == "order"
    assert dict(answer.probabilities) == pytest.approx({"refund": 0.25, "order": 0.75})
    with (
        remote(lambda _: (200, said("refund"))) as (model, _),
        pytest.raises(Unsupported, match=r"the model gives no probabilities.*labels = \"logprobs\""),
    ):
        model.answer([asked])


def test_a_first_token_that_tells_no_labels_apart_is_not_counted():
    with remote(
        lambda body: (200, logprobs(card=1.0) if "logprobs" in body else said("card")), labels="logprobs"
    ) as (
        model,
        _,
    ):
        answer = model.answer([CLOSED])[0]
    assert (answer.text, answer.probabilities) == ("card", None)


@pytest.mark.parametrize("odd", [None, {"content": []}, {"content": [{"top_logprobs": [{"token": "a"}]}]}])
def test_an_endpoint_without_log_probabilities_is_an_error_that_says_what_else_to_use(odd):
    with (
        remote(lambda _: (200, said("x", logprobs=odd)), labels="logprobs") as (model, _),
        pytest.raises(EndpointError, match=r"no logprobs for 'some-model'.*labels='schema'"),
    ):
        model.answer([CLOSED])


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_endpoint_is_asked_again_after_the_time_it_names(status, waits):
    replies = iter(
        [(status, {}, {"retry-after": "3"}), (status, {}, {"retry-after": "-1"}), (200, said("at last"))]
    )
    with remote(lambda _: next(replies)) as (model, _):
        assert model.answer([FREE])[0].text == "at last"
    assert waits == [3.0, 0.0]


def test_an_endpoint_that_stays_busy_is_an_error_after_three_attempts(waits):
    with (
        remote(lambda _: (429, {"error": {"message": "slow down"}}, {"retry-after": "900"})) as (
            model,
            endpoint,
        ),
        pytest.raises(EndpointError, match="HTTP 429: slow down") as caught,
    ):
        model.answer([FREE])
    assert (caught.value.status, len(endpoint.bodies)) == (429, 3)
    assert waits == [20.0, 20.0]


def test_a_wrong_key_is_an_error_that_says_where_the_key_comes_from():
    with remote(lambda _: (401, {"error": {"message": "bad key"}})) as (model, endpoint):
        with pytest.raises(EndpointError, match=r"HTTP 401: bad key Check the key .*--key-env"):
            model.answer([FREE])
        with pytest.raises(EndpointError, match="HTTP 401"):
            list(model.stream(FREE))
    assert len(endpoint.bodies) == 2


def test_what_is_not_json_is_an_error_that_shows_it(waits):
    with (
        remote(lambda _: (200, b"<html>hello</html>")) as (model, _),
        pytest.raises(EndpointError, match=r"not JSON: '<html>hello</html>'.*ends in /v1"),
    ):
        model.answer([FREE])
    with (
        remote(lambda _: (500, b"<html>broken</html>")) as (model, _),
        pytest.raises(EndpointError, match="HTTP 500: <html>broken"),
    ):
        model.answer([FREE])
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize(
    "odd", [[], {}, {"choices": []}, {"choices": [{}]}, said(["parts"]), {**said("x"), "usage": [1]}]
)
def test_json_of_another_shape_is_an_error_that_shows_it(odd):
    with (
        remote(lambda _: (200, odd)) as (model, _),
        pytest.raises(EndpointError, match=r"has no choices\[0\].message.content. Got"),
    ):
        model.answer([FREE])


def test_nobody_there_is_an_error_that_names_url_and_model(waits):
    with Endpoint(obedient).running() as url:
        pass
    with pytest.raises(
        EndpointError, match=rf"endpoint {url}: no answer for model 'm' \(ConnectError.*server runs"
    ):
        RemoteWeights(url, "m", key_env="").answer([FREE])
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("url", ["http://host:port/v1", "127.0.0.1:8000/v1", "ftp://host/v1", "", "http://"])
def test_an_address_that_is_none_is_an_error(url):
    with pytest.raises(InputError, match=r"not a usable URL.*Expected http://host:port/v1"):
        RemoteWeights(url, "m", key_env="").answer([FREE])


def test_pieces_are_streamed_as_they_come():
    with remote(obedient) as (model, endpoint):
        pieces = list(model.stream(FREE))
    assert len(pieces) > 5
    assert "".join(pieces) == "You said: Where is it?"
    assert endpoint.bodies[0]["stream"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'data: {"error": {"message": "out of memory"}}\n\n', "broke off: out of memory. Ask again"),
        (b"data: {oops\n\n", "no chat completion chunk: 'data: {oops'"),
        (b'data: {"choices": [1]}\n\n', "no chat completion chunk"),
        (b'data: {"choices": [{"delta": {"content": "In"}}]}\n\n', "ended in the middle of the answer"),
    ],
)
def test_a_stream_that_breaks_is_an_error(line, message):
    with remote(lambda _: (200, line)) as (model, _), pytest.raises(EndpointError, match=message):
        list(model.stream(FREE))


def test_a_request_that_makes_no_sense_is_not_sent():
    with remote(obedient) as (model, endpoint):
        with pytest.raises(RequestError):
            model.answer([Request((), choices=LABELS)])
        with pytest.raises(RequestError):
            list(model.stream(Request(CLOSED.messages, choices=("a", "a"))))
    assert endpoint.bodies == []


def test_asking_an_endpoint_needs_no_torch():
    code = "import sys; import tailorbird.models.remote; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plain_layout_is_refused():
    with remote(obedient) as (model, endpoint):
        for ask in (lambda r: model.answer([r]), lambda r: list(model.stream(r))):
            with pytest.raises(Unsupported, match=r"layout = 'plain' is not to be had"):
                ask(replace(FREE, layout="plain"))
    assert endpoint.bodies == []


def test_a_budget_of_tokens_is_kept_by_an_estimate_and_what_is_left_out_is_named():
    examples = tuple(Example.pair(f"question {n} " + "x" * 60, f"answer {n}") for n in range(4))
    with remote(obedient) as (model, endpoint):
        answer = model.answer([replace(FREE, examples=examples, prompt_tokens=100)])[0]
        sent = [m["content"] for m in endpoint.bodies[0]["messages"]]
        assert answer.asked.examples == examples[2:]
        assert sent[1:3] == [examples[2].prompt, "answer 2"]
        ids = [line.split(":")[0] for line in answer.dropped]
        assert ids == [f"example {examples[1].id}", f"example {examples[0].id}"]
        assert all("budget of 100 tokens full, by estimate" in line for line in answer.dropped)
        with pytest.raises(ContextTooLong, match="its prompt may have 5"):
            model.answer([replace(FREE, prompt_tokens=5)])
