"""A git repository on a server, read over http(s): one commit is fetched, by the one fetcher, and then read as at home.

dulwich speaks git's protocol and opens no connection: every request that it makes goes through `fetching`. What comes
is kept in the cache, unopened; the process with limits that reads commits also indexes it.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from tailorbird.data.documents import Unchanged, Unreadable, reading_version
from tailorbird.data.storage import atomic_folder, cache_folder
from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError, TailorbirdError
from tailorbird.records import Document, content_hash
from tailorbird.sources.addresses import Address, read_address
from tailorbird.sources.fetching import Fetcher, Limits
from tailorbird.sources.git_commits import commit_documents
from tailorbird.sources.optional import need
from tailorbird.sources.path_patterns import chooses

READ_S = 60.0
"""Seconds without a byte: servers pack a large commit before they send it."""
KEPT = 2
"""Commits of a repository that stay in the cache: a sync may be reading the one before."""


@dataclass(frozen=True)
class RemoteGitRepository:
    """The files of one commit of a repository on a server; see `GitRepository`.

    Only that commit is fetched, without what came before it, and only where it is another one than before.

    Args:
        url: Its http(s) address, as for `git clone`.
        ref: A branch, tag or commit.
        include: Patterns of paths that are read, such as `docs/**/*.md`; all without any.
        exclude: Patterns of paths that are left out.
        id_prefix: Put before every id, for a second repository that has a README.md too.
        label: names the repository in an index, by default its address.
        allow_hosts: Hosts that may be on a private network.
        user: Whose token it is, where the server asks.
        token_env: The environment variable that holds an access token; it is sent over https alone, unless the host is
            in `allow_hosts`.
        most_mb: The largest commit that is fetched, in megabytes as it is sent.
        timeout_s: Seconds that fetching may take.

    Raises:
        RecipeError: A pattern or the address is none, or a token would be sent unencrypted.
    """

    url: str
    ref: str = "HEAD"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    id_prefix: str = ""
    label: str = ""
    allow_hosts: tuple[str, ...] = ()
    user: str = "x-access-token"
    token_env: str = ""
    most_mb: int = 200
    timeout_s: float = 600.0

    complete = True

    def __post_init__(self) -> None:
        chooses(self.include, self.exclude)
        address = self._address
        if "?" in address.target:
            raise RecipeError(f"git: {self.url}: expected an address without a question mark.")
        if self.token_env and address.scheme != "https" and not Fetcher(self.allow_hosts).allows(address):
            raise RecipeError(
                f"git: {self.url}: the token would be sent unencrypted. Use https, or name this host in allow_hosts."
            )
        if self.most_mb < 1 or self.timeout_s <= 0:
            raise RecipeError("git: expected most_mb of 1 or more, and timeout_s above 0.")

    @property
    def _address(self) -> Address:
        try:
            return read_address(self.url)
        except DocumentError as error:
            raise RecipeError(f"git: {error}") from None

    @property
    def name(self) -> str:
        return f"git:{self.label or self.url}"

    @property
    def reading(self) -> str:
        """Changes wherever files are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Document | Unreadable | Unchanged]:
        """Every file, or why it gives no document.

        Raises:
            NotFound: There is no such repository, branch, tag or commit; an index then keeps what it has.
            EndpointError: The server can't be reached, refuses, or says what is not git's protocol.
            DocumentError: What it sends is too large or damaged, or its address is on a private network.
            Unsupported: dulwich is not installed.
        """
        return self.changes({})

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but files of the version that is known are neither unpacked nor parsed."""
        need("dulwich", "git", "git")
        root, commit = self._fetched()
        is_meant = chooses(self.include, self.exclude)
        try:
            yield from commit_documents(root, commit, is_meant, self.id_prefix, known, shown=self.url)
        except DocumentError:
            shutil.rmtree(root, ignore_errors=True)  # the next sync fetches it again
            raise

    def _fetched(self) -> tuple[Path, str]:
        """The folder with the commit that `ref` is of now, and its name."""
        home = cache_folder() / "git" / content_hash(["git", self.url], 16)
        chosen: list[str] = []

        def wanted(refs: Mapping[bytes, bytes], **_: Any) -> list[bytes]:
            commit = _named(refs, self.ref, self.url)
            chosen[:] = [commit.decode()]
            return [] if (home / chosen[0]).is_dir() else [commit]

        with TemporaryFile() as pack:
            self._ask(wanted, pack.write)
            place = home / chosen[0]
            if pack.tell():
                pack.seek(0)
                with atomic_folder(place, replace=True) as building:
                    _keep(building, pack)
                # The oldest go, by when they came.
                for old in sorted(home.iterdir(), key=lambda path: -path.stat().st_mtime)[KEPT:]:
                    shutil.rmtree(old, ignore_errors=True)
            elif not place.is_dir():
                raise EndpointError(
                    f"git: {self.url}: the server sent nothing of {self.ref}. Try again later."
                )
        return place, chosen[0]

    def _ask(self, wanted: Callable[..., list[bytes]], keep: Callable[[bytes], Any]) -> None:
        from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
        from dulwich.object_store import ObjectStoreGraphWalker

        limits = Limits(self.timeout_s, min(READ_S, self.timeout_s), self.most_mb * 2**20)
        client = _client(self.url, Fetcher(self.allow_hosts, limits), self._headers())
        nothing = ObjectStoreGraphWalker([], lambda _: [])
        try:
            client.fetch_pack("", wanted, nothing, keep, depth=1, protocol_version=0)
        except TailorbirdError as error:
            more = " Allow more with most_mb, or add a clone's folder." if "larger than" in str(error) else ""
            raise type(error)(f"git: {error}{more}") from None
        except NotGitRepository:
            raise NotFound(f"git: {self.url}: there is no git repository. Check the address.") from None
        except (GitProtocolError, HangupException, ValueError, AssertionError, KeyError, IndexError) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise EndpointError(f"git: {self.url}: can't be fetched ({said}). Check the address.") from None

    def _headers(self) -> dict[str, str]:
        if not self.token_env:
            return {}
        token = os.environ.get(self.token_env, "").strip()
        if not token:
            raise NotFound(
                f"git: {self.url}: the environment variable {self.token_env!r} is not set. Set it to the token."
            )
        pair = base64.b64encode(f"{self.user}:{token}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}


def _named(refs: Mapping[bytes, bytes], ref: str, url: str) -> bytes:
    """What a branch, tag or commit is of on the server.

    Raises:
        NotFound: There is no such thing.
    """
    name = ref.encode()
    for candidate in (name, b"refs/heads/" + name, b"refs/tags/" + name):
        if candidate in refs:
            return refs[candidate]
    if len(ref) == 40 and set(ref.lower()) <= set("0123456789abcdef"):
        return name.lower()
    branches = [
        r.removeprefix(b"refs/heads/").decode(errors="replace") for r in sorted(refs) if b"/heads/" in r
    ]
    known = ", ".join(branches[:10]) or "none"
    raise NotFound(f"{url}: has no branch, tag or commit {ref!r}. Branches: {known}. Name one with ref.")


def _keep(folder: Path, pack: IO[bytes]) -> None:
    """A bare repository with nothing but a pack, whose index is made by who reads it."""
    from dulwich.repo import Repo

    Repo.init_bare(str(folder)).close()
    with (folder / "objects" / "pack" / "pack-fetched.pack").open("wb") as kept:
        shutil.copyfileobj(pack, kept)


def _client(url: str, fetcher: Fetcher, secret: Mapping[str, str]) -> Any:
    from dulwich.client import AbstractHttpGitClient
    from dulwich.errors import GitProtocolError, NotGitRepository

    start = read_address(url)

    class Client(AbstractHttpGitClient):
        """git's smart protocol over the fetcher; the plain one, of whole files, is not spoken."""

        def _get_url(self, path: str | bytes) -> str:
            del path
            return self._base_url

        def _http_request(
            self,
            url: str,
            headers: dict[str, str] | None = None,
            data: bytes | Iterator[bytes] | None = None,
            raise_for_status: bool = True,
        ) -> Any:
            del raise_for_status
            own = secret if read_address(url).origin == start.origin else {}
            sent = {**(headers or {}), **own}
            if data is None:
                answer = fetcher.fetch(url, headers=sent)
            else:
                answer = fetcher.send(url, data if isinstance(data, bytes) else b"".join(data), sent)
            if answer.status in {401, 403}:
                raise GitProtocolError(f"status {answer.status}: it is not open to all; set token_env")
            if answer.status == 404:
                raise NotGitRepository
            if answer.status != 200:
                raise GitProtocolError(f"status {answer.status}")
            if data is None and not answer.kind.startswith("application/x-git-"):
                raise NotGitRepository
            moved = answer.address.url if answer.address.url != url else ""
            return _Response(answer.kind, moved), BytesIO(answer.body).read

    return Client(url, thin_packs=False, quiet=True, include_tags=False)


@dataclass(frozen=True)
class _Response:
    content_type: str
    redirect_location: str

    def close(self) -> None:
        """All of it has been read."""
