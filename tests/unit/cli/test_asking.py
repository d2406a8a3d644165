import io
import sys

import pytest

from tailorbird.cli import asking
from tailorbird.cli.main import run
from tailorbird.data.task import Task
from tailorbird.errors import ContextTooLong
from tailorbird.records import Citation, Completion, Passage, Usage
from tailorbird.workbench import OpenModel, Workbench

PASSAGES = (
    Passage("a", "manual.pdf", "text", headings=("Brakes", "Front"), page=3, start=5, end=9, score=0.5),
    Passage("b", "notes/faq.md", "text"),
)


class Parrot:
    """Answers with the last message, `prefix` in front; keeps what it was asked."""

    name = "parrot"

    def __init__(self, **completion):
        self.completion = completion
        self.requests = []

    def answer(self, requests):
        self.requests += requests
        asked = [(r, r.with_evidence(PASSAGES)) for r in requests]
        return [Completion(f"You said {r.question}", asked=found, **self.completion) for r, found in asked]

    def stream(self, request):
        self.requests.append(request)
        if request.question == "too long":
            raise ContextTooLong("request: too long. Shorten the messages.")
        yield "You said "
        if request.question == "stop me":
            raise KeyboardInterrupt
        yield request.question


@pytest.fixture
def parrot(monkeypatch, tmp_path):
    model = Parrot()
    opened = OpenModel("parrot", model, Task("answer", "Repeat.", max_tokens=50))
    monkeypatch.setattr(Workbench, "open", lambda self, reference, key_env=None: opened)
    monkeypatch.chdir(tmp_path)
    return model


def type_lines(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_an_answer_stands_above_its_citations(parrot, capsys):
    assert run(["ask", "parrot", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "You said hello",
        "[1] manual.pdf > Brakes > Front (page 3)",
        "[2] notes/faq.md",
    ]
    assert err == ""


def test_what_an_answer_rests_on_is_quoted_and_what_was_withheld_is_said(parrot, capsys):
    quoted = Citation(1, "a", "manual.pdf", "Squeeze\nboth.", 0, 9, 0, 8, 1.0)
    parrot.completion = {"citations": (quoted,), "withheld": "Nine."}
    assert run(["ask", "parrot", "hello"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "You said [1] hello",
        "[1] manual.pdf > Brakes > Front (page 3)",
        "    “Squeeze both.”",
        "[2] notes/faq.md",
    ]
    assert err.splitlines() == ["Withheld, as the passages hold too little of it: Nine."]


def test_only_the_likeliest_labels_are_shown():
    shares = {"a": 0.1, "b": 0.7, "c": 0.05, "d": 0.15}
    assert asking.probabilities_line(shares) == "b 70.0 %, d 15.0 %, a 10.0 %"
    assert asking.probabilities_line({"a": 0.0, "b": 1.0}) == "b 100.0 %"


def test_what_an_answer_leaves_out_is_said_on_stderr(parrot, capsys):
    parrot.completion = {
        "finish_reason": "length",
        "usage": Usage(9, 7),
        "dropped": ("evidence c: context full",),
        "valid": False,
    }
    assert run(["ask", "parrot", "hello"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "The answer names none of the labels.",
        "Cut off after 7 tokens; --max-tokens allows more.",
        "Left out: evidence c: context full",
    ]


def test_the_task_of_the_model_is_asked_and_max_tokens_overrides_it(parrot):
    run(["ask", "parrot", "hello"])
    run(["ask", "parrot", "hello", "--max-tokens", "7"])
    first, second = parrot.requests
    assert [m.content for m in first.messages] == ["Repeat.", "hello"]
    assert (first.sampling.max_tokens, second.sampling.max_tokens) == (50, 7)


def test_a_dash_reads_the_message_from_standard_input(parrot, monkeypatch):
    type_lines(monkeypatch, "first", "second")
    assert run(["ask", "parrot", "-"]) == 0
    assert parrot.requests[0].question == "first\nsecond"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_message_is_refused(parrot, capsys, text):
    assert run(["ask", "parrot", text]) == 2
    assert "TEXT is empty. Give the message to answer, or - to read it" in capsys.readouterr().err


def test_standard_input_that_is_not_text_is_refused(parrot, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00"), encoding="utf-8"))
    assert run(["ask", "parrot", "-"]) == 2
    assert "standard input: not text in utf-8" in capsys.readouterr().err


def test_a_chat_remembers_until_it_is_cleared_and_ends_with_its_input(parrot, monkeypatch, capsys):
    type_lines(monkeypatch, "one", "", "two", "/clear", "three")
    assert run(["chat", "parrot"]) == 0
    asked = [[m.content for m in r.messages][1:] for r in parrot.requests]
    assert asked == [["one"], ["one", "You said one", "two"], ["three"]]
    assert capsys.readouterr().out.splitlines() == [
        "You said one",
        "You said two",
        "Forgotten.",
        "You said three",
    ]


def test_quit_leaves_a_chat_and_a_mistyped_command_is_not_asked(parrot, monkeypatch, capsys):
    type_lines(monkeypatch, "/qiut", "/quit", "never asked")
    assert run(["chat", "parrot"]) == 0
    assert parrot.requests == []
    assert "/qiut: no such command. There are /clear and /quit." in capsys.readouterr().err


def test_an_error_in_a_chat_forgets_the_message_and_goes_on(parrot, monkeypatch, capsys):
    type_lines(monkeypatch, "one", "too long", "two")
    assert run(["chat", "parrot"]) == 0
    assert "Error: request: too long. Shorten the messages." in capsys.readouterr().err
    assert [m.content for m in parrot.requests[-1].messages][1:] == ["one", "You said one", "two"]


def test_ctrl_c_stops_an_answer_and_not_the_chat(parrot, monkeypatch, capsys):
    type_lines(monkeypatch, "stop me", "two")
    assert run(["chat", "parrot"]) == 0
    assert capsys.readouterr().out == "You said \n(stopped)\nYou said two\n"
