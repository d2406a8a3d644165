"""`tailor knowledge`: what models may answer from: added, kept up to date, searched."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.durations import clock_time, parse_duration
from tailorbird.cli.options import AsJson, KeyEnv, Sources, read_setting
from tailorbird.cli.output import is_terminal, kept_for_json, print_json, print_table, remark, say
from tailorbird.cli.project import project_of
from tailorbird.cli.scoping import (
    Access,
    AskedDocuments,
    AskedFacts,
    AskedGroups,
    AskedTenant,
    Facts,
    Tenant,
    read_access,
    read_facts,
    read_scope,
)
from tailorbird.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tailorbird.records import Passage
    from tailorbird.workbench import KnowledgeInfo, OriginReport, Workbench

knowledge = typer.Typer(help="Add documents to answer from, sync and search them.", no_args_is_help=True)

QUIET_S = 10.0
"""No longer than this passes between two lines of progress where nobody looks at a terminal."""
DRAWN_S = 0.2
SHOWN_UNREADABLE = 10
EXAMPLE = "max_pages=100."

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `tailor knowledge list` gives it.")]


@knowledge.command()
def add(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the knowledge base; made if there is none.")
    ],
    place: Annotated[str, typer.Argument(metavar="PLACE", help="A folder, or what else a connector reads.")],
    *,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="The connector; told from the place if it can be.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the connector; may be given several times."
        ),
    ] = None,
    max_chars: Annotated[
        int | None, typer.Option(metavar="N", help="Length of a passage in characters.", show_default="600")
    ] = None,
    tenant: Tenant = None,
    access: Access = None,
    facts: Facts = None,
    sync: Annotated[bool, typer.Option("--sync/--no-sync", help="Sync it at once.")] = True,
    as_json: AsJson = False,
) -> None:
    """Add documents to a knowledge base, and sync it."""
    workbench = project_of(context).workbench()
    workbench.knowledge.add(
        name,
        place,
        kind=kind,
        settings=dict(read_setting(text, EXAMPLE) for text in settings) if settings else None,
        max_chars=max_chars,
        tenant=tenant,
        access=read_access(access),
        facts=read_facts(facts) if facts else None,
    )
    if sync:
        _sync(workbench, [name], dry_run=False, as_json=as_json)
    elif as_json:
        print_json({"knowledge": name, "added": place})
    else:
        say(f"{name}: {place} is added. `tailor knowledge sync {name}` reads it.")


@knowledge.command()
def sync(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All of them without it.")] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on syncing until Ctrl-C.")] = False,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="With --watch: look again after so long.")
    ] = "30s",
    as_json: AsJson = False,
) -> None:
    """Bring knowledge up to date: only what changed is read into it and embedded, what is gone goes."""
    workbench = project_of(context).workbench()
    wait_s = parse_duration(every, "--every")
    if watch and (dry_run or as_json):
        raise InputError("--watch tells what changes as it goes. Leave out --dry-run and --json.")
    names = [name] if name else [info.base.name for info in workbench.knowledge.list()]
    if not names:
        raise InputError("There is nothing to sync. Add documents: tailor knowledge add NAME FOLDER.")
    _sync(workbench, names, dry_run=dry_run, as_json=as_json)
    while watch:
        time.sleep(wait_s)
        _sync(workbench, names, dry_run=False, as_json=False, only_changes=True)


@knowledge.command()
def search(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of a knowledge base; with --source it may be left out.")
    ],
    question: Annotated[str | None, typer.Argument(metavar="TEXT", help="A question, or words.")] = None,
    *,
    source: Sources = None,
    count: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many passages.")] = 5,
    tenant: AskedTenant = None,
    groups: AskedGroups = None,
    facts: AskedFacts = None,
    documents: AskedDocuments = "",
    as_json: AsJson = False,
) -> None:
    """Find the passages that a model would be given."""
    known = project_of(context).workbench().knowledge
    only = read_scope(tenant, groups, facts, documents)
    if question is None and not source:
        raise InputError(
            "Give a name and a question: tailor knowledge search NAME TEXT. `list` tells the names."
        )
    if source:
        base, text = (None, name) if question is None else (name, question)
        answer = known.search_live(text, source, base, count, only=only)
        found: Sequence[Passage] = answer.passages
        for lacking in answer.lacking:
            remark(f"Left out: {lacking}")
    else:
        found = known.search(name, question or "", count, only=only)
    if as_json:
        print_json([_passage_json(passage) for passage in found])
        return
    if not found:
        say("Nothing is found.")
    for number, passage in enumerate(found, 1):
        say(f"[{number}] {_where(passage)}  ({passage.score:.2f})", bold=True)
        say(passage.text)
        say()


@knowledge.command()
def store(
    context: typer.Context,
    name: Name,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[STORE]", help="auto, numpy, faiss, lancedb, qdrant, pgvector, or a plug-in's."
        ),
    ] = None,
    *,
    place: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the store's server, or object storage.")
    ] = None,
    key_env: KeyEnv = None,
    words: Annotated[
        str | None, typer.Option(metavar="KIND", help="The keyword index: auto, fts5 or tantivy.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what vectors and words of a knowledge base are kept in, and fill it; auto goes by its size."""
    given = {"store": kind, "place": place, "key_env": key_env, "words": words}
    changed = {key: value for key, value in given.items() if value is not None}
    workbench = project_of(context).workbench()
    done = workbench.knowledge.set_search(name, **changed)
    now = workbench.knowledge.read(name).search
    if as_json:
        print_json({"knowledge": name, "store": now.store, "words": now.words, "done": done})
        return
    for line in done:
        say(f"{name}: {line}")
    say(f"{name}: vectors {now.store}, words {now.words}.")


@knowledge.command("list")
def list_knowledge(context: typer.Context, as_json: AsJson = False) -> None:
    """List what was added."""
    found = project_of(context).workbench().knowledge.list()
    if as_json:
        print_json([_info_json(info) for info in found])
        return
    if not found:
        say("There is no knowledge here. Add documents: tailor knowledge add NAME FOLDER.")
        return
    columns = ["knowledge", "from", "documents", "passages", "without vector", "synced"]
    print_table(columns, [row for info in found for row in _rows(info)])


@knowledge.command()
def remove(
    context: typer.Context,
    name: Name,
    place: Annotated[
        str | None, typer.Argument(metavar="[PLACE]", help="One of its places; without it the whole.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove a knowledge base, or one of the places it is filled from."""
    workbench = project_of(context).workbench()
    left = workbench.knowledge.remove(name, place)
    if left is not None:
        _sync(workbench, [name], dry_run=False, as_json=as_json)
    elif as_json:
        print_json({"removed": name})
    else:
        say(f"{name}: removed.")


@dataclass
class _Counter:
    """Says how far a sync is: drawn over itself on a terminal, now and then a line elsewhere."""

    clock: Callable[[], float] = time.monotonic
    _stage: str = ""
    _began: float = 0.0
    _told: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._told = self.clock()

    def __call__(self, origin: str, progress: Any) -> None:
        now = self.clock()
        if progress.stage != self._stage:
            self._stage, self._began = progress.stage, now
        drawn = is_terminal(sys.stderr)
        if now - self._told < (DRAWN_S if drawn else QUIET_S):
            return
        self._told = now
        line = f"{origin}: {progress_text(progress, now - self._began)}"
        if drawn:
            sys.stderr.write(f"\r\x1b[K{line[:100]}")
            sys.stderr.flush()
        else:
            remark(line)

    def close(self) -> None:
        """Clears the line."""
        if is_terminal(sys.stderr):
            sys.stderr.write("\r\x1b[K")


def progress_text(progress: Any, elapsed_s: float) -> str:
    """Such as `64 of 912 texts embedded, 58 a second, 15 s left`."""
    if progress.stage == "wait":
        return "waiting for another sync of it"
    if progress.stage == "read" or not progress.total:
        return f"{progress.done:,} documents read"
    rate = progress.done / elapsed_s if elapsed_s > 0 else 0.0
    told = f"{progress.done:,} of {progress.total:,} texts embedded"
    if rate <= 0:
        return told
    left = clock_time((progress.total - progress.done) / rate)
    return f"{told}, {rate:,.0f} a second, {left} left"


def _sync(
    workbench: Workbench, names: Sequence[str], *, dry_run: bool, as_json: bool, only_changes: bool = False
) -> None:
    results: list[dict[str, Any]] = []
    for name in names:
        counter = _Counter()
        with kept_for_json(as_json):
            try:
                reports = workbench.knowledge.sync(name, dry_run=dry_run, on_progress=counter)
            finally:
                counter.close()
        results += [_report_json(name, report) for report in reports]
        if as_json or (only_changes and not any(map(_changed, reports))):
            continue
        for report in reports:
            for line in _report_lines(name, report):
                say(line)
    if as_json:
        print_json(results)
    failed = [result for result in results if "failed" in result]
    if failed and only_changes:
        for result in failed:
            remark(f"{result['knowledge']}: {result['failed']}")
    elif failed:
        raise InputError("\n".join(f"{result['knowledge']}: {result['failed']}" for result in failed))


def _changed(found: OriginReport) -> bool:
    report = found.report
    if report is None:
        return not found.failed
    return bool(report.added or report.changed or report.removed or report.embedded or report.ruled)


def _report_lines(name: str, found: OriginReport) -> list[str]:
    report = found.report
    if found.failed:
        return []  # said at the end, as an error
    if report is None:
        return [
            f"{name}: {found.origin} is no longer one of its places: {found.forgotten} documents forgotten."
        ]
    would = "would be " if report.dry_run else ""
    counts = f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.unchanged} unchanged"
    lines = [f"{name}: {found.origin}", f"  documents  {would}{counts}"]
    if report.ruled:
        lines.append(f"  access     {report.ruled:,} documents {would}given other rules")
    embedded = f"{report.embedded:,} {would}embedded"
    lines.append(f"  index      {report.documents:,} documents, {report.passages:,} passages; {embedded}")
    lines += [f"  store      {done}" for done in report.stores]
    if not report.dry_run:
        lines.append(f"  check      {_balance(report)}")
        lines.append(
            f"  time       searchable after {report.searchable_s:.1f} s, all done after {report.seconds:.1f} s"
        )
    for unreadable, reason in report.unreadable[:SHOWN_UNREADABLE]:
        lines.append(f"  unreadable {unreadable}: {reason}")
    if len(report.unreadable) > SHOWN_UNREADABLE:
        lines.append(f"  unreadable {len(report.unreadable) - SHOWN_UNREADABLE} more; --json names all")
    return lines


def _balance(report: Any) -> str:
    """The count that must come out even, such as `12 documents listed = 11 indexed + 1 unreadable`."""
    kept = f" ({report.kept} of them indexed as read before)" if report.kept else ""
    indexed = report.listed - len(report.unreadable)
    documents = (
        f"{report.listed:,} documents listed = {indexed:,} indexed + {len(report.unreadable):,} unreadable"
    )
    passages = f"{report.passages:,} passages = {report.with_words:,} with words = {report.with_vectors:,} with vectors"
    if report.with_vectors != report.passages:
        passages = passages.replace(f"= {report.with_vectors:,} with", f"≠ {report.with_vectors:,} with")
        passages += ", as another sync goes on"
    return f"{documents}{kept}; {passages}"


def _report_json(name: str, found: OriginReport) -> dict[str, Any]:
    if found.failed:
        return {"knowledge": name, "origin": found.origin, "failed": found.failed}
    if found.report is None:
        return {"knowledge": name, "origin": found.origin, "forgotten": found.forgotten}
    facts = asdict(found.report)
    unreadable = [{"document": d, "reason": r} for d, r in found.report.unreadable]
    return {"knowledge": name, "origin": found.origin, **facts, "unreadable": unreadable}


def _where(passage: Passage) -> str:
    page = f", page {passage.page}" if passage.page else ""
    headings = " › ".join(passage.headings)
    source = f"{passage.source}: " if passage.source else ""
    return f"{source}{passage.document}{page}" + (f" › {headings}" if headings else "")


def _passage_json(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document,
        "title": passage.title,
        "headings": list(passage.headings),
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "version": passage.version,
        "score": passage.score,
        "source": passage.source,
        "text": passage.text,
    }


def _rows(info: KnowledgeInfo) -> list[list[str]]:
    when = datetime.fromtimestamp(info.base.synced).astimezone()
    synced = f"{when:%Y-%m-%d %H:%M}" if info.base.synced else "never"
    rows: list[list[str]] = []
    for number, origin in enumerate(info.base.origins):
        first = number == 0
        totals = [f"{info.passages:,}", f"{info.without_vector:,}", synced] if first else ["", "", ""]
        count = f"{info.documents.get(origin.name, 0):,}"
        rows.append([info.base.name if first else "", origin.place, count, *totals])
    return rows or [[info.base.name, "", "0", f"{info.passages:,}", f"{info.without_vector:,}", synced]]


def _info_json(info: KnowledgeInfo) -> dict[str, Any]:
    return {
        "knowledge": info.base.name,
        "origins": [
            {
                "kind": o.kind,
                "place": o.place,
                "settings": o.settings,
                "tenant": o.rules.tenant,
                "access": o.rules.access,
                "facts": [list(fact) for fact in o.rules.facts],
                "documents": info.documents.get(o.name, 0),
            }
            for o in info.base.origins
        ],
        "passages": info.passages,
        "without_vector": info.without_vector,
        "max_chars": info.base.max_chars,
        "synced": info.base.synced,
    }
