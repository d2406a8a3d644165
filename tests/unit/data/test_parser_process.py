"""The child that parses: limits hold, and whatever happens to it, the next file is read."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from written_documents import make_docx, make_pdf, make_pdf_bomb, paragraph

from tailorbird.data import parser_process
from tailorbird.data.documents import Unreadable, read_document, read_folder
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import Limits
from tailorbird.errors import DocumentError

PAGE = b"<title>Fees</title><p>None.</p>"
LONG = make_docx("".join(paragraph(" ".join(f"{i * j:x}" for j in range(40))) for i in range(8_000)))
"""Takes seconds to parse."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="this limit is only held on Linux")


@pytest.fixture(scope="module")
def parser():
    with ParserProcess() as parser:
        yield parser


def child_of(parser):
    parser.read(PAGE, ".html")
    return parser._child.pid


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # nobody may reap it


def test_content_comes_back_whole_and_one_child_serves_many_files(parser):
    pid = child_of(parser)
    content = parser.read(make_pdf("First page", "Second page", title="The manual"), ".pdf")
    assert (content.text, content.title, content.page_starts) == (
        "First page\n\nSecond page",
        "The manual",
        (0, 12),
    )
    long = "grün 👩\u200d🔧 " * 50_000
    assert parser.read(f"<p>{long}".encode(), ".html").text == long.strip()
    assert child_of(parser) == pid


def test_a_refusal_leaves_the_child_alone(parser):
    pid = child_of(parser)
    with pytest.raises(DocumentError, match=r"^damaged, cannot be parsed \(BadZipFile: .*\)\. Save it anew"):
        parser.read(b"PK\x03\x04", ".docx")
    assert child_of(parser) == pid


def test_the_child_starts_with_the_first_file_that_needs_it_and_ends_with_the_folder(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.html").write_bytes(PAGE)
    with ParserProcess() as parser:
        read_document(tmp_path / "a.txt", tmp_path, parser)
        assert parser._child is None
        pid = child_of(parser)
    assert not is_alive(pid)
    reading = read_folder(tmp_path)
    assert [next(reading).id, next(reading).id] == ["a.txt", "b.html"]
    reading.close()


@linux_only
def test_memory_is_limited():
    hostile = make_pdf_bomb(100 * 2**20)
    assert len(hostile) < 2_000
    with ParserProcess(Limits(memory_bytes=80 * 2**20)) as parser:
        with pytest.raises(
            DocumentError,
            match=r"^its parser broke down \(SIG.*: .* made to need more than 80 MB of memory\. Save",
        ):
            parser.read(hostile, ".pdf")
        assert parser.read(PAGE, ".html").text == "None."


@linux_only
def test_a_parser_that_is_told_of_the_end_of_memory_refuses_in_words():
    with ParserProcess(Limits(memory_bytes=90 * 2**20)) as parser:
        with pytest.raises(
            DocumentError, match=r"^needs more than 90 MB of memory to be parsed, .*Divide it, or save it"
        ):
            parser.read(b"<p>" + b"x" * (30 * 2**20), ".html")
        assert parser.read(PAGE, ".html").text == "None."


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no seconds of computing")
def test_computing_is_limited():
    with ParserProcess(Limits(cpu_s=0.5)) as parser:
        with pytest.raises(
            DocumentError, match=r"^not parsed after 0.5 s of computing, .*Save it anew .*, divide it, or"
        ):
            parser.read(LONG, ".docx")
        assert parser.read(PAGE, ".html").text == "None."


def test_waiting_is_limited():
    with ParserProcess() as parser:
        child_of(parser)
        parser.limits = Limits(wall_s=0.5)
        with pytest.raises(
            DocumentError, match=r"^not parsed after 0\.5 s, the most that one file is given\. Save"
        ):
            parser.read(LONG, ".docx")
        parser.limits = Limits()
        assert parser.read(PAGE, ".html").text == "None."


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_child_that_breaks_down_is_replaced(number):
    with ParserProcess() as parser:
        pid = child_of(parser)
        clock = threading.Timer(0.3, os.kill, (pid, number))
        clock.start()
        with pytest.raises(
            DocumentError,
            match=rf"^its parser broke down \({number.name}\): the file is damaged, or made to need more than 512 MB",
        ):
            parser.read(LONG, ".docx")
        assert child_of(parser) != pid
        os.kill(parser._child.pid, number)  # and between two files nobody notices
        time.sleep(0.1)
        assert parser.read(PAGE, ".html").text == "None."


def test_an_answer_that_makes_no_sense_is_a_breakdown(monkeypatch):
    monkeypatch.setattr(parser_process, "_MAIN", "import sys; sys.stdin.buffer.read(9); print('x' * 100)")
    with ParserProcess() as parser, pytest.raises(DocumentError, match=r"^its parser broke down"):
        parser.read(PAGE, ".html")


def test_a_child_that_cannot_start_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        ParserProcess() as parser,
        pytest.raises(DocumentError, match=r"cannot be started \(No such file .*Free"),
    ):
        parser.read(PAGE, ".html")


def test_a_child_is_replaced_after_many_files(monkeypatch):
    monkeypatch.setattr(parser_process, "FILES_PER_CHILD", 2)
    with ParserProcess() as parser:
        first = child_of(parser)
        parser.read(PAGE, ".html")
        assert not is_alive(first)
        assert child_of(parser) != first


@linux_only
def test_a_child_that_holds_much_memory_is_replaced():
    with ParserProcess(Limits(memory_bytes=2**25)) as parser:
        parser.read(PAGE, ".html")
        assert parser._child is None


def test_an_interrupted_question_is_not_answered_to_the_next_file(monkeypatch):
    with ParserProcess() as parser:
        child_of(parser)

        def interrupt(_data, _size):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(parser_process, "exactly", interrupt)
            with pytest.raises(KeyboardInterrupt):
                parser.read(PAGE, ".html")
        assert parser.read(b"<p>Other.", ".html").text == "Other."


def test_threads_read_side_by_side():
    def read(number):
        with ParserProcess() as parser:
            return [parser.read(f"<p>{number} {i}".encode(), ".html").text for i in range(5)]

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(read, range(3))) == [[f"{n} {i}" for i in range(5)] for n in range(3)]


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore")
from tailorbird.data.parser_process import ParserProcess
parser = ParserProcess()
parser.read(b"<p>x", ".html")
pid = parser._child.pid
if os.fork() == 0:
    assert parser.read(b"<p>y", ".html").text == "y"
    assert parser._child.pid != pid
    parser.close()
    os._exit(0)
assert os.wait()[1] == 0
assert parser.read(b"<p>z", ".html").text == "z"
assert parser._child.pid == pid
parser.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_starts_its_own_child_and_leaves_the_other_alone():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_the_child_ends_with_the_one_who_asks():
    program = FORKED.split("if os.fork", maxsplit=1)[0] + "print(pid, flush=True)\nos.kill(os.getpid(), 9)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    begin = time.monotonic()
    while is_alive(int(ran.stdout)):
        assert time.monotonic() - begin < 10
        time.sleep(0.02)


@linux_only
def test_the_child_knows_no_keys_and_loads_nothing_heavy(monkeypatch):
    monkeypatch.setenv("SECRET_API_KEY", "do not tell")
    with ParserProcess() as parser:
        parser.read(make_docx(paragraph("x")), ".docx")
        parser.read(make_pdf("x"), ".pdf")
        process = Path(f"/proc/{parser._child.pid}")
        assert b"do not tell" not in (process / "environ").read_bytes()
        maps = (process / "maps").read_text()
        assert "pdfium" in maps
        assert not {name for name in ("torch", "numpy", "tokenizers") if name in maps}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no seconds of computing")
def test_a_folder_goes_on_after_a_file_that_breaks_its_parser(tmp_path):
    (tmp_path / "a.html").write_bytes(PAGE)
    (tmp_path / "b.docx").write_bytes(LONG)
    (tmp_path / "c.html").write_bytes(PAGE)
    found = list(read_folder(tmp_path, Limits(cpu_s=0.3)))
    assert [item.id for item in found] == ["a.html", "b.docx", "c.html"]
    assert isinstance(found[1], Unreadable)
    assert found[1].reason.startswith("not parsed after 0.3 s of computing")
