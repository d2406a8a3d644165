"""Reading examples: what is accepted, and what each refusal says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.formats import parse_row, read_examples, scan, to_row, write_examples
from tailorbird.errors import DataError, NotFound
from tailorbird.records import Example, Message

PAIR = {"prompt": "Where is my card?", "completion": "card_arrival"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    ]
}


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="faq.jsonl"):
        path = tmp_path / name
        if len(rows) == 1 and isinstance(rows[0], bytes):
            path.write_bytes(rows[0])
        else:
            lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def refused(path):
    with pytest.raises(DataError) as caught:
        read_examples(path)
    return str(caught.value)


def test_pairs_and_chats_may_be_mixed_in_one_file(write):
    pair, chat = read_examples(write(PAIR, CHAT))
    assert (pair.prompt, pair.completion, pair.file, pair.line) == (
        "Where is my card?",
        "card_arrival",
        "faq.jsonl",
        1,
    )
    assert chat.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert (chat.completion, chat.line) == ("Hello!", 2)


def test_a_document_is_kept_and_null_means_none(write):
    rows = read_examples(write({**PAIR, "document": "a/b.md"}, {**PAIR, "document": None}))
    assert [r.document for r in rows] == ["a/b.md", None]


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_tolerated(write):
    body = b"\xef\xbb\xbf\r\n" + json.dumps(PAIR).encode() + b"\r\n\r\n  \r\n" + json.dumps(CHAT).encode()
    examples = read_examples(write(body))
    assert [e.line for e in examples] == [2, 5]


def test_line_separators_inside_a_string_do_not_end_the_line(write):
    (example,) = read_examples(write(json.dumps({**PAIR, "prompt": "a\u2028b\x85c"}, ensure_ascii=False)))
    assert example.prompt == "a\u2028b\x85c"


def test_the_completion_is_kept_to_the_letter(write):
    (example,) = read_examples(write({"prompt": " p ", "completion": " c\n"}))
    assert (example.prompt, example.completion) == (" p ", " c\n")


def test_a_renamed_key_is_named_with_file_line_and_fix(write):
    message = refused(write(PAIR, {"prompt": "x", "answer": "y"}))
    assert message == (
        "faq.jsonl:2: 'completion' is missing. Got keys ['prompt', 'answer']; expected 'prompt' and "
        "'completion'. Rename 'answer' to 'completion'."
    )


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ({"prompt": "x", "text": "y"}, "Rename 'text' to 'completion'."),
        ({"text": "x", "label": "y"}, "Rename 'text' to 'prompt' and rename 'label' to 'completion'."),
        (
            {"Question": "x", "Answer": "y"},
            "Rename 'Question' to 'prompt' and rename 'Answer' to 'completion'.",
        ),
        ({"promt": "x", "completion": "y"}, "Rename 'promt' to 'prompt'."),
        ({"a": 1}, "Give each line both keys, or 'messages' for a chat."),
    ],
)
def test_likely_renames_are_proposed(write, row, fix):
    assert fix in refused(write(PAIR, row))


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        ({"prompt": "", "completion": "y"}, "'prompt' is empty", "Fill it in or delete the line."),
        ({"prompt": "x", "completion": " \n"}, "'completion' is empty", "Fill it in"),
        (
            {"prompt": "x", "completion": 3},
            "'completion' is a number (3); expected a string",
            'Put it in quotes: "3"',
        ),
        ({"prompt": None, "completion": "y"}, "'prompt' is a null (None)", "Give its text"),
        ({"prompt": ["x"], "completion": "y"}, "'prompt' is a list", "Use chat rows"),
        ({**PAIR, "document": 3}, "'document' is a number", "Name the file inside your documents folder"),
        ({**PAIR, **CHAT}, "both 'messages' and 'prompt'", "Keep one form."),
        ({"messages": []}, "'messages' is []", "Write [{"),
        (
            {"messages": CHAT["messages"][:2]},
            "the last message is the user's",
            "Add the answer as the last message",
        ),
        (
            {"messages": [CHAT["messages"][0], CHAT["messages"][2]]},
            "the message before the completion is the system's",
            "follow a message of the user",
        ),
        (
            {"messages": [{"from": "human", "value": "x"}] * 2},
            "expected an object with 'role'",
            "Rename 'from'",
        ),
        (
            {"messages": [{"role": "developer", "content": "x"}] * 2},
            "role 'developer'",
            "Rename it to 'system'.",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}] * 2},
            "role 'tool'",
            "Leave messages of other roles out.",
        ),
        (
            {"messages": [{"role": "user", "content": ""}] * 2},
            "the content of messages[0] is empty",
            "Fill it in",
        ),
        (
            '{"prompt": "x", "prompt": "z", "completion": "y"}',
            "key 'prompt' appears twice",
            "Keep one of them.",
        ),
        ('{"prompt": "x"', "not valid JSON at column 15", "The line is cut off"),
        ("{'prompt': 'x'}", "not valid JSON at column 2", "JSON wants double quotes"),
        (json.dumps(PAIR) * 2, "Extra data", "Put each object on a line of its own."),
        ('{"prompt": "\\ud83d", "completion": "y"}', "half of a surrogate pair", "Write the whole character"),
        ('{"prompt": ' + "[" * 100_000, "nested too deeply", "Give one flat object a line."),
        ('{"prompt": ' + "9" * 5000 + "}", "not valid JSON", "Put the number in quotes."),
        ("3", "got a JSON number", 'Write {"prompt"'),
    ],
)
def test_a_bad_row_says_what_was_found_and_what_to_do(write, row, what, fix):
    message = refused(write(PAIR, "", row))
    assert message.startswith("faq.jsonl:3: ")
    assert what in message
    assert fix in message


def test_the_first_problem_is_raised_and_the_others_are_counted(write):
    message = refused(write({"prompt": "x"}, PAIR, {"prompt": ""}, {}))
    assert message.startswith("faq.jsonl:1: ")
    assert "2 more problems: tailor check faq.jsonl lists them." in message


def test_scan_gives_the_good_rows_and_every_problem(write):
    found = scan(write({"prompt": "x"}, PAIR, "{", {**PAIR, "id": 7}, {**PAIR, "id": 8}))
    examples, problems, num_rows = found
    assert num_rows == 5
    assert [e.line for e in examples] == [2, 4, 5]
    assert [(p.severity, p.where) for p in problems] == [
        ("error", "faq.jsonl:1"),
        ("error", "faq.jsonl:3"),
        ("info", "faq.jsonl"),
    ]
    assert "key 'id' in 2 rows is not used" in problems[-1].what


def test_a_byte_that_is_not_utf8_is_located(write):
    good = json.dumps(PAIR).encode() + b"\n"
    message = refused(write(good + b'{"prompt": "caf\xe9", "completion": "y"}\n'))
    assert message.startswith(f"faq.jsonl:2: byte 0xe9 (byte {len(good) + 16} of the file) is not UTF-8.")
    assert "iconv" in message


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (b"", "the file is empty", "Write lines such as"),
        (b"\xef\xbb\xbf \n\n", "the file is empty", "Write lines such as"),
        (b'{\n  "prompt": "x"\n}', "one object spread over several lines", "jq -c . faq.jsonl"),
        (b"PK\x03\x04....", "a zip archive or an Excel workbook", "export the sheet"),
        (b"\x1f\x8b....", "damaged or cut off", "Copy or download it again."),
        ('{"prompt"'.encode("utf-16"), "UTF-16", "Save it as UTF-8."),
        (b"%PDF-1.4", "a PDF", "as a document"),
    ],
)
def test_a_file_of_another_kind_is_explained_once(write, content, what, fix):
    path = write(content)
    message = refused(path)
    assert what in message
    assert fix in message
    assert len(scan(path)[1]) == 1


def test_a_missing_file_proposes_a_similar_name(write):
    path = write(PAIR)
    with pytest.raises(NotFound, match=r"faqs\.jsonl: there is no such file\. Did you mean faq\.jsonl\?"):
        read_examples(path.with_name("faqs.jsonl"))
    with pytest.raises(NotFound, match="Check the name"):
        read_examples(path.parent / "nowhere" / "x.jsonl")


def test_a_folder_names_the_files_inside(write):
    folder = write(PAIR).parent
    with pytest.raises(
        DataError, match=r"is a folder; expected a file of examples\. Name one of its files: faq\.jsonl\."
    ):
        read_examples(folder)


def test_parse_row_raises_with_its_place():
    with pytest.raises(DataError, match=r"^up\.jsonl:9: 'prompt' and 'completion' are missing\."):
        parse_row({}, "up.jsonl", 9)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
turns = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=3)


@given(turns, texts, texts, st.none() | texts)
def test_what_is_written_is_read_back(tmp_path_factory, before, prompt, completion, document):
    path = tmp_path_factory.mktemp("round") / "x.jsonl"
    example = Example((*before, Message("user", prompt)), completion, document, "x.jsonl", 1)
    write_examples(path, [example])
    assert read_examples(path) == (example,)
    assert parse_row(to_row(example), "x.jsonl", 1) == example
