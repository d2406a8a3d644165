"""`--processes N`: the same command N times on this machine, as torchrun would start it.

The processes find one another by the variables that torchrun sets (RANK, WORLD_SIZE, …), so a command that
torchrun or `accelerate launch` started, on one machine or many, goes the same way and starts no others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from types import FrameType
from typing import IO

from tailorbird.cli.output import remark
from tailorbird.errors import InputError

GRACE_S, KEEPING_S = 5.0, 120.0
"""How long the others may take to end after one failed; after Ctrl-C, to keep the step under way."""
INTERRUPTED = 130
PARENT = "TAILORBIRD_LAUNCHED"
"""Set where standard input tells, by its end, that the command that started this process is gone."""


def launched(num_processes: int | None) -> bool:
    """Whether processes are to be started; a process that was itself started so only joins the others.

    Raises:
        InputError: torchrun started another number of them.
    """
    started = os.environ.get("WORLD_SIZE")
    if started is None or num_processes is None:
        if started is None:
            return (num_processes or 1) > 1
        return False
    if int(started) != num_processes:
        raise InputError(
            f"--processes {num_processes}: this command was started in {started} processes already. "
            "Leave --processes out under torchrun or accelerate."
        )
    if os.environ.get(PARENT):
        threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
    return False


def refuse_shard_alone(num_processes: int | None) -> None:
    """Layers can be shared out where this command runs in several processes.

    Raises:
        InputError: it runs in one.
    """
    if int(os.environ.get("WORLD_SIZE") or num_processes or 1) == 1:
        raise InputError(
            "--shard: the model's layers can be shared out between several processes only, and this command runs "
            "in one. Add --processes 2, or start it with torchrun."
        )


def told_by_first() -> bool:
    """Whether this process is the one that prints; of many it is the first."""
    return os.environ.get("RANK", "0") == "0"


def launch(num_processes: int) -> int:
    """Run this process's own command line in so many processes; the gravest of their exit codes.

    The first process's output is shown as it comes; of another one, what it said if it failed. Ctrl-C and
    SIGTERM reach all of them. Once one has failed the rest are ended.
    """
    with contextlib.ExitStack() as opened:
        said = [opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(num_processes)]
        port = _free_port()
        ranks = [_start(rank, num_processes, port, said[rank]) for rank in range(num_processes)]
        try:
            with _passed_on(ranks):
                codes = _ended(ranks)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        for rank in range(1, num_processes):
            if codes[rank] not in (None, 0, INTERRUPTED):
                said[rank].seek(0)
                remark(
                    f"Process {rank}: {said[rank].read().strip() or f'ended by signal {-ranks[rank].returncode}'}"
                )
    return max(code for code in codes if code is not None)


def _start(rank: int, num_processes: int, port: int, said: IO[str]) -> subprocess.Popen[bytes]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // num_processes)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        PARENT: "1",
    }
    return subprocess.Popen(  # noqa: S603 - this very command
        [sys.executable, "-m", "tailorbird.cli", *sys.argv[1:]],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else said,
        start_new_session=True,  # a terminal's Ctrl-C comes by way of the launcher, and so once
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def _passed_on(ranks: Sequence[subprocess.Popen[bytes]]) -> Generator[None]:
    """While the block runs, a signal to this process goes to all of `ranks` instead."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        for process in ranks:
            process.send_signal(number)

    usual = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _ended(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """The exit code of each; None where it had to be ended because another one had failed."""
    deadline: float | None = None
    while any(process.poll() is None for process in ranks):
        failed = [process.returncode for process in ranks if process.returncode]
        if failed and deadline is None:
            deadline = time.monotonic() + (KEEPING_S if failed == [INTERRUPTED] else GRACE_S)
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.05)
    # As a shell puts it, a process that a signal ended has the code 128 and that signal's number.
    codes = [process.poll() for process in ranks]
    return [code if code is None or code >= 0 else 128 - code for code in codes]


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(INTERRUPTED)
