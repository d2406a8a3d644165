"""Chat requests: every field is honoured, ignored by a published list, or refused by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data.task import Task
from tailorbird.models.blank import Blank
from tailorbird.records import Message, Sampling
from tailorbird.server.failures import Refusal
from tailorbird.server.wire import HONOURED, IGNORED, MOST_MESSAGES, MOST_TOKENS, NEUTRAL, read_chat
from tailorbird.workbench import OpenModel

USER = {"role": "user", "content": "hi"}
BODY = {"model": "m", "messages": [USER]}
SORTER = OpenModel("sorter", Blank(), Task("classify", "Sort.", ("a", "b"), max_tokens=5))
WRITER = OpenModel("writer", Blank(), Task("answer", "Write.", max_tokens=5))


def refused(**fields):
    with pytest.raises(Refusal) as caught:
        read_chat({**BODY, **fields})
    return caught.value.failure


def test_the_smallest_request_leaves_everything_to_the_model():
    chat = read_chat(BODY)
    assert chat.messages == (Message("user", "hi"),)
    assert (dict(chat.sampling), chat.closed_set, chat.stream, chat.include_usage) == ({}, None, False, False)


def test_developer_is_system_and_text_parts_are_joined_by_lines():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    assert read_chat({**BODY, "messages": messages}).messages == (
        Message("system", "be brief"),
        Message("user", "one\ntwo"),
    )


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([], "messages", "an empty list"),
        ("hi", "messages", "got a string"),
        (["hi"], "messages[0]", "got a string"),
        ([{"role": "tool", "content": "x"}], "messages[0].role", 'got "tool"'),
        ([{"role": ["user"], "content": "x"}], "messages[0].role", "expected one of"),
        ([{"role": "user"}], "messages[0].content", "got null"),
        ([{"role": "user", "content": []}], "messages[0].content", "got a list"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]", "image_url"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "messages[0].content[0]", "expected"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "", "x": 1}]}],
            "messages[0].content[0].x",
            "not supp",
        ),
        ([{**USER, "tool_calls": [{}]}], "messages[0].tool_calls", "not supported"),
        ([{**USER, "tailorbird": {}}], "messages[0].tailorbird", "not supported"),
        ([USER, {"role": "assistant", "content": "x"}], "messages", "the last message is the assistant's"),
        ([USER] * (MOST_MESSAGES + 1), "messages", "got 1001; expected at most 1000"),
    ],
)
def test_messages_that_cannot_be_read_are_refused_by_place(messages, param, words):
    failure = refused(messages=messages)
    assert (failure.status, failure.param) == (400, param)
    assert words in failure.message


def test_empty_fields_of_an_answer_that_is_sent_back_are_no_news():
    turn = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
        "name": "me",
    }
    assert len(read_chat({**BODY, "messages": [USER, turn, USER]}).messages) == 3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("model", ["", 1, []]),
        ("temperature", [-0.1, 2.1, "1", True, float("inf"), []]),
        ("top_p", [0, 1.1, False, "x"]),
        ("max_tokens", [0, -1, 1.5, True, MOST_TOKENS + 1, 2**31, "9"]),
        ("max_completion_tokens", [0, 2**63]),
        ("seed", [1.5, 2**63, "1"]),
        ("stop", [["a"] * 5, "", [""], [1], {}]),
        ("stream", [1, "true"]),
        ("stream_options", [{"include_usage": True}]),
        ("logprobs", [1]),
        ("top_logprobs", [3]),
    ],
)
def test_values_out_of_range_are_refused_by_field(field, values):
    for value in values:
        failure = refused(**{field: value})
        assert (failure.status, failure.code, failure.param) == (400, "invalid_value", field)
        assert failure.message.startswith(field)


@pytest.mark.parametrize(
    "field", ["tools", "functions", "audio", "prediction", "web_search_options", "best_of", "lora"]
)
def test_a_field_that_cannot_be_honoured_is_never_dropped(field):
    failure = refused(**{field: [{"type": "function"}]})
    assert (failure.code, failure.param) == ("unsupported_parameter", field)


def test_an_unknown_field_is_refused_with_the_lists_of_what_is_known():
    failure = refused(temprature=1)
    assert "Supported: model, messages" in failure.message
    assert "accepted and ignored: user, metadata" in failure.message
    assert refused(unknown=None).code == "unsupported_parameter"


@pytest.mark.parametrize("field", NEUTRAL)
def test_a_neutral_value_is_taken_and_any_other_refused(field):
    for value in NEUTRAL[field]:
        assert read_chat({**BODY, field: value})
    assert refused(**{field: 3}).code == "unsupported_parameter"
    assert refused(**{field: True}).code == "unsupported_parameter"


def test_the_published_lists_do_not_overlap():
    assert len({*HONOURED, *IGNORED, *NEUTRAL}) == len(HONOURED) + len(IGNORED) + len(NEUTRAL)


def test_ignored_fields_and_nulls_change_nothing():
    nulls = dict.fromkeys([*HONOURED[2:], *NEUTRAL])
    assert read_chat({**BODY, **nulls, **dict.fromkeys(IGNORED, "anything")}) == read_chat(BODY)


def test_both_limits_of_length_are_one_too_many():
    assert refused(max_tokens=3, max_completion_tokens=3).param == "max_completion_tokens"


def test_stream_options_are_read_and_unknown_ones_refused():
    assert read_chat({**BODY, "stream": True, "stream_options": {"include_usage": True}}).include_usage
    failure = refused(stream=True, stream_options={"x": 1})
    assert failure.param == "stream_options.x"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
@settings(max_examples=60, deadline=None)
def test_no_json_value_is_anything_but_read_or_refused(value):
    for body in (
        value,
        {**BODY, "messages": value},
        {**BODY, "messages": [value]},
        {**BODY, "response_format": value},
    ):
        try:
            read_chat(body)
        except Refusal as refusal:
            assert refusal.failure.status == 400  # noqa: PT017 - both outcomes are fine


# -- asking the model -------------------------------------------------------------------------


def test_what_the_client_leaves_out_the_models_task_fills_in():
    request = read_chat(BODY).ask(SORTER)
    assert request.messages == (Message("system", "Sort."), Message("user", "hi"))
    assert request.choices == ("a", "b")
    assert request.sampling == Sampling(max_tokens=5)


def test_the_clients_sampling_replaces_the_tasks_field_by_field():
    chat = read_chat({**BODY, "temperature": 1, "stop": "x"})
    assert chat.ask(WRITER).sampling == Sampling(max_tokens=5, temperature=1.0, stop=("x",))


def test_a_model_without_a_task_is_asked_as_the_client_says():
    assert read_chat(BODY).ask(OpenModel("m", Blank())).messages == (Message("user", "hi"),)


def test_logprobs_are_for_closed_sets():
    chat = read_chat({**BODY, "logprobs": True, "top_logprobs": 5})
    assert chat.ask(SORTER).choices
    with pytest.raises(
        Refusal, match="model 'writer' answers freely here, and only closed sets have probabilities"
    ):
        chat.ask(WRITER)
