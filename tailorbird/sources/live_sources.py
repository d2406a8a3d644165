"""Live sources by name: their kind and settings, as recipes and saved models hold them, and what they found lately."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from tailorbird.errors import RecipeError, TailorbirdError, Unsupported
from tailorbird.records import Passage, Scope, content_hash
from tailorbird.sources.passage_rows import embedded_text
from tailorbird.sources.setting_types import check_type
from tailorbird.sources.source import Prepared, Source, search_within

if TYPE_CHECKING:
    from tailorbird.sources.embedder import Embedder

GROUP = "tailorbird.sources"
LIVE_KINDS: Mapping[str, str] = {
    "wikipedia": "tailorbird.sources.wikipedia:Wikipedia",
    "search_api": "tailorbird.sources.search_api:SearchApi",
    "sql_query": "tailorbird.sources.sql_question:SqlQuery",
    "mcp_tool": "tailorbird.sources.mcp_tool:McpTool",
}
"""The built-in kinds and where they are; a module is imported when one of its kind is asked."""

REMEMBERED = 4_096
"""Questions whose passages are kept, of all live sources of the process together."""


@dataclass(frozen=True)
class LiveSource:
    """A source that is asked when the question is, under the name that its passages carry.

    What it found is kept for `cache_s` seconds, in this process, by its kind and settings and by the question: the
    arms of a comparison are given the same passages. Passages get the similarity to the question that an index
    would give them, so that one threshold holds for both.

    Args:
        name: what stands beside its passages.
        kind: a built-in kind, or an entry point of the group `tailorbird.sources`.
        settings: the kind's own. They are kept with a model, so they hold no keys, only names of variables.
        timeout_s: seconds that one question may take.
        cache_s: seconds for which an answer is good; 0 asks every time.

    Raises:
        Unsupported: no source of this kind is installed.
        RecipeError: it doesn't take the settings.
    """

    name: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout_s: float = 10.0
    cache_s: float = 3_600.0
    _first: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _prepared: list[bool] = field(default_factory=list[bool], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for key, least in (("timeout_s", 0.1), ("cache_s", 0.0)):
            value = getattr(self, key)
            if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e7:
                raise RecipeError(
                    f"source {self.name!r}: {key} is {value!r}; expected seconds, at least {least:g}."
                )
        try:
            content_hash(self.to_json())
        except (TypeError, ValueError):
            raise RecipeError(
                f"source {self.name!r}: its settings hold what JSON can't, got {self.settings!r}. Give texts, numbers, "
                "lists and tables of these: they are kept with the model."
            ) from None
        _ = self.source  # settings are checked before anything runs

    @cached_property
    def source(self) -> Source:
        """What is asked; it opens no connection before the first question."""
        return _made(self.name, self.kind, self.settings, self.timeout_s)

    @property
    def public(self) -> bool:
        """Whether everyone may read what it finds, as it says itself."""
        return getattr(self.source, "public", False) is True

    @property
    def scoped(self) -> bool:
        """Whether it keeps to who may read and of what is asked, as it says itself."""
        return getattr(self.source, "scoped", False) is True

    def prepare(self) -> None:
        """Before the first question: what takes longer than a question may, such as starting a server.

        Raises:
            TailorbirdError: it fails, as the question then will.
        """
        with self._first:
            if self._prepared:
                return
            self._prepared.append(True)
            if isinstance(self.source, Prepared):
                self.source.prepare()

    def search(self, query: str, k: int, *, only: Scope | None = None) -> list[Passage]:
        """At most `k` passages of what `only` allows, best first, with their similarity to the question as `score`.

        Raises:
            TailorbirdError: it can't be asked, or answers what can't be used.
        """
        from tailorbird.sources.embedder import default_embedder

        embedder = default_embedder()
        asked = [self.kind, dict(self.settings), embedder.name, _plain(query), k]
        key = content_hash([*asked, repr(only)] if only is not None and self.scoped else asked, 32)
        if not self.cache_s:
            return self._asked(embedder, query, k, only)
        with _LATELY.alone(key):  # two arms may ask the same at the same time
            if (kept := _LATELY.get(key, self.cache_s)) is not None:
                return [replace(passage, source=self.name) for passage in kept]
            found = self._asked(embedder, query, k, only)
            _LATELY.put(key, found)
        return list(found)

    def _asked(self, embedder: Embedder, query: str, k: int, only: Scope | None) -> list[Passage]:
        found = search_within(self.source, query, k, only)[:k]
        if not found:
            return []
        vectors = embedder.embed([query, *(embedded_text(passage) for passage in found)])
        # Rounded as an index does it, so that equal texts tie.
        scores = [round(float(score), 5) for score in vectors[1:] @ vectors[0]]
        return [replace(p, score=s, source=self.name) for p, s in zip(found, scores, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """What makes it again; equal ones find equal passages."""
        return {
            "name": self.name,
            "kind": self.kind,
            "settings": {key: list(v) if isinstance(v, tuple) else v for key, v in self.settings.items()},
            "timeout_s": self.timeout_s,
            "cache_s": self.cache_s,
        }


def live_source(name: str, table: Mapping[str, Any]) -> LiveSource:
    """The live source that a table of settings describes, as a recipe has it; without `kind` its name is the kind."""
    own = with_tuples(table)
    kind, timeout_s, cache_s = own.pop("kind", name), own.pop("timeout_s", 10.0), own.pop("cache_s", 3_600.0)
    return LiveSource(name, str(kind), own, timeout_s, cache_s)


def saved_source(saved: Mapping[str, Any]) -> LiveSource:
    """The live source that `LiveSource.to_json` described."""
    settings = with_tuples(saved["settings"])
    return LiveSource(saved["name"], saved["kind"], settings, saved["timeout_s"], saved["cache_s"])


def live_kinds() -> list[str]:
    """The kinds there are, built-in ones first."""
    brought = sorted(point.name for point in entry_points(group=GROUP))
    return list(dict.fromkeys([*LIVE_KINDS, *brought]))


def kind_of(source: Source) -> str:
    """The kind that makes such a source; of a plug-in's its class's name in lower case."""
    name = f"{type(source).__module__}:{type(source).__name__}"
    return next(
        (kind for kind, target in LIVE_KINDS.items() if target == name), type(source).__name__.lower()
    )


def with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with tuples for the lists that TOML and JSON have in their place, as frozen records hold them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def forget_answers() -> None:
    """Forgets what all live sources found: the next questions are asked anew."""
    _LATELY.clear()


class _Lately:
    """What was found for which question, and when; the longest unused is forgotten first. Threads may share it."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, tuple[float, list[Passage]]] = OrderedDict()
        self._lock = threading.Lock()
        self._asking: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def alone(self, key: str) -> Generator[None]:
        """Whoever asks for the same waits until the one before has put, or failed."""
        with self._lock:
            turn, waiting = self._asking.get(key, (threading.Lock(), 0))
            self._asking[key] = (turn, waiting + 1)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, waiting = self._asking[key]
                if waiting == 1:
                    del self._asking[key]
                else:
                    self._asking[key] = (turn, waiting - 1)

    def get(self, key: str, seconds: float) -> list[Passage] | None:
        with self._lock:
            when, found = self._found.get(key, (0.0, None))
            if found is None or time.monotonic() - when > seconds:
                return None
            self._found.move_to_end(key)
            return found

    def put(self, key: str, found: list[Passage]) -> None:
        with self._lock:
            self._found[key] = (time.monotonic(), found)
            self._found.move_to_end(key)
            while len(self._found) > REMEMBERED:
                self._found.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._found.clear()


_LATELY = _Lately()


def _class_of(name: str, kind: str) -> Any:
    if target := LIVE_KINDS.get(kind):
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)
    for point in entry_points(group=GROUP):
        if point.name == kind:
            return point.load()
    named = f"source {name!r}: " if name != kind else ""
    raise Unsupported(
        f"knowledge: {named}the live source {kind!r}, which is not installed, is asked for. Known: "
        f"{', '.join(live_kinds())}. Install the plug-in that brings it, or correct the name."
    )


def _made(name: str, kind: str, settings: Mapping[str, Any], timeout_s: float) -> Source:
    make = _class_of(name, kind)
    if not is_dataclass(make) or not isinstance(make, type):
        raise RecipeError(
            f"source {name!r}: {kind!r} is no frozen dataclass, so a model can't be saved with it."
        )
    known = {f.name: f for f in fields(make) if f.init}
    for key, value in settings.items():
        if key not in known:
            raise RecipeError(
                f"source {name!r}: unknown setting {key!r}. {kind} has: {', '.join(known) or 'none'}; every source has "
                "kind, timeout_s and cache_s."
            )
        check_type(f"source {name!r}", key, value, known[key].type)
    limit = {"timeout_s": float(timeout_s)} if "timeout_s" in known and "timeout_s" not in settings else {}
    try:
        made: Any = make(**settings, **limit)
    except TailorbirdError as error:
        raise RecipeError(f"source {name!r}: {error}") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"source {name!r}: {error}. Check the settings' names and values.") from None
    return made


def _plain(query: str) -> str:
    return query.encode("utf-8", "replace").decode("utf-8")
