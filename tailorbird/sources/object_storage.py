"""Objects in a storage, S3 and its like, as a connector."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tailorbird.data.documents import Unchanged, Unreadable, read_entry, reading_version
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import clean_text
from tailorbird.data.readers.entries import Entry
from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError, TailorbirdError
from tailorbird.records import Document
from tailorbird.sources.optional import need
from tailorbird.sources.path_patterns import chooses
from tailorbird.sources.unpacking import counted
from tailorbird.sources.web_reading import words_of

CREDENTIALS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "s3": (
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ),
    "gs": (
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        ("GOOGLE_SERVICE_ACCOUNT",),
        ("GOOGLE_SERVICE_ACCOUNT_KEY",),
        ("GOOGLE_SERVICE_ACCOUNT_PATH",),
    ),
    "az": (
        ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"),
        ("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID"),
        ("AZURE_STORAGE_ACCESS_KEY",),
        ("AZURE_STORAGE_ACCOUNT_KEY",),
        ("AZURE_STORAGE_SAS_KEY",),
        ("AZURE_STORAGE_SAS_TOKEN",),
        ("AZURE_STORAGE_TOKEN",),
    ),
    "file": (),
}
"""By the place's scheme: environment variables of which one group has to be there, unless all may read. Without any,
obstore would ask the address where clouds keep a machine's credentials, which nothing here may ask."""
CONNECT_S, REQUEST_S, RETRY_S = 10, 120, 60
MAX_RETRIES = 3
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class ObjectStorage:
    """The objects whose keys begin as a place says, each a document: its id is the rest of its key.

    An object's version is its ETag. What lies beneath a folder or file whose name begins with a dot is left
    out. Credentials come from the environment, by the names that the storage's own tools use.

    Args:
        place: `s3://bucket/beginning`, `gs://…`, `az://container/…` or `file:///folder`.
        endpoint: An S3-compatible server's address, such as `http://minio:9000`; only with `s3://`.
        region: S3's region.
        anonymous: Whether to ask without credentials.
        include: Patterns of keys that are read, such as `**/*.pdf`; all without any.
        exclude: Patterns of keys that are left out.
        id_prefix: Put before every id, for a second storage that has a readme.md too.
        label: names the storage in an index, by default its place.

    Raises:
        RecipeError: The place is none or holds credentials, an endpoint is none, or a pattern is none.
    """

    place: str
    endpoint: str = ""
    region: str = ""
    anonymous: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    id_prefix: str = ""
    label: str = ""

    complete = True

    def __post_init__(self) -> None:
        chooses(self.include, self.exclude)
        parts = urlsplit(self.place)
        if parts.scheme not in CREDENTIALS or not (parts.netloc or parts.scheme == "file"):
            raise RecipeError(
                "object_storage: the place is none that is read. Expected s3://bucket/beginning, gs://…, "
                "az://container/… or file:///folder."
            )
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise RecipeError(
                f"object_storage: the place may hold nothing but {parts.scheme}://, a name and the beginning of keys. "
                "Credentials belong into the environment, by the names that the storage's own tools use."
            )
        end = urlsplit(self.endpoint)
        if self.endpoint and (
            parts.scheme != "s3"
            or end.scheme not in {"http", "https"}
            or not end.hostname
            or "@" in end.netloc
        ):
            raise RecipeError(
                "object_storage: expected endpoint to be http:// or https:// and a host, for a place of s3://, without "
                "credentials."
            )

    @property
    def name(self) -> str:
        return self.label or f"object_storage:{self.endpoint}{'#' if self.endpoint else ''}{self.place}"

    @property
    def reading(self) -> str:
        """Changes wherever objects are read otherwise than before."""
        return reading_version()

    def documents(self) -> Iterator[Document | Unreadable | Unchanged]:
        """Every object, or why it gives no document.

        Raises:
            NotFound: There is no such bucket or folder, or there are no credentials.
            EndpointError: The storage can't be reached, or refuses; an index then keeps what it has.
            Unsupported: obstore is not installed.
        """
        return self.changes({})

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but objects of the version that is known are not loaded."""
        store = self._store()
        with ParserProcess() as parser:
            for told in self._listed(store):
                yield self._item(store, told, known, parser)

    def _item(
        self, store: Any, told: Mapping[str, Any], known: Mapping[str, str], parser: ParserProcess
    ) -> Document | Unreadable | Unchanged:
        key = str(told["path"])
        load = _loader(store, key, parser.limits.file_bytes)
        outside = "is a link that leads out of the folder, and is not followed. Copy the file."
        entry = Entry(
            key,
            _version(told),
            load,
            size_bytes=int(told["size"]),
            refused=outside if self._leads_outside(key) else "",
        )
        return read_entry(self.id_prefix + clean_text(key), entry, known, parser)

    def _listed(self, store: Any) -> list[Mapping[str, Any]]:
        import obstore

        is_meant = chooses(self.include, self.exclude)
        with _told(self.place):
            found = [told for chunk in obstore.list(store, chunk_size=1_000) for told in chunk]
        meant = (t for t in found if is_meant(t["path"]) and not _is_hidden(t["path"]))
        return sorted(meant, key=lambda told: told["path"])

    def _store(self) -> Any:
        """The storage.

        Raises:
            NotFound: There is no such folder, or there are no credentials.
            Unsupported: obstore is not installed.
        """
        need("obstore", "object_storage", "storage")
        from obstore.store import LocalStore, from_url

        scheme = urlsplit(self.place).scheme
        if scheme == "file":
            if not self._folder.is_dir():
                raise NotFound(
                    f"{self._folder}: there is no such folder. Name the folder that holds the documents."
                )
            return LocalStore(self._folder)
        groups = CREDENTIALS[scheme]
        if not self.anonymous and not any(all(map(os.environ.get, group)) for group in groups):
            names = ", ".join(" with ".join(group) for group in groups)
            raise NotFound(
                f"{self.place}: there are no credentials in the environment; expected one of {names}. Set "
                "what your storage needs, or set anonymous=true if everyone may read it."
            )
        config: dict[str, Any] = {"skip_signature": True} if self.anonymous else {}
        config |= {
            name: value for name, value in (("endpoint", self.endpoint), ("region", self.region)) if value
        }
        with _told(self.place):
            make: Any = from_url  # whose types know each storage's settings alone
            return make(
                self.place,
                config=config,
                client_options={
                    "allow_http": self.endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=REQUEST_S),
                },
                retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
            )

    @property
    def _folder(self) -> Path:
        return Path(unquote(urlsplit(self.place).path))

    def _leads_outside(self, key: str) -> bool:
        """Whether a file is a link to elsewhere: obstore follows links in local folders."""
        if not self.place.startswith("file:"):
            return False
        return not (self._folder / key).resolve().is_relative_to(self._folder.resolve())


def _is_hidden(key: str) -> bool:
    return any(part.startswith((".", "~$")) for part in key.split("/"))


def _version(told: Mapping[str, Any]) -> str:
    return str(told["e_tag"] or f"{told['size']} {told['last_modified'].isoformat()}").strip('"')


def _loader(store: Any, key: str, size_bytes: int) -> Callable[[], bytes]:
    """Loads an object, whatever size was told, up to so many bytes."""

    def load() -> bytes:
        import obstore

        try:
            with _told(key):
                chunks = obstore.get(store, key).stream(CHUNK_BYTES)
                return b"".join(counted((bytes(chunk) for chunk in chunks), size_bytes))
        except DocumentError:
            raise
        except TailorbirdError as error:
            raise DocumentError(str(error)) from None

    return load


@contextmanager
def _told(where: str) -> Generator[None]:
    """Makes every error one of ours that says where it happened."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{where}: is not there ({_first_line(error)}). Check the name.") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise EndpointError(
            f"{where}: may not be read with the environment's credentials ({_first_line(error)}). Check both."
        ) from None
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, TailorbirdError):
            raise
        raise EndpointError(
            f"{where}: cannot be read ({_first_line(error)}). Check the place, the endpoint and the network."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def object_storage_at(
    place: str, *, include: str | Sequence[str] = (), exclude: str | Sequence[str] = (), **rest: Any
) -> ObjectStorage:
    """The objects at a place, as the plug-in `object_storage`; patterns may be words apart by commas."""
    need("obstore", "object_storage", "storage")
    return ObjectStorage(place, include=words_of(include), exclude=words_of(exclude), **rest)
