"""The unmodified official client against a real server on a loopback port."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import openai
import pytest
from pydantic import BaseModel
from served_models import LABELS, SmallWorkbench, running, wait_until

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def workbench():
    return SmallWorkbench()


@pytest.fixture(scope="module")
def url(workbench):
    with running(workbench, references=["hf:maker/model"], keep_alive_s=0.05, num_threads=4) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url):
    with client_of(url) as client:
        yield client


def client_of(url, key="unused", **settings):
    return openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        max_retries=0,
        timeout=10,
        _strict_response_validation=True,
        **settings,
    )


def enum_format(*values, name=None):
    enum = {"type": "string", "enum": list(values)}
    schema = enum
    if name:
        schema = {
            "type": "object",
            "properties": {name: enum},
            "required": [name],
            "additionalProperties": False,
        }
    return {"type": "json_schema", "json_schema": {"name": "label", "schema": schema, "strict": True}}


# -- models -----------------------------------------------------------------------------------


def test_the_client_lists_what_the_workbench_lists(client, workbench):
    models = client.models.list().data
    assert [m.id for m in models] == [*workbench.built, "hf:maker/model"]
    assert {m.object for m in models} == {"model"}
    assert models[0].created == workbench.created


def test_the_client_retrieves_a_model_whose_id_has_a_slash(client):
    assert client.models.retrieve("hf:maker/model").id == "hf:maker/model"


def test_a_model_that_is_not_there_is_a_not_found_error_that_lists_the_others(client):
    with pytest.raises(
        openai.NotFoundError, match=r"does not exist here\. There are: sorter, echo"
    ) as caught:
        client.models.retrieve("gpt-5")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-5", messages=HELLO)


def test_a_model_id_is_never_taken_for_a_path_or_an_address(client, workbench, tmp_path):
    before = list(workbench.opened)
    for reference in (str(tmp_path), "hf:other/model", "http://127.0.0.1:1/v1#m", "../secret"):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=reference, messages=HELLO)
    assert workbench.opened == before


# -- answers ----------------------------------------------------------------------------------


def test_an_answer_is_made_by_the_models_task_when_the_client_brings_no_instruction(client):
    answer = client.chat.completions.create(model="echo", messages=HELLO)
    assert answer.choices[0].message.content == "system: Answer briefly. | user: hello | 7 0.0 1.0 None ()"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint.startswith("fp_")
    assert answer._request_id.startswith("req_")


def test_the_clients_instruction_and_sampling_take_the_tasks_place(client):
    messages = [{"role": "developer", "content": [{"type": "text", "text": "Be rude."}]}, *HELLO]
    answer = client.chat.completions.create(
        model="echo",
        messages=messages,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        max_completion_tokens=9,
        stop=["x"],
    )
    assert answer.choices[0].message.content == "system: Be rude. | user: hello | 9 0.5 0.9 3 ('x',)"


def test_a_classifier_answers_with_a_label_and_all_probabilities(client):
    answer = client.chat.completions.create(model="sorter", messages=HELLO, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == "card arrival"
    assert answer.tailorbird["probabilities"] == {label: pytest.approx(1 / 3) for label in LABELS}


def test_an_enum_of_the_clients_replaces_the_labels(client):
    answer = client.chat.completions.create(
        model="sorter", messages=HELLO, response_format=enum_format("yes", "no")
    )
    assert answer.choices[0].message.content == "yes"
    assert set(answer.tailorbird["probabilities"]) == {"yes", "no"}


def test_an_enum_inside_an_object_is_answered_as_json(client):
    answer = client.chat.completions.create(
        model="sorter", messages=HELLO, response_format=enum_format("é", "b", name="mark")
    )
    assert json.loads(answer.choices[0].message.content) == {"mark": "é"}


def test_the_parse_method_gives_the_clients_own_class(client):
    class Verdict(BaseModel):
        label: Literal["good", "bad"]

    answer = client.chat.completions.parse(model="sorter", messages=HELLO, response_format=Verdict)
    assert answer.choices[0].message.parsed == Verdict(label="good")


def test_a_model_that_leaves_the_closed_set_is_an_error_and_never_an_answer(client):
    with pytest.raises(openai.InternalServerError, match="none of the 2 values of the enum") as caught:
        client.chat.completions.create(model="liar", messages=HELLO, response_format=enum_format("yes", "no"))
    assert caught.value.status_code == 502


def test_evidence_usage_and_what_was_dropped_are_told(client):
    answer = client.chat.completions.create(model="reader", messages=HELLO)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        5,
        7,
        12,
    )
    assert answer.tailorbird["technique"] == "counter + knowledge"
    assert answer.tailorbird["dropped"] == ["evidence 3: context full"]
    assert answer.tailorbird["evidence"] == [
        {
            "n": 1,
            "document": "fees.md",
            "title": "Fees",
            "headings": ["Cards"],
            "start": 10,
            "end": 30,
            "page": 2,
            "score": 0.75,
            "source": "",
            "text": "A card costs 5 euro.",
        }
    ]


def test_our_own_answer_can_be_appended_to_the_conversation(client):
    answer = client.chat.completions.create(model="bare", messages=HELLO)
    messages = [*HELLO, answer.choices[0].message, {"role": "user", "content": "and now?"}]
    again = client.chat.completions.create(model="bare", messages=messages)
    assert again.choices[0].message.content.startswith("user: hello | assistant: user: hello")


# -- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["sorter", "echo", "bare", "counter", "reader"])
def test_the_streamed_pieces_join_to_the_whole_answer(client, model):
    whole = client.chat.completions.create(model=model, messages=HELLO, max_tokens=20)
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, max_tokens=20, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    finishes = [c.choices[0].finish_reason for c in chunks]
    assert finishes == [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason]
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[-1].tailorbird["technique"] == whole.tailorbird["technique"]


def test_the_final_chunk_of_a_stream_carries_the_whole_record(client):
    whole = client.chat.completions.create(model="reader", messages=HELLO)
    *_, last = client.chat.completions.create(model="reader", messages=HELLO, stream=True)
    assert last.tailorbird == whole.tailorbird


def test_a_stream_without_a_record_says_that_it_knows_none(client):
    options = {"include_usage": True}
    *_, final, usage = client.chat.completions.create(
        model="bare", messages=HELLO, stream=True, stream_options=options
    )
    assert final.tailorbird["evidence"] is final.tailorbird["citations"] is None
    assert usage.usage is None


def test_usage_comes_in_a_last_chunk_without_choices(client):
    options = {"include_usage": True}
    *chunks, usage = client.chat.completions.create(
        model="counter", messages=HELLO, max_tokens=4, stream=True, stream_options=options
    )
    assert usage.choices == []
    assert usage.usage.completion_tokens == 4
    assert {c.usage for c in chunks} == {None}


def test_the_clients_stream_helper_accumulates_to_the_answer(client):
    with client.chat.completions.stream(model="counter", messages=HELLO, max_tokens=2) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == "0 1 "


def test_a_stream_of_a_closed_set_in_an_object_is_the_json(client):
    chunks = client.chat.completions.create(
        model="sorter", messages=HELLO, stream=True, response_format=enum_format("a", "b", name="label")
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == '{"label": "a"}'


@pytest.mark.parametrize(
    ("model", "message"),
    [("cut off", "endpoint: gone"), ("breaking", "The server failed on this request")],
)
def test_a_stream_that_breaks_off_raises_and_never_ends_quietly(client, model, message):
    stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "0 ", "1 "]
    with pytest.raises(openai.APIError, match=message) as caught:
        next(stream)
    assert "secret" not in str(caught.value)


def test_a_stream_that_fails_before_its_first_piece_has_an_error_status(client):
    with pytest.raises(openai.BadRequestError, match="9000 tokens") as caught:
        client.chat.completions.create(model="full", messages=HELLO, stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_stops_reading_stops_the_model(client, workbench):
    workbench.stuck.closed.clear()
    workbench.stuck.written.clear()
    stream = client.chat.completions.create(model="stuck", messages=HELLO, max_tokens=20_000, stream=True)
    next(iter(stream))
    stream.close()
    assert wait_until(workbench.stuck.closed.is_set), "the model's stream was not closed"
    assert len(workbench.stuck.written) < 1000


def test_many_clients_going_away_leave_every_worker_free(client, workbench):
    for _ in range(12):  # three times as many as there are workers
        stream = client.chat.completions.create(model="stuck", messages=HELLO, max_tokens=20_000, stream=True)
        next(iter(stream))
        stream.close()
    assert client.chat.completions.create(model="counter", messages=HELLO, max_tokens=1).choices


# -- failures ---------------------------------------------------------------------------------


def test_a_field_that_is_not_supported_is_named(client):
    with pytest.raises(openai.BadRequestError, match="frequency_penalty: only 0 is supported") as caught:
        client.chat.completions.create(model="bare", messages=HELLO, frequency_penalty=1)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "frequency_penalty")


def test_logprobs_of_a_free_answer_are_refused(client):
    with pytest.raises(openai.BadRequestError, match="only closed sets have probabilities"):
        client.chat.completions.create(model="bare", messages=HELLO, logprobs=True)


def test_fields_that_do_not_bear_on_the_answer_are_accepted(client):
    assert client.chat.completions.create(
        model="bare", messages=HELLO, user="me", metadata={"a": "b"}, store=False, service_tier="auto", n=1
    ).choices


def test_a_prompt_that_does_not_fit_is_context_length_exceeded(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="full", messages=HELLO)
    assert caught.value.code == "context_length_exceeded"


def test_a_body_that_is_too_large_is_413(client):
    messages = [{"role": "user", "content": "x" * 3_000_000}]
    with pytest.raises(openai.APIStatusError, match="more than 2000000 bytes") as caught:
        client.chat.completions.create(model="bare", messages=messages)
    assert caught.value.status_code == 413


def test_a_defect_tells_nothing_of_the_inside(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="defective", messages=HELLO)
    assert "secret" not in str(caught.value)
    assert caught.value.request_id in str(caught.value)


def test_a_model_that_cannot_be_opened_is_tried_once(client, workbench):
    with pytest.raises(openai.InternalServerError, match="sha256 differs") as caught:
        client.with_options(max_retries=2).chat.completions.create(model="broken folder", messages=HELLO)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert workbench.opened.count("broken folder") == 1


def test_the_key_is_asked_for():
    with running(SmallWorkbench(), key="a long secret") as server:
        for wrong in ("wrong", "a long secret2"):
            with (
                client_of(server.url, wrong) as stranger,
                pytest.raises(openai.AuthenticationError) as caught,
            ):
                stranger.models.list()
            assert caught.value.code == "invalid_api_key"
            assert wrong not in str(caught.value)
        with client_of(server.url, "a long secret") as friend:
            assert friend.models.list().data
            assert friend.chat.completions.create(model="bare", messages=HELLO).choices


# -- many at a time ---------------------------------------------------------------------------


def test_sixteen_at_a_time_each_get_their_own_answer(client):
    def ask(number):
        messages = [{"role": "user", "content": f"number {number}"}]
        if number % 2:
            return client.chat.completions.create(model="bare", messages=messages).choices[0].message.content
        stream = client.chat.completions.create(model="bare", messages=messages, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    assert answers == [f"user: number {n} | 128 0.0 1.0 None ()" for n in range(32)]


def test_a_model_is_opened_once_however_many_ask_and_again_when_made_anew():
    workbench = SmallWorkbench()
    with running(workbench) as server, client_of(server.url) as client, ThreadPoolExecutor(8) as pool:

        def ask(_):
            return client.chat.completions.create(model="bare", messages=HELLO).system_fingerprint

        first = set(pool.map(ask, range(16)))
        assert workbench.opened == ["bare"]
        workbench.created += 1
        second = set(pool.map(ask, range(16)))
        assert workbench.opened == ["bare", "bare"]
    assert len(first) == len(second) == 1
    assert first != second


def test_more_than_can_wait_are_sent_away_to_come_again():
    workbench = SmallWorkbench()
    with (
        running(workbench, num_threads=1, num_waiting=1) as server,
        client_of(server.url) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [
            pool.submit(client.chat.completions.create, model="gated", messages=HELLO) for _ in range(2)
        ]
        assert wait_until(lambda: server.num_under_way == 2)
        with pytest.raises(openai.RateLimitError, match="2 requests are under way") as caught:
            client.chat.completions.create(model="gated", messages=HELLO)
        assert caught.value.code == "queue_full"
        assert caught.value.response.headers["retry-after"] == "1"
        assert "x-should-retry" not in caught.value.response.headers
        workbench.gate.set()
        assert {future.result().choices[0].message.content for future in waiting} == {"through"}


def test_a_request_whose_client_left_while_it_waited_is_never_begun():
    workbench = SmallWorkbench()
    with running(workbench, num_threads=1) as server, client_of(server.url) as client:
        holder = threading.Thread(
            target=lambda: client.chat.completions.create(model="gated", messages=HELLO)
        )
        holder.start()
        assert wait_until(lambda: workbench.opened == ["gated"])
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.2).chat.completions.create(model="bare", messages=HELLO)
        assert wait_until(lambda: server.num_under_way == 1), "the request still waits"
        workbench.gate.set()
        holder.join()
        assert client.chat.completions.create(model="counter", messages=HELLO, max_tokens=1).choices
        assert "bare" not in workbench.opened
