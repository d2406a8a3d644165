"""Every usual shape of a row, told by its keys: what becomes of it, and what each refusal says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data.formats import parse_row
from tailorbird.data.problems import RowFault
from tailorbird.data.row_shapes import examples_of, to_row, unused_keys
from tailorbird.errors import DataError
from tailorbird.records import Example, Message

PAIR = {"prompt": "x", "completion": "y"}


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def read(row):
    return examples_of(row, "x.jsonl", 7)


def told(examples):
    return [([(m.role, m.content) for m in e.messages], e.completion) for e in examples]


def refused(row):
    with pytest.raises(DataError) as caught:
        parse_row(row, "x.jsonl", 7)
    return str(caught.value)


def test_an_alpaca_row_joins_instruction_and_input():
    row = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}
    assert told(read(row)) == [([("user", "Translate.\n\nGuten Tag")], "Good day")]
    assert told(read({**row, "input": ""})) == [([("user", "Translate.")], "Good day")]
    assert told(read({"instruction": "Hi", "output": "Hello"})) == [([("user", "Hi")], "Hello")]


def test_an_alpaca_row_may_have_a_system_message_and_a_history():
    row = {"instruction": "And now?", "output": "Six.", "system": "Count.", "history": [["Start", "Five."]]}
    before = [("system", "Count."), ("user", "Start"), ("assistant", "Five."), ("user", "And now?")]
    assert told(read(row)) == [(before, "Six.")]


def test_a_sharegpt_row_is_a_chat():
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert told(read({"conversations": turns})) == [([("user", "Hi")], "Hello")]
    system = {"from": "system", "value": "Be kind."}
    expected = [([("system", "Be kind."), ("user", "Hi")], "Hello")]
    assert told(read({"conversations": [system, *turns]})) == expected
    assert told(read({"conversations": turns, "system": "Be kind."})) == expected
    assert told(read({"conversations": [user("Hi"), assistant("Hello")]})) == [([("user", "Hi")], "Hello")]


def test_without_weights_only_the_last_answer_is_learnt():
    (example,) = read({"messages": [user("a"), assistant("b"), user("c"), assistant("d")]})
    assert told([example]) == [([("user", "a"), ("assistant", "b"), ("user", "c")], "d")]
    assert example.weight == 1


def test_with_weights_every_answer_that_weighs_something_is_an_example_of_its_own():
    turns = [
        user("a"),
        assistant("b", weight=0.25),
        user("c"),
        assistant("d", weight=0),
        user("e"),
        assistant("f"),
    ]
    first, last = read({"messages": turns})
    assert (first.completion, first.weight, len(first.messages)) == ("b", 0.25, 1)
    assert (last.completion, last.weight, len(last.messages)) == ("f", 1.0, 5)
    assert {first.line, last.line} == {7}


PREFERENCES = {
    "texts": {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."},
    "messages": {
        "prompt": [user("Hi")],
        "chosen": [assistant("Hello.")],
        "rejected": [assistant("Go away.")],
    },
    "the prompt in both": {
        "chosen": [user("Hi"), assistant("Hello.")],
        "rejected": [user("Hi"), assistant("Go away.")],
    },
    "the prompt in both texts": {"chosen": "Hi Hello.", "rejected": "Hi Go away."},
    "OpenAI": {
        "input": {"messages": [user("Hi")], "tools": []},
        "preferred_output": [assistant("Hello.")],
        "non_preferred_output": [assistant("Go away.")],
    },
}


@pytest.mark.parametrize("row", PREFERENCES.values(), ids=PREFERENCES.keys())
def test_a_preference_is_its_better_answer_and_keeps_the_worse_one(row):
    (example,) = read(row)
    assert told([example]) == [([("user", "Hi")], "Hello.")]
    assert example.rejected == "Go away."


def test_prompt_and_completion_may_be_lists_of_messages():
    row = {"prompt": [{"role": "system", "content": "s"}, user("Hi")], "completion": [assistant("Hello")]}
    assert told(read(row)) == [([("system", "s"), ("user", "Hi")], "Hello")]


def test_prompt_and_completion_win_over_other_keys():
    assert told(read({**PAIR, "chosen": "a", "rejected": "b", "conversations": 3})) == [
        ([("user", "x")], "y")
    ]


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (
            {"instruction": "x", "output": ""},
            "'output' is empty; expected some text.",
            "Fill it in or delete the line.",
        ),
        (
            {"instruction": "x", "input": 3, "output": "y"},
            "'input' is a number (3); expected a string.",
            'Put it in quotes: "3".',
        ),
        (
            {"instruction": "x", "output": "y", "history": [["a"]]},
            "'history' is [['a']]; expected a list of pairs",
            'Write [["…", "…"]], or leave it out.',
        ),
        ({"conversations": []}, "'conversations' is []; expected a list", 'Write [{"from": "human"'),
        (
            {"conversations": [{"from": "human", "value": "x"}, {"from": "tool", "value": "y"}]},
            "conversations[1] is from 'tool'; expected 'human', 'gpt' or 'system'.",
            "Leave messages of others out.",
        ),
        (
            {"conversations": [{"from": "human", "value": "x"}, {"value": "y"}]},
            "conversations[1] is {'value': 'y'}; expected an object with 'from' and 'value'.",
            "Give it both keys.",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]},
            "the last message is the user's; expected the assistant's, the completion.",
            "Add the answer as the last message",
        ),
        (
            {"messages": [user("a"), assistant("b", weight=2)]},
            "the weight of messages[1] is 2; expected a number from 0 to 1.",
            "Write 0 for an answer that is not to be learnt, 1 for one that is.",
        ),
        (
            {"messages": [user("a"), assistant("b", weight=True)]},
            "the weight of messages[1] is True",
            "Write 0",
        ),
        (
            {"messages": [user("a", weight=1), assistant("b")]},
            "messages[0] is the user's and has a weight (1); expected one on answers only.",
            "Give a weight to the assistant's messages only.",
        ),
        (
            {"messages": [user("a"), assistant("b", weight=0)]},
            "every answer has weight 0; expected at least one that is to be learnt.",
            "Give one a weight above 0, or delete the row.",
        ),
        (
            {"messages": [assistant("a", weight=1), assistant("b")]},
            "the completion is the first message; expected a user's before it.",
            "Let the assistant's answer follow a message of the user.",
        ),
        (
            {"prompt": "p", "chosen": "a", "rejected": "a"},
            "the preferred and the rejected answer are the same ('a').",
            "Delete the row, or give two answers that differ.",
        ),
        (
            {"chosen": "abc", "rejected": "xyz"},
            "'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same one.",
            "Add 'prompt'.",
        ),
        (
            {"chosen": "abc", "rejected": [assistant("x")]},
            "'chosen' and 'rejected' are not both texts or both lists of messages.",
            "Add 'prompt'.",
        ),
        (
            {"prompt": "p", "chosen": [user("q"), assistant("a")], "rejected": "b"},
            "the preferred and the rejected answer follow different messages; expected the same.",
            "Let only the last message, the answer, differ.",
        ),
        (
            {"input": "x", "preferred_output": [assistant("a")]},
            "'input' is 'x'; expected an object with the messages before the answer.",
            'Write {"messages": [',
        ),
        (
            {"input": {"messages": [user("x")]}, "preferred_output": [assistant("a")]},
            "'non_preferred_output' is a null (None); expected a string.",
            "Give its text, or delete the line.",
        ),
    ],
)
def test_a_row_that_is_nearly_right_says_what_is_wrong_and_what_to_do(row, what, fix):
    message = refused(row)
    assert message.startswith("x.jsonl:7: ")
    assert what in message
    assert fix in message


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
turns = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=3)
weights = st.just(1.0) | st.floats(0, 1, exclude_min=True)


@settings(deadline=None)
@given(turns, texts, texts, st.none() | texts, st.none() | texts, weights)
def test_every_example_has_a_row_that_is_read_back_as_it_alone(
    before, prompt, completion, document, rejected, weight
):
    if rejected == completion:
        return
    example = Example(
        (*before, Message("user", prompt)),
        completion,
        document,
        "x.jsonl",
        7,
        weight=weight,
        rejected=rejected,
    )
    assert read(to_row(example)) == [example]


def test_a_row_may_say_where_its_answer_stands_and_that_a_program_wrote_it(tmp_path):
    row = {
        "prompt": "How long?",
        "completion": "30 days",
        "document": "a.md",
        "span": [4, 11],
        "synthetic": True,
    }
    (example,) = examples_of(row, "f", 1)
    assert (example.document, example.span, example.synthetic) == ("a.md", (4, 11), True)
    assert example.id == Example.pair("How long?", "30 days").id
    assert to_row(example) == row
    assert unused_keys(row) == set()
    (plain,) = examples_of({**row, "span": None, "synthetic": False}, "f", 1)
    assert (plain.span, plain.synthetic) == (None, False)


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ({"span": [5, 5]}, "'span' is [5, 5]; expected the answer's start and end"),
        ({"span": [-1, 5]}, "'span' is [-1, 5]; expected the answer's start and end"),
        ({"span": [1, 2, 3]}, "'span' is [1, 2, 3]; expected the answer's start and end"),
        ({"span": [True, 2]}, "'span' is [True, 2]; expected the answer's start and end"),
        ({"span": "1-2"}, "'span' is '1-2'; expected the answer's start and end"),
        ({"synthetic": "yes"}, "'synthetic' is 'yes'; expected true or false"),
    ],
    ids=["empty", "negative", "three", "bool", "text", "word"],
)
def test_facts_of_another_kind_are_refused(fact, message):
    with pytest.raises(RowFault) as raised:
        examples_of({"prompt": "p", "completion": "c", **fact}, "f", 1)
    assert message in raised.value.what
