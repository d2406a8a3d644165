"""What a knowledge plug-in is: a `Source` is asked live, a `Connector` is copied in and indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, cast, runtime_checkable

from tailorbird.data.documents import Unchanged, Unreadable
from tailorbird.records import Document, Passage, Scope

__all__ = [
    "Connector",
    "Prepared",
    "Removed",
    "Scoped",
    "Source",
    "Unchanged",
    "Unreadable",
    "Versioned",
    "keeps_to",
    "may_be_asked",
    "search_within",
]


@runtime_checkable
class Source(Protocol):
    """Finds passages for a question. Any text is a question; none makes a source fail."""

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages, best first; the same question gives the same order."""
        ...


@runtime_checkable
class Prepared(Source, Protocol):
    """A source that needs a while before its first question."""

    def prepare(self) -> None:
        """Makes it ready, within limits of its own; it is asked without, too."""
        ...


@runtime_checkable
class Scoped(Source, Protocol):
    """A source that keeps to who may read and of what is asked, before it ranks anything."""

    @property
    def scoped(self) -> Literal[True]: ...

    def search(self, query: str, k: int, *, only: Scope | None = None) -> list[Passage]:
        """At most `k` passages of what `only` allows, best first."""
        ...


def search_within(source: Source, query: str, k: int, only: Scope | None) -> list[Passage]:
    """What a source finds of what `only` allows; one that can't tell is not asked."""
    if only is None or only == Scope():
        return source.search(query, k)
    if getattr(source, "scoped", False) is True:
        return cast("Scoped", source).search(query, k, only=only)
    return source.search(query, k) if may_be_asked(source, only) else []


def keeps_to(source: object, only: Scope | None) -> bool:
    """Whether a source gives nothing but what `only` allows: by itself, or as it may be asked."""
    return getattr(source, "scoped", False) is True or may_be_asked(source, only)


def may_be_asked(source: object, only: Scope | None) -> bool:
    """Whether a source that is not `Scoped` may be asked for what `only` allows.

    Where that restricts who may read, only if the source says that everyone may, by an attribute `public` that is True.
    Its passages have no facts, so it isn't asked for those that are chosen by facts or by their document's id.
    """
    if only is None or only == Scope():
        return True
    return not (only.facts or only.documents) and getattr(source, "public", False) is True


@dataclass(frozen=True, slots=True)
class Removed:
    """A document that a connector once gave and that is gone."""

    id: str


@runtime_checkable
class Connector(Protocol):
    """Gives documents to be indexed."""

    @property
    def name(self) -> str:
        """The same on every run: an index remembers by it which documents came from here."""
        ...

    @property
    def complete(self) -> bool:
        """Whether `documents` lists everything there is, so that what it leaves out is gone.

        A connector that tells only what changed says False, and names what is gone by `Removed`.
        """
        ...

    def documents(self) -> Iterator[Document | Removed | Unreadable]:
        """The documents, each id at most once. What cannot be read is said, never left out."""
        ...


@runtime_checkable
class Versioned(Connector, Protocol):
    """A connector that can tell what is as it was, without reading it into a document."""

    @property
    def reading(self) -> str:
        """Equal where equal versions make equal documents: changes as soon as they would be read otherwise."""
        ...

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Removed | Unreadable | Unchanged]:
        """As `documents`, but `Unchanged` stands for a document whose version is the known one, by its id."""
        ...
