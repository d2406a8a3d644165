"""A git repository as a connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tailorbird.data.documents import Unchanged, Unreadable, reading_version
from tailorbird.errors import NotFound, RecipeError
from tailorbird.records import Document
from tailorbird.sources.git_commits import commit_documents
from tailorbird.sources.git_remote import RemoteGitRepository
from tailorbird.sources.optional import need
from tailorbird.sources.path_patterns import chooses
from tailorbird.sources.web_reading import words_of


@dataclass(frozen=True)
class GitRepository:
    """The files of one commit, read from the repository itself: what lies in its working tree plays no part.

    A document's id is its path, its version the hash of its content in git. Files and folders whose names
    begin with a dot are left out. Links, submodules and pointers of Git LFS are named and not followed.

    Args:
        root: The repository's folder, which holds .git or is bare.
        ref: A branch, tag or commit.
        include: Patterns of paths that are read, such as `docs/**/*.md`; all without any.
        exclude: Patterns of paths that are left out.
        id_prefix: Put before every id, for a second repository that has a README.md too.
        label: names the repository in an index, by default its full path.

    Raises:
        RecipeError: A pattern is none.
    """

    root: Path
    ref: str = "HEAD"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    id_prefix: str = ""
    label: str = ""

    complete = True

    def __post_init__(self) -> None:
        chooses(self.include, self.exclude)

    @property
    def name(self) -> str:
        return f"git:{self.label or self.root.resolve().as_posix()}"

    @property
    def reading(self) -> str:
        """Changes wherever files are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Document | Unreadable | Unchanged]:
        """Every file, or why it gives no document.

        Raises:
            NotFound: There is no such repository, branch, tag or commit; an index then keeps what it has.
            Unsupported: dulwich is not installed.
            DocumentError: The repository is damaged.
        """
        return self.changes({})

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but files of the version that is known are neither unpacked nor parsed."""
        need("dulwich", "git", "git")
        if not self.root.is_dir():
            raise NotFound(f"{self.root}: there is no such folder. Name a git repository.")
        is_meant = chooses(self.include, self.exclude)
        yield from commit_documents(self.root, self.ref, is_meant, self.id_prefix, known)


def git_at(
    place: str,
    *,
    ref: str = "HEAD",
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    id_prefix: str = "",
    label: str = "",
    allow_hosts: str | Sequence[str] = (),
    user: str = "x-access-token",
    token_env: str = "",
    most_mb: int = 200,
    timeout_s: float = 600.0,
) -> GitRepository | RemoteGitRepository:
    """The repository in a folder or at an http(s) address, as the plug-in `git`.

    Patterns and hosts may be words apart by commas. The settings after `label` are of those at an address.

    Raises:
        RecipeError: The place is an address of another kind, or a setting is none.
    """
    need("dulwich", "git", "git")
    chosen = words_of(include), words_of(exclude)
    if "://" not in place:
        return GitRepository(Path(place), str(ref), *chosen, id_prefix, label)
    url = place.removeprefix("git+")
    if not url.lower().startswith(("http://", "https://")):
        raise RecipeError(
            "git: repositories are fetched over http(s) alone. Give such an address, or clone it (git clone --mirror) "
            "and name the folder it is in."
        )
    hosts = words_of(allow_hosts)
    return RemoteGitRepository(
        url, str(ref), *chosen, id_prefix, label, hosts, user, token_env, most_mb, float(timeout_s)
    )
