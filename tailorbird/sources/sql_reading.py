"""Databases that aren't ours, opened to be read: one SELECT at a time, under limits, its values bound.

What may be said is judged three times: by the words of the statement, by the database itself (SQLite's authorizer,
or a transaction that is read-only), and by never committing.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailorbird.errors import EndpointError, NotFound, RecipeError, Unsupported
from tailorbird.sources.live_passages import filled_in

MAX_CELL = 2 * 2**20
"""Bytes of one value that SQLite may make."""
CHECKED_EVERY = 1_000
"""SQLite's instructions between two looks at the clock."""

_SKIPPED = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?(?:\*/|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_WRITES = frozenset(
    """insert update delete merge into drop alter create attach detach pragma call exec execute copy grant revoke
    truncate vacuum reindex begin commit rollback savepoint lock set do load handler analyze""".split()  # noqa: SIM905
)
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_KEPT_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "edit", "writefile", "readfile"})
_PASSWORD = re.compile(r"://[^/@?]*:([^/@?]*)@")
_READ_ONLY: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("SET TRANSACTION READ ONLY", "SET LOCAL statement_timeout = {ms}"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {ms}"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_statement_time = {s}"),
}
"""What is said first, by dialect; other databases are held by the words of the statement and by never committing."""


@dataclass(frozen=True)
class Rows:
    """What a SELECT gave: the names of its columns, in lower case, and rows of as many values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def records(self) -> Iterator[dict[str, Any]]:
        """Each row by its columns' names."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


def check_select(query: str, where: str) -> None:
    """Refuses what is not one SELECT, by its words; they are no proof, and what opens the database has its own.

    Raises:
        RecipeError: it is something else, or more than one statement.
    """
    bare = _SKIPPED.sub(" ' ", query).strip().rstrip(";").strip()
    words = [word.lower() for word in re.findall(r"[A-Za-z_]+", bare)]
    said = ""
    if ";" in bare:
        said = "more than one statement"
    elif not words or words[0] not in {"select", "with"} or not bare[:1].isalpha():
        said = f"a statement that begins with {bare[:20]!r}"
    elif written := sorted(_WRITES & set(words)):
        said = f"the word {written[0].upper()!r} outside quotes"
    if said:
        raise RecipeError(
            f"{where}: got {said}; expected one SELECT. Write it as a view in the database, or put a name in quotes."
        )


def bound_names(query: str) -> set[str]:
    """The names that a query binds, such as `query` in `:query`; `::text` binds none."""
    return set(re.findall(r"(?<![:\w\\]):([A-Za-z_]\w*)", _SKIPPED.sub(" ' ", query)))


def check_database(database: str, where: str) -> None:
    """Refuses an address that holds a password: settings are kept.

    Raises:
        RecipeError: it does.
    """
    found = _PASSWORD.search(database)
    if found and found[1] and not found[1].startswith("$"):
        raise RecipeError(
            f"{where}: the database's address holds a password, and settings are kept with the model. Name an "
            "environment variable in its place: postgresql://reader:$SHOP_PASSWORD@host/shop"
        )


def read_rows(
    database: str,
    query: str,
    values: Mapping[str, Any],
    *,
    limit: int,
    timeout_s: float,
    where: str,
) -> Rows:
    """The first rows of one SELECT.

    Args:
        database: the path of an SQLite file, or a URL as SQLAlchemy has it.
        query: the SELECT, with `:name` where a value goes.
        values: those that are bound; more than the query names may be given.
        limit: rows, at most.
        timeout_s: seconds that it may take.
        where: what errors begin with.

    Raises:
        NotFound: there is no such file.
        EndpointError: the database can't be read, refuses, or takes too long.
        Unsupported: SQLAlchemy, or the database's driver, is not installed.
    """
    bound = {name: values[name] for name in sorted(bound_names(query)) if name in values}
    asked = _Asked(query, bound, limit, timeout_s, where)
    return _by_sqlalchemy(database, asked) if "://" in database else _by_sqlite(Path(database), asked)


@dataclass(frozen=True)
class _Asked:
    """One SELECT with its values and limits."""

    query: str
    values: Mapping[str, Any]
    limit: int
    timeout_s: float
    where: str


def _by_sqlite(path: Path, asked: _Asked) -> Rows:
    end = time.monotonic() + asked.timeout_s
    with opened_sqlite(path, asked.timeout_s, asked.where) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > end, CHECKED_EVERY)
        try:
            cursor = connection.execute(asked.query, asked.values)
            columns = tuple(str(column[0]).lower() for column in cursor.description or ())
            return Rows(columns, tuple(cursor.fetchmany(asked.limit)))
        except sqlite3.Error as error:
            if time.monotonic() > end:
                raise _late(asked) from None
            raise EndpointError(
                f"{asked.where}: {path.name} refuses the query ({error}). Correct the query."
            ) from None


@contextmanager
def opened_sqlite(path: Path, timeout_s: float, where: str) -> Generator[sqlite3.Connection]:
    """An SQLite file, opened so that it can't be changed, nor another file be reached from it.

    Raises:
        NotFound: there is no such file.
        EndpointError: it can't be opened.
    """
    if not path.is_file():
        raise NotFound(f"{where}: {path}: there is no such database. Check the path.")
    address = f"{path.resolve().as_uri()}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, timeout=timeout_s, isolation_level=None)
    except sqlite3.Error as error:
        raise EndpointError(f"{where}: {path} can't be opened ({error}). Check its permissions.") from None
    with closing(connection):
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_may)
        yield connection


def _may(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """What a statement may do; a virtual table such as FTS5's declares itself by what looks like writing the schema."""
    if action == sqlite3.SQLITE_PRAGMA:
        allowed = first == "data_version"
    elif action == sqlite3.SQLITE_UPDATE:
        allowed = first in {"sqlite_master", "sqlite_schema"}  # and the file is opened for reading
    elif action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _KEPT_FUNCTIONS
    else:
        allowed = action in _READS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _by_sqlalchemy(database: str, asked: _Asked) -> Rows:
    where, timeout_s = asked.where, asked.timeout_s
    sqlalchemy = _sqlalchemy(where)
    url = filled_in(database, f"{where}: database", encode=_as_part_of_url)
    shown = _PASSWORD.sub("://…@", database)
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    except ImportError as error:
        raise Unsupported(
            f"{where}: {shown} needs a driver that isn't installed ({error}). Install it, such as psycopg for "
            "postgresql."
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise RecipeError(f"{where}: {shown} is no database's address ({_first_line(error)}).") from None
    end = time.monotonic() + timeout_s
    try:
        with engine.connect() as connection:
            _hold(sqlalchemy, connection, engine.dialect.name, timeout_s, end)
            result = connection.execute(sqlalchemy.text(asked.query), dict(asked.values))
            columns = tuple(str(name).lower() for name in result.keys())  # noqa: SIM118 - it is no dictionary
            rows = tuple(tuple(row) for row in result.fetchmany(asked.limit))
            connection.rollback()
            return Rows(columns, rows)
    except sqlalchemy.exc.SQLAlchemyError as error:
        if time.monotonic() > end:
            raise _late(asked) from None
        raise EndpointError(
            f"{where}: {shown} can't be read ({_first_line(error)}). Check the address, the rights and the query."
        ) from None
    finally:
        engine.dispose()


def _hold(sqlalchemy: Any, connection: Any, dialect: str, timeout_s: float, end: float) -> None:
    """Makes the connection read-only and bounds the time of its statements, as far as the database can."""
    if dialect == "sqlite":
        raw = connection.connection.driver_connection
        raw.execute("PRAGMA query_only = ON")
        raw.set_authorizer(_may)
        raw.set_progress_handler(lambda: time.monotonic() > end, CHECKED_EVERY)
    for said in _READ_ONLY.get(dialect, ()):
        with suppress(sqlalchemy.exc.ProgrammingError):  # an older server doesn't know the variable
            connection.execute(sqlalchemy.text(said.format(ms=int(timeout_s * 1000), s=timeout_s)))


def _sqlalchemy(where: str) -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise Unsupported(
            f"{where}: databases by URL are read with SQLAlchemy, which isn't installed. Install it with: "
            "pip install 'tailorbird[sql]'"
        ) from None
    return sqlalchemy


def _as_part_of_url(value: str) -> str:
    from urllib.parse import quote

    return quote(value, safe="")


def _first_line(error: Exception) -> str:
    """What a driver says, without the statement and the values, which SQLAlchemy adds in further lines."""
    words: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return words[0][:200]


def _late(asked: _Asked) -> EndpointError:
    return EndpointError(
        f"{asked.where}: the query took longer than {asked.timeout_s:g} s. Give the table an index, or allow more by "
        "timeout_s."
    )
