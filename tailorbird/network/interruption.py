"""Ctrl-C and SIGTERM wait until a training step is done and kept."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

POSTPONED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def postponed_signals() -> Generator[Callable[[], signal.Signals | None]]:
    """While the block runs, the first signal is only noted; the next is delivered at once.

    Gives a function that says which signal is noted. Outside of the main thread, which alone gets
    signals, nothing changes. What the signals do otherwise is restored when the block ends:
    `signal.raise_signal` then delivers the noted one.
    """
    noted: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    usual: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if noted:
            restore()
            signal.raise_signal(number)
        noted.append(signal.Signals(number))
        log.info("Stopping after this step. Once more stops at once, back to the last checkpoint.")

    for number in POSTPONED:
        usual[number] = signal.signal(number, note)
    try:
        yield lambda: noted[0] if noted else None
    finally:
        restore()
