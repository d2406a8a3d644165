"""The reader of a git repository: the files of one commit, straight from its objects.

No working tree is needed or touched. Nothing of what a repository can ask for is done: no hook or filter
runs, no link or submodule is followed, nothing is fetched. This module runs only in a process of its own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.entries import Entry
from tailorbird.errors import DocumentError, NotFound

MOST_FOLDERS = 64
"""Folders in one another."""
SUBMODULE = 0o160000
POINTER = b"version https://git-lfs.github.com/spec/"
POINTER_BYTES = 1_024


def git_entries(place: str, settings: Mapping[str, Any], _limits: Limits) -> Iterator[Entry]:
    """The files at `settings["ref"]`, by path, without those whose names begin with a dot.

    `settings["most_entries"]` is how many files and folders a commit may have, `settings["is_fetched"]` whether it lies
    in a folder of ours, in which packs have no index yet.

    Raises:
        NotFound: It is no repository, or has no such branch, tag or commit.
        DocumentError: It is damaged, or made to be endless.
    """
    from dulwich.errors import NotGitRepository
    from dulwich.repo import Repo

    ref = str(settings["ref"])
    if settings["is_fetched"]:
        _index_packs(Path(place))
    try:
        repository = Repo(place)
    except NotGitRepository:
        raise NotFound("is no git repository. Name its folder, the one that holds .git or is bare.") from None
    with repository:
        try:
            yield from _files(repository.object_store, _tree(repository, ref), settings["most_entries"])
        except DocumentError:
            raise
        except (KeyError, ValueError) as error:
            raise DocumentError(f"the repository is damaged ({error}). Check it with `git fsck`.") from None


def _index_packs(place: Path) -> None:
    """Makes the indexes that packs lack: a pack that was fetched comes without."""
    for pack in (place / "objects" / "pack").glob("*.pack"):
        index = pack.with_suffix(".idx")
        if not index.exists():
            from dulwich.object_format import DEFAULT_OBJECT_FORMAT
            from dulwich.pack import PackData

            made = index.with_suffix(f".idx-{os.getpid()}")
            with PackData(str(pack), DEFAULT_OBJECT_FORMAT) as data:
                data.create_index(str(made))
            made.replace(index)


def _tree(repository: Any, ref: str) -> bytes:
    from dulwich.objectspec import parse_commit

    try:
        return parse_commit(repository, ref.encode()).tree
    except (KeyError, ValueError):
        raise NotFound(
            f"has no branch, tag or commit {ref!r} with files. Name one with ref, or fetch it first."
        ) from None


def _files(objects: Any, root: bytes, most_entries: int) -> Iterator[Entry]:
    """Depth first, each folder's entries in git's own order; names that are none come before their folder's others."""
    waiting: list[tuple[str, int, int, bytes]] = [("", 0, stat.S_IFDIR, root)]
    num_seen = 0
    while waiting:
        path, depth, mode, sha = waiting.pop()
        num_seen += 1
        if num_seen > most_entries:
            raise DocumentError(f"holds more than {most_entries:,} files and folders. Name another commit.")
        if stat.S_ISDIR(mode) and depth <= MOST_FOLDERS:
            folder = f"{path}/" if path else ""
            for entry in reversed(objects[sha].items()):
                name = entry.path.decode("utf-8", "surrogateescape")
                if _is_odd(name):
                    yield _refused(folder + name, sha, "is no name that a file can have. Rename it.")
                elif not name.startswith("."):
                    waiting.append((folder + name, depth + 1, entry.mode, entry.sha))
        else:
            yield _entry(objects, path, mode, sha)


def _is_odd(name: str) -> bool:
    return name in {".", ".."} or "/" in name or "\\" in name or "\0" in name


def _entry(objects: Any, path: str, mode: int, sha: bytes) -> Entry:
    if mode == SUBMODULE:
        return _refused(path, sha, "is a submodule, which is not followed. Add its own repository.")
    if stat.S_ISLNK(mode):
        return _refused(path, sha, "is a link, which is not followed. Put the file in its place.")
    if not stat.S_ISREG(mode):
        return _refused(
            path, sha, f"is a folder too deep inside others; at most {MOST_FOLDERS} are followed."
        )
    return Entry(path, sha.decode("ascii", "replace"), partial(_blob, objects, sha))


def _refused(path: str, sha: bytes, reason: str) -> Entry:
    return Entry(path, sha.decode("ascii", "replace"), bytes, refused=reason)


def _blob(objects: Any, sha: bytes) -> bytes:
    """The file's bytes.

    Raises:
        DocumentError: They are not here.
    """
    try:
        data: bytes = objects[sha].data
    except KeyError:
        raise DocumentError("its content is not in the repository. Fetch it with git first.") from None
    if len(data) < POINTER_BYTES and data.startswith(POINTER):
        raise DocumentError(
            "is a pointer of Git LFS, and its content lies elsewhere. Fetch it with git lfs, and add that folder."
        )
    return data
