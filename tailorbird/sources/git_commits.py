"""The files of one commit of a repository on disk, as documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tailorbird.data.documents import Limits, Unchanged, Unreadable, read_entry
from tailorbird.data.entry_process import EntryReader
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document

MOST_ENTRIES = 1_000_000
"""Files and folders of a commit; the largest repositories have a few hundred thousand."""
INDEXING_S = 600.0
"""Seconds of computing that a pack without an index may take, once."""


def commit_documents(  # noqa: PLR0917 - where, of what, and what is known
    root: Path,
    ref: str,
    is_meant: Callable[[str], bool],
    id_prefix: str,
    known: Mapping[str, str],
    shown: str = "",
) -> Iterator[Document | Unreadable | Unchanged]:
    """The files that are meant, read in a process with limits.

    Args:
        root: the repository's folder.
        ref: a branch, tag or commit.
        is_meant: whether a path is read.
        id_prefix: put before every id.
        known: versions that are known, by id: such files are neither unpacked nor parsed.
        shown: what errors call the repository, where it is not its folder.

    Raises:
        NotFound: there is no such repository, branch, tag or commit.
        DocumentError: the repository is damaged.
    """
    settings = {"ref": ref, "most_entries": MOST_ENTRIES, "is_fetched": bool(shown)}
    limits = Limits()
    if shown:
        limits = replace(limits, cpu_s=INDEXING_S, wall_s=2 * INDEXING_S)
    reader = EntryReader("git", str(root), settings, limits)
    try:
        with ParserProcess() as parser:
            for entry in reader.entries():
                if is_meant(entry.name):
                    yield read_entry(id_prefix + entry.name, entry, known, parser)
    except (NotFound, DocumentError) as error:
        if not shown:
            raise
        raise type(error)(str(error).replace(str(root), f"git: {shown}")) from None
