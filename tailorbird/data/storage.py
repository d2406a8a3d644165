"""Where files are kept, and how they are written so that a crash leaves the old ones or the new ones."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from tailorbird.errors import InputError


def cache_folder() -> Path:
    """The folder for what can be made again: `$TAILORBIRD_HOME`, else `tailorbird` in the user's cache.

    The user's cache is `$XDG_CACHE_HOME`, or `~/.cache`. The folder is made if it is absent.
    """
    home = os.environ.get("TAILORBIRD_HOME")
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) if home else Path(user_cache) / "tailorbird"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that any reader, at any time, sees the old content or all of the new.

    Missing parent folders are made. The content is on the disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Generator[Path]:
    """A temporary folder that becomes `path` when the block ends, and vanishes if the block raises.

    Everything in it is on the disk before the rename, so `path` is never seen half written.

    Args:
        path: The folder to make; its parents are made.
        replace: Put the new folder in the place of an old one; the old one is deleted last.

    Raises:
        InputError: `path` exists and `replace` is False.
    """
    if path.exists() and not replace:
        raise InputError(f"{path} already exists. Choose another name, or delete it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        for inner in (*temporary.rglob("*"), temporary):
            _sync(inner)
        _put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; a folder cannot replace a full one, so that is moved aside first."""
    old = temporary.with_name(temporary.name + ".old")
    replaces = path.exists()
    if replaces:
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if replaces:
            old.rename(path)
        raise
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def _temporary_name(path: Path) -> Path:
    """A fresh name beside `path`, so that renaming never crosses a file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _sync(path: Path) -> None:
    """Make a file's content or a folder's names durable; only POSIX can do that to what is not open."""
    if os.name != "posix" or path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def state_folder(project: Path) -> Path:
    """Where a project keeps its models and runs: `$TAILORBIRD_HOME`, else `.tailorbird` in the project."""
    home = os.environ.get("TAILORBIRD_HOME")
    return Path(home) if home else project / ".tailorbird"
