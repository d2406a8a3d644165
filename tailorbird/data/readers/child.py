"""The process that parses, seen from inside: files come in one by one, content or a refusal goes out.

A question is a line of JSON with the kind, the size and the limits, then the file's bytes. An answer
is its length in eight bytes and JSON. Only text crosses over: what a hostile file could make of this
process must not reach the other one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tailorbird.data.readers.content import Limits, too_long
from tailorbird.data.readers.kinds import KINDS
from tailorbird.errors import DocumentError

OWN_FILES_BYTES = 2**20
"""What a process that parses may write: compiled modules."""


def main() -> None:
    """Answers until the other side hangs up, or until much of the memory it may have is in use."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a parser that prints must not do so into the answers
    sys.setrecursionlimit(3_000)
    # openpyxl takes NumPy along where it can, and nothing here needs it
    sys.modules["numpy"] = None  # pyright: ignore[reportArgumentType]
    while line := questions.readline():
        asked = json.loads(line)
        limits = Limits(**asked["limits"])
        limit_memory("RLIMIT_AS", limits.memory_bytes, OWN_FILES_BYTES)
        limit_computing(limits.cpu_s)
        answer = _answer(questions, asked["suffix"], asked["size"], limits)
        limit_computing(0)
        answer["last"] = _address_space() > limits.memory_bytes // 2
        _send(answers, answer)
        if answer["last"]:
            return


def _answer(questions: IO[bytes], suffix: str, size: int, limits: Limits) -> dict[str, Any]:
    try:
        content = KINDS[suffix].read(questions.read(size), limits)
        if len(content.text) > limits.chars:
            raise too_long(limits)  # noqa: TRY301 - refused like the reader's own refusals
    except DocumentError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"refused": "", "out_of_memory": True}
    except ImportError as error:
        return {
            "refused": f"its parser is not installed ({error}). Install tailorbird with its dependencies."
        }
    except RecursionError:
        return {"refused": "nested too deep to be parsed. Save it with less structure, or as plain text."}
    except Exception as error:  # noqa: BLE001 - parsers raise anything on damaged files
        detail = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {detail[0][:300] if detail else 'no details'}"
        return {"refused": f"damaged, cannot be parsed ({said}). Save it anew from the program that made it."}
    return {"text": content.text, "title": content.title, "page_starts": content.page_starts}


def _send(answers: IO[bytes], answer: dict[str, Any]) -> None:
    data = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    answers.write(len(data).to_bytes(8, "big"))
    answers.write(data)
    answers.flush()


def limit_computing(seconds: float) -> None:
    """From now on so many seconds, after which the system ends this process; 0 is without end."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(kind: str, memory_bytes: int, files_bytes: int) -> None:
    """Sets what the system may enforce; systems differ in what they can.

    Args:
        kind: `RLIMIT_AS` counts all that is mapped, `RLIMIT_DATA` only memory of its own, not mapped files.
        memory_bytes: The most of it.
        files_bytes: The most that a file which this process writes may have.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = {kind: memory_bytes, "RLIMIT_FSIZE": files_bytes, "RLIMIT_CORE": 0}
    for name, value in wanted.items():
        limit = getattr(resource, name)
        _, hard = resource.getrlimit(limit)
        # no more than who started us allows; and macOS knows the name but not the limit
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, hard))


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0
