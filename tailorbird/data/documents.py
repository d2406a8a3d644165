"""Reading documents: a folder's files become text that keeps its structure.

A file that cannot be read is refused with the reason; nothing is skipped in silence, nothing is
parsed before its kind and declared size have been looked at, and what a parser could do to its
process it does to a child.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import Content, Limits, check_size, clean_text, first_heading, too_long
from tailorbird.data.readers.entries import Entry
from tailorbird.data.readers.kinds import KINDS, KNOWN_KINDS, magic_of
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document, content_hash

__all__ = [
    "KNOWN_KINDS",
    "Limits",
    "Unchanged",
    "Unreadable",
    "clean_text",
    "first_heading",
    "read_changes",
    "read_document",
    "read_folder",
]

PARSERS = ("pypdfium2", "mammoth", "openpyxl", "python-pptx", "selectolax", "mwparserfromhell")
"""Distributions whose releases may read a file otherwise."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file in the folder that gave no document: its path inside the folder, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A file whose bytes are those of the version that is known: it was not read anew."""

    id: str


def read_folder(root: Path, limits: Limits | None = None) -> Iterator[Document | Unreadable]:
    """Every file beneath a folder, by path: a document, or why it is none. Hidden files are left out.

    Raises:
        NotFound: There is no such folder.
    """
    for item in read_changes(root, {}, limits):
        assert not isinstance(item, Unchanged)
        yield item


def read_changes(
    root: Path, known: Mapping[str, str], limits: Limits | None = None
) -> Iterator[Document | Unreadable | Unchanged]:
    """As `read_folder`, but a file of the version that is known, by its id, is not parsed.

    Raises:
        NotFound: There is no such folder.
        DocumentError: A folder in it can't be listed.
    """
    if not root.is_dir():
        raise NotFound(f"{root}: there is no such folder. Name the folder that holds the documents.")
    with ParserProcess(limits) as parser:
        for name, is_regular in sorted(_files(root)):
            version = known.get(name) if is_regular else None
            if version is not None and _is_of(f"{root}/{name}", version, parser.limits):
                yield Unchanged(name)
                continue
            try:
                yield _changed(root / name, root, parser, known)
            except (DocumentError, NotFound) as error:  # a dangling link is there and is not
                yield Unreadable(name, str(error).removeprefix(f"{name}: "))


def read_document(path: Path, root: Path, parser: ParserProcess | None = None) -> Document:
    """One document; its id is the path relative to `root`, its version a hash of the file's bytes.

    Args:
        path: The file.
        root: The folder it belongs to.
        parser: Parses it, within its limits; by default a process of its own. Whoever reads many
            files gives one for all.

    Raises:
        NotFound: There is no such file.
        DocumentError: The file is of no known kind, not of the kind its name says, damaged, encrypted,
            too large, too costly to parse, without text, or outside `root`.
    """
    if parser is None:
        with ParserProcess() as own:
            return read_document(path, root, own)
    found = _changed(path, root, parser, {})
    assert isinstance(found, Document)
    return found


@cache
def reading_version() -> str:
    """A hash of all that files are read by: equal versions make equal documents of equal bytes."""
    code = sorted(Path(__file__).parent.rglob("*.py"))
    parsers = [f"{name} {_release(name)}" for name in PARSERS]
    return content_hash([parsers, *(path.read_text("utf-8") for path in code)])


def _release(name: str) -> str:
    with suppress(PackageNotFoundError):
        return version(name)
    return "of unknown version"


def _changed(path: Path, root: Path, parser: ParserProcess, known: Mapping[str, str]) -> Document | Unchanged:
    name = _name(path, root)
    if not path.exists():
        raise NotFound(f"{name}: there is no such document in {root.name}.")
    if path.is_dir():
        raise DocumentError(f"{name}: is a folder or a link to one. Name its files; links are not followed.")
    try:
        data = _bytes(path, parser.limits)
    except DocumentError as error:
        raise DocumentError(f"{name}: {error}") from None
    if known.get(name) == _version(data):
        return Unchanged(name)
    return document_from_bytes(name, data, path.suffix.lower(), parser)


def document_from_bytes(name: str, data: bytes, suffix: str, parser: ParserProcess) -> Document:
    """A document whose bytes came from elsewhere than a file; `suffix`, such as `.pdf`, says what they are.

    Raises:
        DocumentError: As `read_document` does.
    """
    try:
        content = _content(data, suffix, parser)
    except DocumentError as error:
        raise DocumentError(f"{name}: {error}") from None
    title = content.title or _title(content.text, PurePosixPath(name), suffix)
    return Document(name, content.text, title, _version(data), content.page_starts)


def read_entry(
    name: str, entry: Entry, known: Mapping[str, str], parser: ParserProcess, suffix: str = ""
) -> Document | Unreadable | Unchanged:
    """A file that lies in no folder, such as an object in a storage, read as the same file in a folder is.

    What is of the version that is known, of no known kind, or too large by its declared size is never loaded.

    Args:
        name: The document's id.
        entry: The file.
        known: Versions that are known, by id.
        parser: Parses it, within its limits.
        suffix: Its kind, such as `.pdf`; by default the end of its name.
    """
    if entry.refused:
        return Unreadable(name, entry.refused)
    if entry.version and known.get(name) == entry.version:
        return Unchanged(name)
    suffix = suffix or PurePosixPath(name).suffix.lower()
    try:
        check_kind(suffix)
        check_size(entry.size_bytes, parser.limits)
        data = entry.load()
        check_size(len(data), parser.limits)
        document = document_from_bytes(name, data, suffix, parser)
    except DocumentError as error:
        return Unreadable(name, str(error).removeprefix(f"{name}: "))
    return replace(document, version=entry.version, title=entry.title or document.title)


def _version(data: bytes) -> str:
    return hashlib.blake2b(data).hexdigest()[:16]


def _title(text: str, path: PurePosixPath, suffix: str) -> str:
    how = KINDS[suffix].title
    if how == "name":
        return path.name
    return (first_heading(text) if how == "heading" else "") or path.stem


def _content(data: bytes, suffix: str, parser: ParserProcess) -> Content:
    _check_magic(data, suffix)
    kind = KINDS[suffix]
    content = parser.read(data, suffix) if kind.isolated else kind.read(data, parser.limits)
    if not content.text.strip():
        raise DocumentError(f"holds no text.{_empty_hint(suffix)}")
    if len(content.text) > parser.limits.chars:
        raise too_long(parser.limits)
    return content


def _files(root: Path) -> Iterator[tuple[str, bool]]:
    """The names in a folder, from its root on, and whether each is a regular file; no link is followed.

    Raises:
        DocumentError: A folder can't be listed: what is in it would be taken for gone.
    """
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{prefix}{entry.name}/")
                    elif not entry.name.startswith("~$"):
                        yield f"{prefix}{entry.name}", entry.is_file(follow_symlinks=False)
        except OSError as error:
            raise DocumentError(
                f"{root / prefix}: cannot be listed ({error.strerror}). Check its permissions."
            ) from None


def _is_of(path: str, version: str, limits: Limits) -> bool:
    """Whether a regular file, known by its name, holds the bytes of a version; False where it can't be told."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half the time of a Path
        return os.fstat(file.fileno()).st_size <= limits.file_bytes and _version(file.read()) == version
    return False


def _name(path: Path, root: Path) -> str:
    try:
        name = path.relative_to(root).as_posix()
        path.resolve().relative_to(root.resolve())
    except ValueError:
        raise DocumentError(f"{path.name}: lies outside {root.name}. Copy it into the folder.") from None
    return name


def _bytes(path: Path, limits: Limits) -> bytes:
    """All bytes of a file of a known kind, if they are not too many."""
    check_kind(path.suffix.lower())
    if not path.is_file():
        raise DocumentError("is no regular file. Copy what it stands for into one.")
    try:
        check_size(path.stat().st_size, limits)
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot be opened ({error.strerror}). Check its permissions.") from None


def check_kind(suffix: str) -> None:
    """Refuses files that are of no known kind by the end of their names, such as `.pdf`.

    Raises:
        DocumentError: The kind is not known.
    """
    if suffix not in KINDS:
        raise DocumentError(
            f"files of type {suffix or 'none'} are not read; expected {KNOWN_KINDS}. Convert it."
        )


def _check_magic(data: bytes, suffix: str) -> None:
    """Bytes that say another kind than the name are refused: they would be read as noise."""
    found, expected = magic_of(data, suffix), KINDS[suffix].magic
    if found != expected:
        said = found or "plain text or unknown"
        raise DocumentError(f"named {suffix}, but its content is {said}. Rename it, or export it again.")


def _empty_hint(suffix: str) -> str:
    if suffix == ".pdf":
        return " It is probably a scan: run it through text recognition (OCR) first."
    return " Delete it or add its text."
