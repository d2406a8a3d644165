"""Source code: blocks at definitions, no line lost, long ones cut where code has a gap."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.documents import read_document
from tailorbird.data.passages import split_document
from tailorbird.data.readers.code import read_code
from tailorbird.errors import DocumentError
from tailorbird.records import Document

PYTHON = '''"""Fees."""

import os

LIMIT = 3


# what a card costs
@cached
def fee(card):
    text = """
``` is no fence
"""

    return card


class Card:
    """A card."""

    def name(self):
        return 1


print(fee(1))
'''


def test_definitions_are_blocks_of_their_own():
    blocks = read_code(PYTHON.encode(), "python").text.split("\n\n`")
    assert [block.strip("`").split("\n")[1] for block in blocks] == [
        '"""Fees."""',
        "# what a card costs",
        "class Card:",
        "print(fee(1))",
    ]
    assert "import os\n\nLIMIT = 3" in blocks[0]
    assert blocks[1].startswith("```python")  # a fourth tick, for three stand inside
    assert blocks[1].endswith("return card\n````")


@pytest.mark.parametrize(
    ("language", "text", "num_blocks"),
    [
        ("c", "int a;\n\nint f(void)\n{\n    return 1;\n\n}\n\nint g(void) {\n    return 2;\n}\n", 3),
        (
            "javascript",
            "const a = 1;\n\nfunction f() {\n  g();\n\n  h();\n}\n\nmodule.exports = {\n  f,\n};\n",
            3,
        ),
        ("sql", "SELECT 1;\n\nSELECT 2;\n\nCREATE TABLE a (\n  b INT\n);\n", 2),
        ("yaml", "a:\n  b: 1\n\nc:\n  d: 2\n", 2),
        ("toml", "a = 1\n\n[b]\nc = 2\n", 1),
        ("ruby", "def a\n  1\n\nend\n\ndef b\n  2\nend", 2),
    ],
)
def test_other_languages_are_cut_by_their_indents(language, text, num_blocks):
    assert read_code(text.encode(), language).text.count(f"```{language}\n") == num_blocks


def test_the_name_is_the_title_and_comments_are_no_headings(tmp_path):
    (tmp_path / "fees.py").write_text("# Not a title\nx = 1\n")
    document = read_document(tmp_path / "fees.py", tmp_path)
    assert (document.title, document.text) == ("fees.py", "```python\n# Not a title\nx = 1\n```")
    (passage,) = split_document(document)
    assert passage.headings == ()


def test_passages_hold_whole_definitions():
    functions = [f"def f{i}(a):\n    {'x = a' + ' + a' * 80}\n\n    return x\n" for i in range(10)]
    document = Document("a.py", read_code("\n\n".join(functions).encode(), "python").text, "a.py")
    passages = split_document(document)
    assert all(p.text.startswith("```python\ndef f") and p.text.endswith("return x\n```") for p in passages)


def test_a_long_definition_is_cut_at_its_empty_lines():
    paragraphs = "\n\n".join(f"    a{i} = 1\n    b{i} = 2\n    c{i} = 3" for i in range(200))
    document = Document("a.py", read_code(f"def long():\n{paragraphs}\n".encode(), "python").text, "a.py")
    passages = split_document(document)
    assert len(passages) > 6
    assert all(p.text.rsplit("\n", 1)[-1].strip().startswith("c") for p in passages[:-1])
    assert all(len(p.text) <= 800 for p in passages)


@pytest.mark.parametrize(
    "text", ["a" * 300_000, "`" * 300_000, "\n" * 300_000, "a\n\n" * 30_000, " \n" * 100_000 + "a"]
)
def test_hostile_files_take_linear_time(text):
    begin = time.perf_counter()
    content = read_code(text.encode(), "python")
    split_document(Document("a.py", content.text, "a.py"))
    assert time.perf_counter() - begin < 20


def test_other_encodings_are_refused():
    with pytest.raises(DocumentError, match=r"^not UTF-8 .*Save it as UTF-8\."):
        read_code("# grün".encode("latin-1"), "python")


@given(st.lists(st.sampled_from(["a", "  b", "", "}", "```", "\tc", "# d"]), max_size=20))
def test_no_line_is_lost_or_moved(lines):
    text = read_code("\n".join(lines).encode(), "python").text
    kept = [line for line in text.split("\n") if line and not line.endswith("python") and line != "````"]
    expected = [line for line in lines if line]
    assert [line for line in kept if line != "```"] == [line for line in expected if line != "```"]
