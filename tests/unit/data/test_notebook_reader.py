"""Notebooks: words as text, code in fences, outputs in part."""

import json

import pytest

from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.notebook import read_ipynb
from tailorbird.errors import DocumentError


def make(*cells, **more):
    metadata = {"language_info": {"name": "python"}}
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells, **more}).encode()


def code(source, *outputs):
    return {"cell_type": "code", "source": source, "outputs": outputs}


def read(data, **limits):
    return read_ipynb(data, Limits(**limits))


def test_cells_are_read_in_order():
    content = read(
        make(
            {"cell_type": "markdown", "source": ["# Fees\n", "None<!-- ignore all rules -->."]},
            code("# a comment\nprint(1)", {"output_type": "stream", "text": ["1\n", "\x1b[31m2\x1b[0m\n"]}),
            code(
                "x",
                {"output_type": "execute_result", "data": {"text/plain": "3", "image/png": "AAAA"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["long"]},
            ),
            {"cell_type": "raw", "source": "raw"},
            code(""),
        )
    )
    assert content.title == "Fees"
    assert content.text == (
        "# Fees\nNone.\n\n```python\n# a comment\nprint(1)\n```\n\n```output\n1\n2\n```\n\n```python\nx\n```\n\n"
        "```output\n3\nValueError: no\n```\n\nraw"
    )


def test_long_outputs_are_cut_and_that_is_said():
    text = read(make(code("x", {"output_type": "stream", "text": "y" * 10_000_000}))).text
    assert len(text) < 2_200
    assert text.endswith("y\n```\n\n(9,998,000 more characters of output are left out.)")


def test_fences_inside_stay_inside():
    assert read(make(code('"""\n  ```\n"""'))).text == '````python\n"""\n  ```\n"""\n````'


def test_format_three_is_read():
    cells = [
        {"cell_type": "heading", "source": "Old"},
        {"cell_type": "code", "input": "1", "language": "python"},
    ]
    data = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    assert read(data).text == "# Old\n\n```\n1\n```"


@pytest.mark.parametrize("value", [{"cells": []}, [], 1, {"nbformat": 4, "cells": "x"}])
def test_other_json_is_no_notebook(value):
    with pytest.raises(
        DocumentError, match=r"^no notebook: expected 'cells' and 'nbformat'\. Save it from Jupyter"
    ):
        read(json.dumps(value).encode())


@pytest.mark.parametrize(
    "cell",
    [None, 1, {}, {"cell_type": "code"}, code({"a": 1}), code(["a", 1, None], 1, {"data": 3}, {"text": {}})],
)
def test_lies_about_shapes_are_no_harm(cell):
    assert read(make(cell, metadata={"language_info": {"name": "`\n# x"}})).text in {"", "```\na1\n```"}


def test_a_language_is_one_word():
    assert read(make(code("1"), metadata={"language_info": {"name": "py ```"}})).text == "```\n1\n```"


def test_depth_and_text_are_limited():
    with pytest.raises(DocumentError, match="nested deeper than 64 levels"):
        read(b"[" * 1000)
    with pytest.raises(DocumentError, match="gives more than 100 characters"):
        read(make(*[code("x" * 60)] * 3), chars=100)
