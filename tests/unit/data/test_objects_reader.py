"""JSON: rows are sections, objects are lines; damage is said with its line, depth is limited."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data.passages import split_document
from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.objects import read_json, read_jsonl
from tailorbird.errors import DocumentError
from tailorbird.records import Document


def read(value, **limits):
    return read_json(json.dumps(value).encode(), Limits(**limits)).text


def test_every_line_is_a_section_named_by_its_row():
    data = b'{"question": "Opening  hours?", "answer": "9 to 5", "tags": ["a", 1]}\r\n\n{"answer": null}\n"plain"\n'
    assert read_jsonl(data, Limits()).text == (
        "# Opening hours?\n\nquestion: Opening  hours?\nanswer: 9 to 5\ntags: a, 1\n\n"
        "# Row 3\n\nanswer: \n\n# Row 4\n\nplain"
    )


def test_objects_and_lists_of_them_become_sections():
    value = {
        "shop": "Rome",
        "open": True,
        "faq": [{"id": "x", "fee": 1.50}, [1, 2]],
        "site": {"url": "a", "n": {}},
    }
    assert read(value) == (
        "shop: Rome\nopen: true\n\n# faq\n\n## x\n\nid: x\nfee: 1.5\n\n## Row 2\n\n- 1\n- 2\n\n# site\n\nurl: a\nn: "
    )
    assert read([1, "a"]) == "- 1\n- a"
    assert read("a") == "a"
    assert read_json(b"[1e5, 1.50, -0, NaN]", Limits()).text == "- 1e5\n- 1.50\n- -0\n- NaN"


def test_what_is_hidden_in_escapes_is_left_out():
    assert read({"a": "b\u202e\u200bc\ud800"}) == "a: bc"
    assert read_jsonl('{"a": "one\u2028row"}'.encode(), Limits()).text == "# Row 1\n\na: one\nrow"


def test_rows_are_passages_of_their_own():
    rows = "".join(json.dumps({"name": f"Card {i}", "fee": i}) + "\n" for i in range(3))
    passages = split_document(Document("a.jsonl", read_jsonl(rows.encode(), Limits()).text, "a"))
    assert [p.headings for p in passages] == [("Card 0",), ("Card 1",), ("Card 2",)]


@pytest.mark.parametrize(
    ("read", "data", "reason"),
    [
        (
            read_jsonl,
            b'{"a": 1}\n{"a" 1}\n',
            r"^no JSON \(line 2, character 6: Expecting ':' delimiter\)\. Correct it",
        ),
        (read_json, b'{"a": 1,\n "b": }', r"^no JSON \(line 2, character 7: Expecting value\)"),
        (read_json, b"", r"^no JSON \(line 1, character 1"),
        (
            read_json,
            b"[" * 100_000,
            r"^line 1: nested deeper than 64 levels\. Flatten it, or save it as text\.",
        ),
        (read_json, b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 64 levels"),
        (read_jsonl, b"1\n" + b"[" * 66 + b"]" * 66, "^line 2: nested deeper than 64 levels"),
        (read_json, b"\xff", "^not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(read, data, reason):
    with pytest.raises(DocumentError, match=reason):
        read(data, Limits())


def test_numbers_without_end_are_no_harm():
    assert read_json(b"[" + b"9" * 10_000 + b"]", Limits()).text == "- " + "9" * 10_000


def test_the_text_is_limited():
    with pytest.raises(DocumentError, match="gives more than 100 characters"):
        read([{"a": "x" * 60}] * 3, chars=100)


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(max_examples=50, deadline=None)
@given(values)
def test_any_value_is_read_and_no_word_is_lost(value):
    text = read(value)

    def words(value):
        if isinstance(value, dict):
            return [w for k, v in value.items() for w in [*k.split(), *words(v)]]
        return (
            [w for v in value for w in words(v)]
            if isinstance(value, list)
            else str(value).split() * isinstance(value, int)
        )

    assert all(word.lower() in text.lower() for word in words(value) if word.isascii() and word.isalnum())
