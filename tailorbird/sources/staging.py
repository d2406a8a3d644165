"""What a connector gives, compared with what an index holds of it: the index is only read.

New and changed documents wait in an unnamed file beside the index, which ends with the process: however many
there are, memory holds their ids only.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Literal

from tailorbird.data.documents import Unchanged, Unreadable
from tailorbird.data.passages import split_document
from tailorbird.errors import DocumentError, InputError
from tailorbird.records import Document, Passage, content_hash
from tailorbird.sources.database import Database
from tailorbird.sources.notes import Noting, read_notes
from tailorbird.sources.passage_rows import document_hashes
from tailorbird.sources.scopes import NO_RULES, Rules
from tailorbird.sources.source import Connector, Removed, Versioned


@dataclass(frozen=True)
class SyncProgress:
    """How far a sync is: it waits for another one, or documents read, or texts embedded, `total` where it is known."""

    stage: Literal["wait", "read", "embed"]
    done: int
    total: int | None = None


Tell = Callable[[SyncProgress], None]

Fresh = tuple[Document, str, list[Passage]]
"""A document that the index lacks or holds otherwise, the hash of its content, and its passages."""


@dataclass
class Staged:
    """What a connector gave, compared with what the index holds of it."""

    connector: str
    known: set[str]
    """Ids of the connector's documents that the index holds."""
    _file: IO[bytes]
    fresh: set[str] = field(default_factory=set[str])
    """Ids of new and changed documents; `documents` gives them."""
    num_passages: int = 0
    """Of the new and changed documents."""
    gone: set[str] = field(default_factory=set[str])
    seen: set[str] = field(default_factory=set[str])
    num_removed: int = 0
    """How many of those seen were told to be gone."""
    unreadable: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    unchanged: int = 0

    @property
    def changed(self) -> set[str]:
        """Documents that the index holds otherwise."""
        return self.fresh & self.known

    @property
    def kept(self) -> set[str]:
        """Documents that could not be read now and that the index holds as they were read before."""
        return self.known.intersection(name for name, _ in self.unreadable)

    @property
    def listed(self) -> int:
        """How many documents the connector named."""
        return len(self.seen) - self.num_removed

    def keep(self, fresh: Fresh) -> None:
        """Puts a new or changed document aside.

        Raises:
            InputError: There is no room for it.
        """
        try:
            pickle.dump(fresh, self._file, pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise InputError(
                f"The document {fresh[0].id!r} of {self.connector!r} cannot be put aside on disk ({error.strerror}); "
                "nothing was changed. Free as much room beside the index as the new documents take, and sync again."
            ) from error
        self.fresh.add(fresh[0].id)
        self.num_passages += len(fresh[2])

    def documents(self) -> Iterator[Fresh]:
        """The documents that were put aside, in their order, one in memory at a time."""
        self._file.seek(0)
        for _ in range(len(self.fresh)):
            yield pickle.load(self._file)  # noqa: S301  -- written by `keep`, in a file that nobody else can open


@contextlib.contextmanager
def stage(
    database: Database, connector: Connector, max_chars: int, tell: Tell | None = None
) -> Generator[Staged]:
    """Reads the connector and compares it with the index; what is put aside is gone when the block ends.

    Raises:
        DocumentError: An id is given twice, or belongs to another connector.
        InputError: There is no room for the documents on the disk.
    """
    with database.reading() as connection:
        known = document_hashes(connection, connector.name)
        owners = dict(connection.execute("SELECT id, connector FROM documents").fetchall())
    with tempfile.TemporaryFile(dir=None if database.read_only else database.path.parent) as file:
        staged = Staged(connector.name, set(known), file)
        for item in _items(database, connector, max_chars):
            if item.id in staged.seen:
                raise DocumentError(
                    f"The connector {connector.name!r} gave {item.id!r} twice. Ids must differ."
                )
            staged.seen.add(item.id)
            if isinstance(item, Removed):
                staged.num_removed += 1
                staged.gone.update({item.id} & known.keys())
            elif isinstance(item, Unreadable):
                staged.unreadable.append((item.id, item.reason))
            elif isinstance(item, Unchanged):
                staged.unchanged += 1
            else:
                refuse_foreign(item.id, connector.name, owners.get(item.id))
                _stage_document(staged, item, known.get(item.id), max_chars)
            if tell:
                tell(SyncProgress("read", len(staged.seen)))
        if connector.complete:
            staged.gone.update(known.keys() - staged.seen)
        yield staged


def _items(
    database: Database, connector: Connector, max_chars: int
) -> Iterator[Document | Removed | Unreadable | Unchanged]:
    """What the connector gives; of one that knows versions, what changed since it was last read in the same way."""
    if not isinstance(connector, Versioned):
        return connector.documents()
    with database.reading() as connection:
        known: dict[str, str] = {}
        query = "SELECT value FROM counters WHERE name = ?"
        row = connection.execute(query, (way_name(connector),)).fetchone()
        if row is not None and row[0] == way(connector, max_chars):
            query = (
                "SELECT DISTINCT p.document, p.version FROM passages p JOIN documents d ON d.id = p.document "
                "WHERE d.connector = ?"
            )
            known = dict(connection.execute(query, (connector.name,)).fetchall())
        if isinstance(connector, Noting):
            connector.notes.clear()
            connector.notes.update(read_notes(connection, connector.name))
    return connector.changes(known)


def way_name(connector: Connector) -> str:
    """The counter that says how a connector's documents were read last."""
    return f"read as:{connector.name}"


def way(connector: Versioned, max_chars: int) -> int:
    """How documents are read and cut, as a number that SQLite holds."""
    return int(content_hash([connector.reading, max_chars], 15), 16)


def refuse_foreign(document: str, connector: str, owner: str | None) -> None:
    """Refuses a document that came from another connector, its `owner`.

    Raises:
        DocumentError: It did.
    """
    if owner is not None and owner != connector:
        raise DocumentError(
            f"{document!r} of {connector!r} is already in the index, from {owner!r}. "
            "Index a folder above both, or forget the other one first."
        )


def _stage_document(staged: Staged, document: Document, known_hash: str | None, max_chars: int) -> None:
    if not _is_utf8(document.id):
        shown = document.id.encode("utf-8", "backslashreplace").decode()
        staged.unreadable.append((shown, "its name is not valid UTF-8"))
        return
    document = replace(document, text=_as_utf8(document.text), title=_as_utf8(document.title))
    parts = [document.title, document.text, document.version, list(document.page_starts), max_chars]
    if (rules := Rules.of(document)) != NO_RULES:
        parts.append(rules.to_json())
    digest = content_hash(parts, 32)
    if digest == known_hash:
        staged.unchanged += 1
    else:
        staged.keep((document, digest, split_document(document, max_chars=max_chars)))


def _is_utf8(text: str) -> bool:
    return text == _as_utf8(text)


def _as_utf8(text: str) -> str:
    """The text with lone surrogates, which cannot be stored, as question marks: offsets stay."""
    return text.encode("utf-8", "replace").decode("utf-8")
