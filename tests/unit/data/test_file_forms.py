"""Every usual file of rows, told by its content: JSON lines, a JSON array, CSV, TSV, Parquet, gzip."""

import csv
import gzip
import importlib
import importlib.util
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data import json_rows
from tailorbird.data.columns import Columns
from tailorbird.data.file_forms import form_of
from tailorbird.data.formats import MOST_FAULTS, read_examples, scan
from tailorbird.errors import DataError, Unsupported

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed (extra: parquet)"
)
ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)]


@pytest.fixture
def write(tmp_path):
    def write(content, name="data"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def pairs(examples):
    return [(e.prompt, e.completion) for e in examples]


def refused(path, columns=None):
    with pytest.raises(DataError) as caught:
        read_examples(path, columns)
    return str(caught.value)


FILES = {
    "lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "array": json.dumps(ROWS),
    "array over lines": "\ufeff" + json.dumps(ROWS, indent=2),
    "csv": "prompt,completion\n" + "".join(f"p{i},c{i}\n" for i in range(3)),
    "csv with semicolons": "\ufeffprompt;completion\r\n" + "".join(f"p{i};c{i}\r\n" for i in range(3)),
    "tsv": "completion\tprompt\n" + "".join(f"c{i}\tp{i}\n" for i in range(3)),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_the_form_is_told_by_the_content_whatever_the_name(write, content, zipped):
    data = content.encode()
    path = write(gzip.compress(data) if zipped else data, "data.bin")
    assert pairs(read_examples(path)) == [(f"p{i}", f"c{i}") for i in range(3)]
    assert form_of(path).gzipped == zipped


def test_a_cell_may_hold_delimiters_quotes_and_line_breaks_and_lines_are_counted(write):
    path = write('text,label\n"a, ""b""\nc",yes\n\nd,no\n')
    found = read_examples(path)
    assert pairs(found) == [('a, "b"\nc', "yes"), ("d", "no")]
    assert [e.line for e in found] == [2, 5]


@pytest.mark.parametrize(
    ("header", "prompt", "completion"),
    [
        ("text,label", "text", "label"),
        ("Question,Answer", "Question", "Answer"),
        ("id,utterance,intent", "utterance", "intent"),
        ("query,response,document", "query", "response"),
        ("label,sentence", "sentence", "label"),
    ],
)
def test_columns_are_recognised_where_there_is_no_doubt_and_it_is_said(write, header, prompt, completion):
    path = write(header + "\n" + ",".join(header.split(",")) + "\n", "data.csv")
    examples, problems, _ = scan(path)
    assert pairs(examples) == [(prompt, completion)]
    said = [p for p in problems if "is read as" in p.what]
    assert [(p.severity, p.what) for p in said] == [
        ("info", f"column {prompt!r} is read as the prompt, column {completion!r} as the completion.")
    ]
    assert said[0].fix == "If that is wrong, give --prompt-column and --completion-column."


def test_the_keys_of_json_lines_are_recognised_by_the_first_row(write):
    rows = [{"text": "a", "label": "b"}, {"text": "c"}]
    examples, problems, _ = scan(write("".join(json.dumps(row) + "\n" for row in rows), "x.jsonl"))
    assert pairs(examples) == [("a", "b")]
    (error,) = [p for p in problems if p.severity == "error"]
    assert str(error) == (
        "x.jsonl:2: column 'label' is missing. Got ['text']. Add it, or name another with --prompt-column or "
        "--completion-column."
    )


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        ("title,text,label", "--prompt-column text --completion-column label"),
        ("question,context,answer", "--prompt-column question --completion-column answer"),
        ("a,b", "--prompt-column NAME --completion-column NAME"),
        ("prompt,My Answer", "--prompt-column prompt --completion-column NAME"),
        ("text,answer,output", "--prompt-column text --completion-column answer"),
    ],
)
def test_columns_in_doubt_are_an_error_with_the_flags_to_give(write, header, flags):
    message = refused(write(header + "\n" + ",".join("x" * len(header.split(","))) + "\n", "data.csv"))
    assert message.startswith(
        "data.csv: which columns hold the prompt and the completion is not clear from ["
    )
    assert message.endswith(f"Say it: {flags}.")


def test_named_columns_are_used_and_the_others_left_out(write):
    path = write("prompt,body,kind\nold,new,x\n", "data.csv")
    examples, problems, _ = scan(path, Columns("body", "kind"))
    assert pairs(examples) == [("new", "x")]
    assert problems == []
    assert refused(path, Columns("body", "sort")) == (
        "data.csv:2: column 'sort' is missing. Got ['prompt', 'body', 'kind']. Add it, or name another with "
        "--prompt-column or --completion-column."
    )


@pytest.mark.parametrize(
    ("content", "where", "what", "fix"),
    [
        (
            "prompt,completion\na,b\nc\n",
            "data.csv:3",
            "1 cell; expected 2, as in the header. Got ['c'].",
            '"…"',
        ),
        (
            "prompt,completion\na,b,c\n",
            "data.csv:2",
            "3 cells; expected 2",
            "Put a cell that holds the delimiter",
        ),
        ('prompt,completion\n"a"b,c\n', "data.csv:2", "not a valid record", 'with each " doubled'),
        (
            'prompt,completion\na,b\n"c,d\n',
            "data.csv:3",
            "not a valid record: unexpected end of data",
            "quotes",
        ),
        ("prompt,completion\n,b\n", "data.csv:2", "'prompt' is empty", "Fill it in"),
        ("prompt,prompt\na,b\n", "data.csv:1", "column 'prompt' appears twice in the header.", "Rename one"),
        (b"prompt,completion\ncaf\xe9,b\n", "data.csv:2", "byte 0xe9 is not UTF-8.", "iconv"),
        ("prompt,completion\n", "data.csv", "the file is empty", "Write lines such as"),
    ],
)
def test_a_bad_record_is_named_by_its_line(write, content, where, what, fix):
    message = refused(write(content, "data.csv"))
    assert message.startswith(f"{where}: ")
    assert what in message
    assert fix in message


@pytest.mark.parametrize(
    ("content", "where", "what", "fix"),
    [
        ('[{"prompt": "a"}]', "data.json: row 1", "'completion' is missing", "Give each line both keys"),
        (json.dumps([*ROWS, 3]), "data.json: row 4", "got a JSON number", 'Write {"prompt"'),
        ('[{"prompt": "a", "completion": "b"} {}]', "data.json: row 1", "expected ',' or ']'", "json.dumps"),
        (
            '[{"prompt": "a", "completion": "b"}',
            "data.json: row 1",
            "after this row comes the end of the file",
            "]",
        ),
        (
            '[{"prompt": "a", "comple',
            "data.json: row 1",
            "not valid JSON",
            "the rest of the array was not read",
        ),
        ('[{"prompt": a}]', "data.json: row 1", "not valid JSON: Expecting value", "json.dumps"),
        (
            '[{"prompt": "a", "prompt": "b", "completion": "c"}]',
            "data.json: row 1",
            "appears twice",
            "Keep one",
        ),
        (
            json.dumps(ROWS) + "x",
            "data.json: row 3",
            "the array is followed by 'x'",
            "Put all objects in one array",
        ),
        (
            b'[{"prompt": "caf\xe9", "completion": "b"}]',
            "data.json: row 1",
            "byte 0xe9 is not UTF-8",
            "iconv",
        ),
        ("[" * 100_000, "data.json: row 1", "nested too deeply", "Give one flat object a row."),
        ("[]", "data.json", "the file is empty", "Write lines such as"),
    ],
)
def test_a_bad_element_of_an_array_is_named_by_its_number(write, content, where, what, fix):
    message = refused(write(content, "data.json"))
    assert message.startswith(f"{where}: ")
    assert what in message
    assert fix in message


def test_a_gzip_file_that_is_cut_off_is_an_error_and_not_a_shorter_set(write):
    whole = gzip.compress(
        "".join(json.dumps({**row, "n": i}) + "\n" for i in range(5000) for row in ROWS).encode()
    )
    message = refused(write(whole[: len(whole) // 2], "data.jsonl.gz"))
    assert message.startswith("data.jsonl.gz: the file is damaged or cut off and cannot be read to its end (")
    assert message.endswith("Copy or download it again.")


def test_very_many_bad_rows_are_named_and_then_counted(write):
    examples, problems, num_rows = scan(write("{}\n" * (MOST_FAULTS + 50) + json.dumps(ROWS[0]), "x.jsonl"))
    assert (len(examples), num_rows, len(problems)) == (1, MOST_FAULTS + 51, MOST_FAULTS + 1)
    assert str(problems[-1]) == "x.jsonl: 50 more rows cannot be read. Mend those above first."


json_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
rows_of_text = st.lists(st.tuples(json_texts, json_texts), min_size=1, max_size=6)


@settings(deadline=None)
@given(rows_of_text, st.booleans(), st.integers(1, 40))
def test_an_array_is_read_alike_whatever_the_size_of_the_pieces(tmp_path_factory, rows, ascii_only, size):
    path = tmp_path_factory.mktemp("array") / "x.json"
    values = [{"prompt": p, "completion": c} for p, c in rows]
    path.write_text(json.dumps(values, ensure_ascii=ascii_only, indent=1), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK_CHARS", size)
        assert pairs(read_examples(path)) == rows


table_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff"), min_size=1)
cells = table_texts.filter(str.strip)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_a_table_that_is_written_is_read_back(tmp_path_factory, rows, delimiter):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *rows])
    path = tmp_path_factory.mktemp("table") / "x.txt"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert pairs(read_examples(path)) == rows


@needs_pyarrow
@pytest.mark.parametrize("zipped", [False, True])
def test_parquet_is_read_row_by_row(tmp_path, zipped, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    path = tmp_path / "data.parquet"
    columns = {
        "text": [f"t{i}" for i in range(3000)],
        "label": [i % 3 for i in range(3000)],
        "note": [None] * 3000,
    }
    parquet.write_table(pyarrow.table(columns), path, row_group_size=700)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    examples, problems, num_rows = scan(path)
    assert num_rows == 3000
    assert pairs(examples) == [(f"t{i}", str(i % 3)) for i in range(3000)]
    assert (examples[2999].line, len(problems)) == (3000, 1)


@needs_pyarrow
def test_parquet_may_hold_chats_and_names_the_bad_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"messages": [chat, chat[:1]]}), path)
    examples, problems, _ = scan(path)
    assert pairs(examples) == [("a", "b")]
    assert str(problems[0]).startswith(
        "data.parquet: row 2: 'messages' is [{'role': 'user', 'content': 'a'}]; expected"
    )


@needs_pyarrow
def test_damaged_parquet_is_an_error(write):
    message = refused(write(b"PAR1 and nothing more", "data.parquet"))
    assert message.startswith("data.parquet: the file is damaged or cut off")


def test_without_pyarrow_the_error_names_the_extra(write, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        Unsupported, match=r'needs pyarrow.*pip install "tailorbird\[parquet\]"`, or save the data as'
    ):
        read_examples(write(b"PAR1....PAR1", "data.parquet"))
