"""SIGTERM ends long work as Ctrl-C does: what was done is kept, and a sentence says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminating_interrupts() -> Generator[None]:
    """While the block runs, SIGTERM raises KeyboardInterrupt; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
