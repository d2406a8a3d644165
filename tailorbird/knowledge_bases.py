"""A project's knowledge bases: filled from connectors by name, kept up to date, searched."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird import plugins
from tailorbird.errors import InputError, NotFound, RecipeError, TailorbirdError
from tailorbird.planning import NAME, valid_name
from tailorbird.recipe_file import RecipeFile, read_recipe_file
from tailorbird.sources.knowledge_base import (
    INDEX,
    KnowledgeBase,
    Origin,
    is_knowledge_base,
    read_knowledge_base,
)
from tailorbird.sources.scopes import NO_RULES, Rules
from tailorbird.sources.turns import turn

if TYPE_CHECKING:
    from tailorbird.evaluation.retrieval import RetrievalReport
    from tailorbird.records import Passage, Scope
    from tailorbird.sources.index import KnowledgeIndex
    from tailorbird.sources.merged import Found
    from tailorbird.sources.source import Connector
    from tailorbird.sources.sync import SyncProgress, SyncReport, Tell

GROUP = "tailorbird.connectors"
RECORD_WAIT_S = 30.0
"""How long a change of a knowledge base's record waits for another one, which takes milliseconds."""
ON_DISK = frozenset({"folder", "git", "sql", "wikipedia_dump", "zim"})
"""Connectors whose place is a path where it is no address: it is kept whole, for a sync from another folder."""
_DUMP = re.compile(r"-pages-(?:articles|meta)[^/]*\.xml", re.IGNORECASE)
_KINDS_BY_END = {
    ".zim": "zim",
    **dict.fromkeys((".sqlite", ".sqlite3", ".db"), "sql"),
    ".git": "git",
}
_KINDS_BY_SCHEME = {
    **dict.fromkeys(("s3", "gs", "az", "file"), "object_storage"),
    **dict.fromkeys(("git", "ssh"), "git"),
    **dict.fromkeys(("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql"), "sql"),
}


@dataclass(frozen=True)
class KnowledgeInfo:
    """A knowledge base and what its index holds. `documents` counts them by origin's name."""

    base: KnowledgeBase
    documents: Mapping[str, int]
    passages: int
    without_vector: int


@dataclass(frozen=True)
class OriginReport:
    """What a sync did with one origin: a report, or how many documents of one that is left were forgotten.

    `failed` says why it could not be synced; what was known of it is kept.
    """

    origin: str
    report: SyncReport | None = None
    forgotten: int = 0
    failed: str = ""


@dataclass(frozen=True)
class KnowledgeBases:
    """The knowledge bases of a project.

    Args:
        state: the project's state folder.
        config: the project's tailor.toml, which may not be there: its tables of live sources are known here too.
    """

    state: Path
    config: Path = Path("tailor.toml")

    def read(self, name: str) -> KnowledgeBase:
        """What is recorded of a knowledge base.

        Raises:
            NotFound: there is none of that name.
        """
        folder = self.state / "knowledge" / name
        if not NAME.fullmatch(name) or not is_knowledge_base(folder):
            known = ", ".join(base.name for base in self._all()) or "none"
            raise NotFound(
                f"knowledge {name!r}: nothing of that name was added here. Known: {known}. "
                "`tailor knowledge add NAME PLACE` makes one."
            )
        return read_knowledge_base(folder)

    def add(
        self,
        name: str,
        place: str,
        *,
        kind: str | None = None,
        settings: Mapping[str, Any] | None = None,
        max_chars: int | None = None,
        tenant: str | None = None,
        access: Sequence[str] | None = None,
        facts: Sequence[tuple[str, str]] | None = None,
    ) -> KnowledgeBase:
        """A knowledge base with one more origin, or an origin with other rules; nothing is read before it is synced.

        Args:
            name: of the knowledge base, which is made if there is none.
            place: a folder, a URL, or what else the connector reads.
            kind: of the connector; None tells it by the place.
            settings: of the connector; None leaves what an origin of this kind and place has.
            max_chars: length of a passage in characters, of a new knowledge base; None takes 600.
            tenant: whose its documents are. Of this and the next two, None leaves what an origin that is there has.
            access: the groups that may read them; empty is everyone of the tenant.
            facts: names and values to choose them by.

        Raises:
            InputError: the name can't be used, or the passages already have another length.
            NotFound: no connector is of this kind, or there is no such place.
            RecipeError: the connector doesn't take the settings.
        """
        folder = self.state / "knowledge" / valid_name(name)
        found = kind or _kind_of(place)
        where = _where(place) if found in ON_DISK else place
        with _recording(folder):
            base = read_knowledge_base(folder) if is_knowledge_base(folder) else KnowledgeBase(folder)
            if settings is None:
                there = (o.settings for o in base.origins if (o.kind, o.place) == (found, where))
                settings = next(there, {})
            connector = connector_of(found, where, settings)
            base = _with_length(base, max_chars)
            rules = next((o.rules for o in base.origins if o.name == connector.name), NO_RULES)
            rules = Rules(
                rules.tenant if tenant is None else tenant,
                rules.access if access is None else tuple(access),
                rules.facts if facts is None else tuple(facts),
            )
            base = base.with_origin(Origin(found, where, connector.name, dict(settings), rules))
            base.save()
        return base

    def sync(
        self,
        name: str,
        *,
        dry_run: bool = False,
        on_progress: Callable[[str, SyncProgress], None] | None = None,
    ) -> list[OriginReport]:
        """Brings a knowledge base up to date with its origins, one after another; one that fails stops no other.

        Args:
            name: of the knowledge base.
            dry_run: changes nothing, and reports what would be done.
            on_progress: told how far it is, with the origin's name.

        Raises:
            NotFound: there is none of that name.
        """
        base = self.read(name)
        reports: list[OriginReport] = []
        with base.index() as index:
            for gone, count in index.connectors().items():
                # Read anew: another process may have added the origin, and then filled it, a moment ago.
                if self._origin(name, gone) is None:
                    try:
                        forgotten = count if dry_run else index.forget(gone)
                        reports.append(OriginReport(gone, forgotten=forgotten))
                    except TailorbirdError as error:
                        reports.append(OriginReport(gone, failed=str(error)))
            for origin in base.origins:
                tell = None if on_progress is None else _about(on_progress, origin.name)
                if self._origin(name, origin.name) is not None:
                    reports.append(self._synced(name, index, origin.name, dry_run=dry_run, tell=tell))
        if not dry_run and not all(found.failed for found in reports):
            self.change(name, synced=int(time.time()))
        return reports

    def change(self, name: str, **fields: Any) -> KnowledgeBase:
        """Records other fields of a `KnowledgeBase`; what other processes recorded meanwhile stays.

        Raises:
            NotFound: there is none of that name.
        """
        with _recording(self.read(name).folder):
            changed = replace(self.read(name), **fields)
            changed.save()
        return changed

    def _origin(self, name: str, origin: str) -> Origin | None:
        """An origin as it is recorded now: another process may change it while this one syncs."""
        return next((o for o in self.read(name).origins if o.name == origin), None)

    def _rules(self, name: str, origin: str) -> Rules:
        """The rules of an origin as they are now; of one that was taken out: nobody may read what it left."""
        found = self._origin(name, origin)
        return found.rules if found is not None else Rules(access=None)

    def _synced(
        self, name: str, index: KnowledgeIndex, named: str, *, dry_run: bool, tell: Tell | None
    ) -> OriginReport:
        """What syncing one origin came to. Where it can't be read its rules are put in force all the same."""
        rules = partial(self._rules, name, named)
        try:
            origin = self._origin(name, named)
            if origin is None:
                return OriginReport(named)
            connector = connector_of(origin.kind, origin.place, origin.settings)
            return OriginReport(named, index.sync(connector, rules=rules, dry_run=dry_run, on_progress=tell))
        except TailorbirdError as error:
            if not dry_run:
                with suppress(TailorbirdError):  # the report says why the index can't be written
                    index.govern(named, rules())
            return OriginReport(named, failed=str(error))

    def search(self, name: str, question: str, k: int = 5, *, only: Scope | None = None) -> list[Passage]:
        """The passages that a model would be given, best first.

        Args:
            name: of the knowledge base.
            question: a question, or words.
            k: how many, at most.
            only: who asks, and of what; None is the owner, who may read everything.

        Raises:
            NotFound: there is none of that name.
        """
        with self.read(name).index() as index:
            return index.search(question, k, only=only)

    def set_search(self, name: str, **settings: Any) -> list[str]:
        """Has a knowledge base searched otherwise from now on; says what was done to what stands beside its index.

        Args:
            name: of the knowledge base.
            settings: those of `SearchSettings` that change; another store has no place or key but those given.

        Raises:
            NotFound: there is none of that name.
            Unsupported: what was chosen isn't installed.
            InputError: a setting can't be used.
            EndpointError: the vector store's server can't be reached; it is searched as before.
        """
        base = self.read(name)
        elsewhere = {"place": "", "key_env": ""} if "store" in settings else {}
        search = replace(base.search, **{**elsewhere, **settings})
        search.check()
        with replace(base, search=search).index() as index:
            done = index.catch_up()
        self.change(name, search=search)
        return done

    def search_live(
        self,
        question: str,
        sources: Sequence[str],
        name: str | None = None,
        k: int = 5,
        *,
        only: Scope | None = None,
    ) -> Found:
        """The passages that live sources give, fused with those of a knowledge base where one is named.

        Args:
            question: what is asked.
            sources: their names: tables of tailor.toml, or kinds that need no settings.
            name: of a knowledge base.
            k: passages, at most.
            only: who asks and of what; None sees everything.

        Raises:
            RecipeError: a source is unknown, or its settings can't be taken.
            EndpointError: none of them could be asked.
        """
        from tailorbird.sources.merged import Merged

        tables = self.with_tables(RecipeFile(), sources)
        live = tuple(tables.live_source(word) for word in dict.fromkeys(sources))
        if name is None:
            return Merged(live).ask(question, k, only=only)
        with self.read(name).index() as index:
            return Merged(live, index).ask(question, k, only=only)

    def with_tables(self, file: RecipeFile, sources: Sequence[str] | None) -> RecipeFile:
        """A recipe that knows the project's live sources too, where one is named that it doesn't know itself."""
        if set(sources or ()) <= set(file.sources) or not self.config.is_file():
            return file
        return replace(file, sources={**read_recipe_file(self.config).sources, **file.sources})

    def evaluate(self, name: str, examples: Path, k: int = 3) -> RetrievalReport:
        """How well a knowledge base finds the documents that hold the answers: see `evaluation.retrieval`.

        Args:
            name: of the knowledge base.
            examples: a file of questions, whose `document` names what holds the answer.
            k: passages that a model would be given.

        Raises:
            NotFound: there is none of that name, or no such file.
            DataError: the examples can't be used, or none names its document.
        """
        from tailorbird.data.formats import read_examples
        from tailorbird.evaluation.retrieval import evaluate_retrieval

        with self.read(name).index() as index:
            return evaluate_retrieval(index, read_examples(examples), k)

    def list(self) -> Sequence[KnowledgeInfo]:
        """All knowledge bases, by name."""
        return [_info(base) for base in self._all()]

    def remove(self, name: str, place: str | None = None) -> KnowledgeBase | None:
        """Removes one origin, whose documents go with the next sync, or with `place` None the whole.

        Returns what is left, None if nothing is.

        Raises:
            NotFound: there is none of that name, or it has no such origin.
        """
        if place is None:
            base = self.read(name)
            if base.search.place:
                self.set_search(name, store="numpy", place="", words="fts5")
            shutil.rmtree(base.folder)
            return None
        wanted = {place, str(Path(place).resolve())}
        with _recording(self.read(name).folder):
            base = self.read(name)
            left = tuple(o for o in base.origins if not wanted & {o.place, o.name})
            if len(left) == len(base.origins):
                known = ", ".join(o.place for o in base.origins) or "none"
                raise NotFound(f"knowledge {name!r}: it has no origin {place!r}. It has: {known}.")
            base = replace(base, origins=left)
            base.save()
        return base

    def folder(self, documents: Path | None, project: Path) -> Path | None:
        """The folder of documents that was named: where it is no folder but a knowledge base's name, its folder.

        A name stands alone or, as tailor.toml's paths do, in the project's folder; a path that leads elsewhere is none.
        """
        if documents is None or documents.is_dir() or not NAME.fullmatch(documents.name):
            return documents
        if len(documents.parts) > 1 and documents.parent.resolve() != project.resolve():
            return documents
        found = self.state / "knowledge" / documents.name
        return found if is_knowledge_base(found) else documents

    def _all(self) -> Sequence[KnowledgeBase]:
        found = sorted((self.state / "knowledge").glob("*"))
        return [read_knowledge_base(folder) for folder in found if is_knowledge_base(folder)]


def connector_of(kind: str, place: str, settings: Mapping[str, Any]) -> Connector:
    """The connector of a kind that reads a place.

    Raises:
        NotFound: no connector is of this kind, or there is no such place.
        RecipeError: it doesn't take the settings.
    """
    make = plugins.part(GROUP, kind)
    if kind == "folder" and not Path(place).is_dir():
        raise NotFound(f"{place}: there is no such folder. Name the folder that holds the documents.")
    try:
        return make(place, **settings)
    except TailorbirdError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"connector {kind!r}: {error}. Check the settings' names and values.") from None


def _kind_of(place: str) -> str:
    """The connector that reads a place, where that is beyond doubt.

    Raises:
        InputError: It has to be said.
    """
    scheme, separator, _ = place.partition("://")
    if not separator:
        name = Path(place).name
        if Path(place).is_dir() and not name.endswith(".git"):
            return "folder"
        return (
            "wikipedia_dump"
            if _DUMP.search(name)
            else _KINDS_BY_END.get(Path(place).suffix.lower(), "folder")
        )
    if kind := _KINDS_BY_SCHEME.get(scheme.lower().partition("+")[0]):
        return kind
    if scheme.lower() in {"http", "https"} and place.endswith(".git"):
        return "git"
    kinds = ", ".join(plugins.names(GROUP))
    raise InputError(f"{place}: say with --kind which connector reads it. Known: {kinds}.")


def _where(place: str) -> str:
    """A path as a whole one; an address as it is, but for that of an SQLite file, which is a path."""
    path = place.removeprefix("sqlite:///")
    return place if "://" in path else str(Path(path).resolve())


def _with_length(base: KnowledgeBase, max_chars: int | None) -> KnowledgeBase:
    """The base with passages of another length, which only one without origins can be given."""
    if max_chars is None or max_chars == base.max_chars:
        return base
    if base.origins:
        raise InputError(
            f"knowledge {base.name!r}: its passages have up to {base.max_chars} characters, not {max_chars}. Leave "
            "--max-chars out, or add the documents under another name."
        )
    if max_chars < 50:
        raise InputError(f"knowledge {base.name!r}: max_chars is {max_chars}; expected 50 or more.")
    return replace(base, max_chars=max_chars)


def _recording(folder: Path) -> AbstractContextManager[None]:
    """While the block runs, no other process changes what is recorded of the knowledge base."""
    return turn(folder / INDEX, "its record", RECORD_WAIT_S)


def _about(tell: Callable[[str, SyncProgress], None], origin: str) -> Callable[[SyncProgress], None]:
    return lambda progress: tell(origin, progress)


def _info(base: KnowledgeBase) -> KnowledgeInfo:
    with base.index() as index:
        return KnowledgeInfo(base, index.connectors(), len(index), index.num_without_vector())
