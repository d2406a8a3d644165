"""The process that reads files lying together in one, seen from inside.

It is asked once, by a line of JSON. Then it tells of one entry after another, each a line of JSON, and
waits for a byte after each: `1` asks for its bytes, which follow with their length before them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from typing import IO, Any

from tailorbird.data.readers.child import limit_computing, limit_memory
from tailorbird.data.readers.content import Limits, check_size
from tailorbird.data.readers.entries import Entry, ReadEntries
from tailorbird.errors import DocumentError, NotFound

READERS = {
    "git": ("tailorbird.data.readers.git_commit", "git_entries"),
    "zim": ("tailorbird.data.readers.zim_archive", "zim_entries"),
}
OWN_FILES_BYTES = {"git": 64 * 2**20}
"""What a reader may write, by its name: the index of a pack with as many objects as are read. Others: a megabyte."""


def main() -> None:
    """Tells of the entries until there are no more, or the other side hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not do so into the answers
    asked = json.loads(questions.readline())
    limits = Limits(**asked["limits"])
    # archives are mapped into memory, and may be larger than all of it
    limit_memory("RLIMIT_DATA", limits.memory_bytes, OWN_FILES_BYTES.get(asked["reader"], 2**20))
    limit_computing(limits.cpu_s)
    try:
        module, name = READERS[asked["reader"]]
        read: ReadEntries = getattr(import_module(module), name)
        for entry in read(asked["place"], asked["settings"], limits):
            if not _tell(entry, questions, answers, limits):
                return
            limit_computing(limits.cpu_s)
        _send(answers, {"end": True})
    except (DocumentError, NotFound) as error:
        _send(answers, {"failed": str(error), "missing": isinstance(error, NotFound)})
    except MemoryError:
        _send(answers, {"failed": "needs more memory than reading it may take. It may be damaged."})
    except Exception as error:  # noqa: BLE001 - libraries raise anything on damaged files
        said = (str(error).strip().splitlines() or ["no details"])[0][:300]
        _send(answers, {"failed": f"damaged, cannot be read ({type(error).__name__}: {said}). Get it again."})


def _tell(entry: Entry, questions: IO[bytes], answers: IO[bytes], limits: Limits) -> bool:
    """Whether the other side still listens."""
    facts = {
        "name": entry.name,
        "version": entry.version,
        "title": entry.title,
        "size_bytes": entry.size_bytes,
        "refused": entry.refused,
    }
    _send(answers, facts)
    wanted = questions.read(1)
    if wanted == b"1":
        try:
            data = entry.load()
            check_size(len(data), limits)
        except DocumentError as error:
            _send(answers, {"refused": str(error)})
        except MemoryError:
            _send(answers, {"refused": "needs more memory than one file may take. Divide it."})
        except Exception as error:  # noqa: BLE001 - as above
            _send(answers, {"refused": f"damaged, cannot be read ({type(error).__name__}). Save it again."})
        else:
            _send(answers, {"length": len(data)})
            answers.write(data)
            answers.flush()
    return wanted != b""


def _send(answers: IO[bytes], facts: dict[str, Any]) -> None:
    answers.write(json.dumps(facts).encode() + b"\n")
    answers.flush()
