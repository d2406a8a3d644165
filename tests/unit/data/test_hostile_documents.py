"""A few hostile files, the quickest of tests/slow/test_hostile_files.py: each is refused, and the next one read."""

import random
import re

import pytest
from written_documents import make_docx, make_pdf

from tailorbird.data.documents import Unreadable, read_folder
from tailorbird.records import Document

NESTED_MAIL = b"Subject: x\n" + b"Content-Type: message/rfc822\n\n" * 3_000 + b"Subject: innermost\n\nx"
FILLER = random.Random(0).randbytes(1_000).hex() * 50
HOSTILE = {
    "bomb.docx": (make_docx("", extra=[("word/zeros.bin", bytes(5_000_000))]), "looks like a zip bomb"),
    "nested.docx": (
        make_docx("<w:tbl><w:tr><w:tc>" * 5_000 + "</w:tc></w:tr></w:tbl>" * 5_000),
        "nested too deep",
    ),
    "late.docx": (
        make_docx("", head=f"<!-- {FILLER} --><!DOCTYPE x>"),
        "declares a DOCTYPE",
    ),
    "parts.docx": (make_docx("", extra=[(f"{i}", "") for i in range(10_001)]), "10,004 parts"),
    "nested.json": (b"[" * 300_000, "nested deeper than 64 levels"),
    "nested.ipynb": (b'{"cells": ' * 300_000, "nested deeper than 64 levels"),
    "nested.eml": (NESTED_MAIL, "nested too deep"),
    "open.csv": (b'a,b\n1,"' + b"x" * 200_000, "field larger than field limit"),
    "lie.xlsx": (make_docx(""), r"a zip without xl/workbook\.xml"),
    "lie.pptx": (make_docx(""), r"a zip without ppt/presentation\.xml"),
    "lie.py": (make_pdf("x"), r"its content is \.pdf"),
    "cut.pdf": (make_pdf("x" * 500)[:200], "damaged, cannot be parsed|holds no text"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, (data, _) in HOSTILE.items():
        (folder / name).write_bytes(data)
        (folder / f"{name}_then.html").write_text("<p>Still read.")
    return {item.id: item for item in read_folder(folder)}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_the_next_file_is_read(found, name):
    assert isinstance(found[name], Unreadable)
    assert re.search(HOSTILE[name][1], found[name].reason)
    assert isinstance(found[f"{name}_then.html"], Document)
