"""The index of documents and live sources, asked together: one ranking, and each passage says where it is from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from tailorbird.errors import EndpointError
from tailorbird.records import Passage, Scope
from tailorbird.sources.fusion import reciprocal_rank_fusion
from tailorbird.sources.source import Source, keeps_to, search_within

log = logging.getLogger(__name__)

PREPARING_S = 60.0
"""Seconds that a source may take before its first question, in which all others are asked."""
GRACE_S = 0.5
"""Seconds beyond a source's own limit, in which it can say itself why it is late."""
UNDER_WAY = 8
"""Questions that a source may be working on; one that is given up goes on until its own limits end it."""
MAX_REASON = 400


class Named(Protocol):
    """A source with a name, and the seconds that one question of it may take."""

    @property
    def name(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    def prepare(self) -> None: ...

    def search(self, query: str, k: int) -> list[Passage]: ...


@dataclass(frozen=True)
class Found:
    """What was found, best first, and which sources could not be asked, and why."""

    passages: tuple[Passage, ...]
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Merged:
    """Asks an index and live sources at the same time, and fuses their rankings: see `fused`.

    A live source that fails or is late is left out and said: in the log, and to whoever asks by `ask`.

    Args:
        live: the live sources; their names differ.
        index: what answers without a connection, if there is something.
    """

    live: tuple[Named, ...]
    index: Source | None = None
    _working: dict[str, threading.Semaphore] = field(
        default_factory=dict[str, threading.Semaphore], init=False, repr=False, compare=False
    )
    _silent: set[str] = field(default_factory=set[str], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._working.update({source.name: threading.Semaphore(UNDER_WAY) for source in self.live})

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages, best first.

        Raises:
            EndpointError: there is no index, and no live source could be asked.
        """
        return list(self.ask(query, k).passages)

    def ask(self, query: str, k: int, *, only: Scope | None = None) -> Found:
        """The passages of what `only` allows, and what failed or could not be asked for that: see `keeps_to`.

        Raises:
            EndpointError: there is no index, and no live source could be asked.
        """
        if k <= 0 or not query.strip():
            return Found(())
        open_to_all = [source for source in self.live if keeps_to(source, only)]
        asked = [_Asked(source, query, k, only, self._working[source.name]) for source in open_to_all]
        rankings = [search_within(self.index, query, k, only)] if self.index is not None else []
        lacking = [_unasked(source) for source in self.live if source not in open_to_all]
        for one in asked:
            found = one.answer()
            if isinstance(found, str):
                lacking.append(self._told(one.source.name, found))
            else:
                self._silent.discard(one.source.name)
                rankings.append(found)
        if not rankings and asked:
            raise EndpointError(
                f"knowledge: none of the sources could be asked. {' '.join(lacking)} Try again later, or add documents."
            )
        return Found(tuple(fused(rankings, k)), tuple(lacking))

    def _told(self, name: str, reason: str) -> str:
        """The failure in words; a source that goes on failing is logged as a warning once."""
        level = logging.DEBUG if name in self._silent else logging.WARNING
        self._silent.add(name)
        log.log(level, "knowledge: the source %s is left out: %s", name, reason)
        return f"source {name}: {reason}"


def look_up(source: Source, query: str, k: int, only: Scope | None = None) -> Found:
    """What a source finds of what `only` allows, and what could not be asked where it is made of several."""
    if isinstance(source, Merged):
        return source.ask(query, k, only=only)
    return Found(tuple(search_within(source, query, k, only)))


def _unasked(source: Named) -> str:
    return f"source {source.name}: not asked, as it can't tell who may read what, or what is asked of."


def fused(rankings: Sequence[Sequence[Passage]], k: int) -> list[Passage]:
    """At most `k` passages by reciprocal rank: each by its place in its own ranking, and in that of all by similarity.

    Without the second, sources whose finds differ would only take turns, however little one has to say. The same text
    found twice stands once, in its better place. Of equals that of the earlier ranking comes first. A single ranking
    stays as it is.
    """
    places = [(rank, number) for number, ranking in enumerate(rankings) for rank in range(len(ranking))]
    first: dict[str, tuple[int, int]] = {}
    for rank, number in sorted(places):
        first.setdefault(" ".join(rankings[number][rank].text.split()), (number, rank))
    kept = sorted(first.values())
    if len(rankings) == 1:
        return [rankings[0][rank] for _, rank in kept[:k]]
    own = [[place for place in kept if place[0] == number] for number in range(len(rankings))]
    alike = sorted(kept, key=lambda place: (-rankings[place[0]][place[1]].score, place[1], place[0]))
    return [rankings[number][rank] for (number, rank), _ in reciprocal_rank_fusion([*own, alike])[:k]]


class _Asked:
    """One question to one source, under way in a thread that nobody waits for longer than the limit."""

    def __init__(
        self, source: Named, query: str, k: int, only: Scope | None, working: threading.Semaphore
    ) -> None:
        self.source = source
        self._end = time.monotonic() + PREPARING_S
        self._ready = threading.Event()
        self._found: list[list[Passage] | str] = []
        self._thread: threading.Thread | None = None
        if not working.acquire(blocking=False):
            self._found.append(f"it still works on {UNDER_WAY} earlier questions.")
            return

        def work() -> None:
            try:
                with suppress(Exception):  # the question says it
                    source.prepare()
                self._end = time.monotonic() + source.timeout_s + GRACE_S
                self._ready.set()
                self._found.append(search_within(source, query, k, only))
            except Exception as error:
                log.debug("knowledge: the source %s failed", source.name, exc_info=True)
                self._found.append(_reason(error))
            finally:
                working.release()

        self._thread = threading.Thread(target=work, name=f"source {source.name}", daemon=True)
        self._thread.start()

    def answer(self) -> list[Passage] | str:
        """The passages, or why there are none."""
        if self._thread is not None:
            if not self._ready.wait(max(0.0, self._end - time.monotonic())):
                return f"it was not ready within {PREPARING_S:g} s."
            self._thread.join(max(0.0, self._end - time.monotonic()))
        return self._found[0] if self._found else f"it took longer than {self.source.timeout_s:g} s."


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MAX_REASON else f"{words[: MAX_REASON - 1]}…"
