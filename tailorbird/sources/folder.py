"""A folder of documents as a connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tailorbird.data.documents import Unchanged, Unreadable, read_changes, read_folder, reading_version
from tailorbird.records import Document


def folder_at(place: str, *, label: str = "") -> Folder:
    """The folder at a path, as the plug-in `folder`."""
    return Folder(Path(place), label)


@dataclass(frozen=True)
class Folder:
    """All documents in a folder and the folders in it; a document's id is its path inside `root`.

    `label` names the folder in an index, by default its full path: give one to a folder that may move.
    """

    root: Path
    label: str = ""

    complete = True

    @property
    def name(self) -> str:
        return self.label or f"folder:{self.root.resolve().as_posix()}"

    def documents(self) -> Iterator[Document | Unreadable]:
        """Every document, and every file that cannot be read as one, with the reason.

        Raises:
            NotFound: The folder is not there; an index then keeps what it has rather than forget it all.
        """
        return read_folder(self.root)

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but files of the version that is known are not parsed."""
        return read_changes(self.root, known)

    @property
    def reading(self) -> str:
        """Changes wherever files are read otherwise than before."""
        return reading_version()
