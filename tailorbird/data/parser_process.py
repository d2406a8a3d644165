"""Parsing in a child process, so that no file can harm the one who asks.

A parser may hang, eat all memory or crash on a hostile file. The child may do each of it: it is
ended, the file is refused with what it exceeded, and the next file gets a new child. One child
serves many files, since starting one costs more than parsing most files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tailorbird.data.readers.content import Content, Limits
from tailorbird.errors import DocumentError

FILES_PER_CHILD = 500
"""What parsers leak is given back when the child ends."""
_MAIN = "import sys; sys.path += sys.argv[1:]; from {module} import main; main()"
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TEMP", "TMPDIR")
"""What the child sees of the environment: what it needs to load libraries, and no keys."""


class ParserProcess:
    """Reads files in a child process under limits. It starts with the first file; close it at the end.

    One thread at a time asks it; threads that read at the same time have one each. After a fork the
    new process leaves the old one's child alone and starts its own.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._num_files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, data: bytes, suffix: str) -> Content:
        """The content of one file.

        Args:
            data: All of its bytes.
            suffix: Its kind, one of `readers.kinds.KINDS`.

        Raises:
            DocumentError: The reader refuses it, or it exceeds the limits.
        """
        child = self._started()
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            child.kill()

        clock = threading.Timer(self.limits.wall_s, end)
        clock.daemon = True
        clock.start()
        try:
            answer = self._ask(child, data, suffix)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            self.close()
            raise lost_child(self.limits, timed_out.is_set(), child.returncode) from None
        except BaseException:  # Ctrl-C: an answer that still comes would be taken for the next file's
            self.close()
            raise
        finally:
            clock.cancel()
        if self._num_files >= FILES_PER_CHILD or answer.get("last"):
            self.close()
        return self._content(answer)

    def close(self) -> None:
        """Ends the child; the next file would start another one."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            end_child(child)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._child, self._owner = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child, self._num_files = start_child("tailorbird.data.readers.child"), 0
        self._num_files += 1
        return self._child

    def _ask(self, child: subprocess.Popen[bytes], data: bytes, suffix: str) -> Mapping[str, Any]:
        assert child.stdin
        assert child.stdout
        question = {"suffix": suffix, "size": len(data), "limits": asdict(self.limits)}
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.write(data)
        child.stdin.flush()
        size = int.from_bytes(exactly(child.stdout.read(8), 8), "big")
        if size > 4 * self.limits.chars + 2**20:
            raise ValueError(size)
        return json.loads(exactly(child.stdout.read(size), size))

    def _content(self, answer: Mapping[str, Any]) -> Content:
        if answer.get("out_of_memory"):
            raise DocumentError(
                f"needs more than {_memory(self.limits)} to be parsed, the most that one file is given. Divide it, or "
                "save it as plain text."
            )
        if "refused" in answer:
            raise DocumentError(str(answer["refused"]))
        return Content(str(answer["text"]), str(answer["title"]), tuple(map(int, answer["page_starts"])))


def start_child(module: str) -> subprocess.Popen[bytes]:
    """A process of our own that runs a module's `main`, with pipes to it and no environment but what loads libraries.

    Raises:
        DocumentError: It can't be started.
    """
    places = [Path(__file__).parents[2], *(Path(place) for place in sys.path)]
    try:
        return subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _MAIN.format(module=module),
                *(str(place) for place in places if place.is_absolute()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
    except OSError as error:
        raise DocumentError(
            f"the process that parses such files cannot be started ({error.strerror}, {sys.executable!r}). Free "
            "memory or processes, or check the Python installation."
        ) from None


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Ends a process, whatever it does."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):  # what could not be sent is of no use now
            if pipe:
                pipe.close()


def lost_child(limits: Limits, timed_out: bool, code: int | None) -> DocumentError:
    """Why a process ended before it answered."""
    advice = "Save it anew from the program that made it, divide it, or save it as plain text."
    if timed_out:
        return DocumentError(
            f"not parsed after {limits.wall_s:g} s, the most that one file is given. {advice}"
        )
    if code is not None and code == -getattr(signal, "SIGPROF", 0):
        return DocumentError(
            f"not parsed after {limits.cpu_s:g} s of computing, the most that one file is given. {advice}"
        )
    return DocumentError(
        f"its parser broke down ({_ending(code)}): the file is damaged, or made to need more than {_memory(limits)}. "
        f"{advice}"
    )


def _memory(limits: Limits) -> str:
    return f"{limits.memory_bytes / 2**20:,.0f} MB of memory"


def exactly(data: bytes, size: int) -> bytes:
    """The bytes, if there are as many as expected.

    Raises:
        EOFError: There are fewer.
    """
    if len(data) < size:
        raise EOFError
    return data


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
