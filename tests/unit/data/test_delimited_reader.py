"""Tables in text files: delimiters, quotes, and fields without end."""

import csv
import io
import time
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.data.passages import split_document
from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.delimited import read_csv, read_tsv
from tailorbird.errors import DocumentError
from tailorbird.records import Document

TABLE = "| Card | Fee |\n| --- | --- |\n| Gold | 9,50 |"


@pytest.mark.parametrize(
    "text",
    [
        'Card,Fee\nGold,"9,50"\n',
        "Card;Fee\r\nGold;9,50\r\n",
        "sep=;\nCard;Fee\nGold;9,50",
        "\ufeffCard|Fee\n\nGold|9,50",
        "Card\tFee\nGold\t9,50",
        "sep=\t\nCard\tFee\nGold\t9,50",
    ],
)
def test_the_delimiter_is_found(text):
    assert read_csv(text.encode(), Limits()).text == TABLE


def test_tsv_is_cut_at_tabs_only():
    assert read_tsv(b"Card\tFee\nGold\t9,50", Limits()).text == TABLE
    assert read_tsv(b"a;b\tc\n1;2\t3", Limits()).text.startswith("| a;b | c |")


def test_lines_and_bars_in_a_value_do_not_break_its_row():
    data = b'q,a\n"two\nlines","a | b ""c"""\n'
    assert read_csv(data, Limits()).text.splitlines()[2] == '| two lines | a / b "c" |'


def test_rows_of_other_lengths_and_empty_ones_are_no_harm():
    assert read_csv(b"a,b\n1\n,\n1,2,3\n", Limits()).text == "| a | b |\n| --- | --- |\n| 1 |\n| 1 | 2 | 3 |"
    assert read_csv(b"", Limits()).text == ""
    assert read_csv(b"one column\nx", Limits()).text == "| one column |\n| --- |\n| x |"


@pytest.mark.parametrize("limit", [131_072, 10**9])
def test_an_endless_field_is_refused_with_its_line(limit, request):
    request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(limit)))
    data = b'a,b\n1,"open\n' + b"x\n" * 100_000
    with pytest.raises(
        DocumentError, match=r"^line [\d,]+: field larger .* 131,072 .*quotation mark that is not closed"
    ):
        read_csv(data, Limits())


def test_too_much_text_is_refused():
    with pytest.raises(DocumentError, match="more than 1,000 characters"):
        read_csv(b"a,b\n" * 1_000, Limits(chars=1_000))


@pytest.mark.parametrize(
    "data", [b'"' * 400_000, b"," * 400_000, b'",' * 200_000, b'a"b,' * 100_000, b"\n" * 400_000]
)
def test_hostile_lines_are_read_in_linear_time(data):
    begin = time.perf_counter()
    with suppress(DocumentError):
        read_csv(data, Limits())
    assert time.perf_counter() - begin < 20


def test_passages_keep_the_header():
    text = "id,name\n" + "".join(f"{i},number {i}\n" for i in range(500))
    passages = split_document(Document("a.csv", read_csv(text.encode(), Limits()).text, "a"))
    assert {p.headings for p in passages[1:]} == {("id | name",)}


@given(
    st.lists(st.lists(st.text('ab,;"\n 1', max_size=6), min_size=2, max_size=4), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
)
def test_what_is_written_is_read(rows, delimiter):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([["first head", "second"], *rows])
    read = read_tsv if delimiter == "\t" else read_csv
    text = read(
        f"sep={delimiter}\n{out.getvalue()}".encode() if delimiter != "\t" else out.getvalue().encode(),
        Limits(),
    ).text
    found = [line[2:-2].split(" | ") for line in text.splitlines()[2:]]
    assert found == [[" ".join(v.split()) for v in row] for row in rows if any(v.split() for v in row)]
