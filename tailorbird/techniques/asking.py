"""Asks a model many requests while a technique is applied, and says now and then how far that is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tailorbird.models.model import Model
from tailorbird.records import Completion, Request

log = logging.getLogger(__name__)

PART = 16
"""Requests that a model is asked at once: enough to share work, few enough to tell how far it is."""
EVERY_S = 15.0


@dataclass
class Pace:
    """Says when it is time to say something again: first and then every `EVERY_S` seconds."""

    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def is_due(self) -> bool:
        """Whether so much time went by since it last was."""
        now = self.clock()
        if now - self._last < EVERY_S:
            return False
        self._last = now
        return True


def answer_all(
    model: Model, requests: Sequence[Request], who: str, pace: Pace | None = None
) -> list[Completion]:
    """The answers to all requests, in order; every so often the log says how many there are."""
    pace = pace or Pace()
    answers: list[Completion] = []
    for start in range(0, len(requests), PART):
        answers += model.answer(requests[start : start + PART])
        if len(answers) < len(requests) and pace.is_due():
            log.info("%s: %d of %d dev examples are answered.", who, len(answers), len(requests))
    return answers
