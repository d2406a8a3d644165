import io
import json
import sys

import pytest

from tailorbird.cli.output import (
    aligned,
    is_terminal,
    kept_for_json,
    print_json,
    print_table,
    printable,
    remark,
    say,
    size_text,
)


def test_a_terminal_never_gets_an_escape_sequence_out_of_an_answer():
    evil = "ok\x1b[2J\x1b]0;title\x07 \x9b31m\rhidden\u202eback\u2066"
    shown = printable(evil)
    assert not any(c in shown for c in "\x1b\x07\x9b\r\u202e\u2066")
    assert shown.startswith("ok\ufffd[2J")


def test_line_breaks_tabs_and_every_script_stay_as_they_are():
    text = "a\tb\nc – Ünïcödé 日本語 👩‍👩‍👧 العربية"
    assert printable(text) == text
    assert printable("dos\r\nline") == "dos\nline"


def test_results_go_to_stdout_and_remarks_to_stderr_unstyled_in_a_pipe(capsys):
    say("result", bold=True)
    remark("by the way", dim=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("result\n", "by the way\n")


def test_what_libraries_print_does_not_get_between_the_json(capsys):
    with kept_for_json(wanted=True):
        print("Loading weights …")
    print_json({"a": "é\x1b"})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": "é\x1b"}
    assert "\x1b" not in out
    assert err == "Loading weights …\n"


def test_json_on_a_stream_that_is_not_unicode_is_ascii(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"a": "日本 👍"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue().decode("ascii")) == {"a": "日本 👍"}


def test_a_table_in_a_pipe_has_one_uncut_row_a_line(capsys):
    print_table(["model", "size"], [["short", "1 B"], ["x" * 200, "two\nlines"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2] == "x" * 200 + "  two lines"
    assert lines[0].index("size") == lines[1].index("1 B") == 202


def test_aligned_lines_have_no_trailing_spaces():
    assert aligned([["a", ""], ["bbb", "c"]]) == ["a", "bbb  c"]


@pytest.mark.parametrize(("term", "expected"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_is_not_drawn_on(monkeypatch, term, expected):
    monkeypatch.setenv("TERM", term)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert is_terminal(stream) is expected


def test_a_file_is_no_terminal():
    assert not is_terminal(io.StringIO())


def test_sizes_have_the_unit_that_suits_them():
    assert [size_text(n) for n in (0, 999, 1000, 98_400_000, 5_000_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "98.4 MB",
        "5000 GB",
    ]
