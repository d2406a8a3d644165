"""Databases that aren't ours, opened for nothing but reading.

SQLite is opened read-only, and every step of a statement that does more than read is denied. Other databases are
reached by SQLAlchemy, in one transaction that is read-only where the database knows such (PostgreSQL, MySQL, MariaDB,
Oracle) and undone at its end: give them a user that may do no more.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote

from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError, Unsupported
from tailorbird.sources.named_variables import filled_in, is_secret_name, is_variable
from tailorbird.sources.optional import need
from tailorbird.sources.sql_statement import escaped

CHECKED_EVERY = 1_000
"""SQLite's instructions between two looks at the clock."""
ROWS_AT_ONCE = 500

_USER = re.compile(r"([^:/]*://[^:/@]*):([^@]*)@([^?]*)", re.DOTALL)
"""What stands before a password, the password as SQLAlchemy would read it, and what it would take for the host."""
_HIDES_SECRET = re.compile(r"pass(?!file)|pwd|secret|token", re.IGNORECASE)
_ODBC_SECRET = re.compile(r"(?:^|[;{\s])\s*(?:pwd|password)\s*=\s*([^;}]*)", re.IGNORECASE)
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_KEPT_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "edit", "writefile", "readfile"})
_LATE = re.compile("interrupted|statement timeout|execution time exceeded|max_statement_time exceeded")
"""How SQLite, PostgreSQL, MySQL and MariaDB say that time ran out."""
_HELD_BY: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("SET LOCAL statement_timeout = {ms}",),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {ms}"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_statement_time = {s}"),
    "oracle": ("SET TRANSACTION READ ONLY",),
}
"""What is said first, by dialect; what isn't named is held by the words of the statement and by never committing."""

CONNECT_S = 10
"""Seconds in which a server has to answer, or fewer where reading has fewer."""
LEAST_CONNECT_S = 2
"""libpq takes less for 2 anyway."""
_CONNECTS_WITHIN: Mapping[str, str] = {
    "psycopg": "connect_timeout", "psycopg2": "connect_timeout", "pymysql": "connect_timeout",
    "mysqldb": "connect_timeout", "mysqlconnector": "connection_timeout", "mariadbconnector": "connect_timeout",
    "pymssql": "login_timeout", "pyodbc": "timeout", "oracledb": "tcp_connect_timeout",
}  # fmt: skip
"""How drivers call the seconds that connecting may take."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """Where a database is, and how it may be read.

    Args:
        at: The path of an SQLite file, also as `sqlite:///shop.db`, or an address as SQLAlchemy has it. Where the
            password goes may stand the name of an environment variable: `postgresql://reader:$SHOP_PASSWORD@host/shop`.
        where: What errors begin with.
        timeout_s: Seconds that reading may take: of SQLite in all, of others for one statement.
        value_bytes: The largest value of an SQLite database that is loaded.
        password_env: Another way to name the environment variable that holds the password.

    Raises:
        RecipeError: It holds a password, for settings are kept.
    """

    at: str
    where: str
    timeout_s: float
    value_bytes: int
    password_env: str = ""

    def __post_init__(self) -> None:
        if self.path is None and self._holds_secret():
            raise RecipeError(
                f"{self.where}: the place holds a password, which would be stored: {self.shown}. Name an environment "
                "variable in its place, and nothing else there: postgresql://reader:$SHOP_PASSWORD@host/shop"
            )

    @property
    def path(self) -> Path | None:
        """The SQLite file; None if it is another database."""
        if self.at.startswith("sqlite:///"):
            return Path(self.at.removeprefix("sqlite:///"))
        return None if "://" in self.at else Path(self.at)

    @property
    def shown(self) -> str:
        """The place without a password."""
        if self.path is not None:
            return str(self.path)
        if found := _USER.match(self.at):
            return f"{found[1]}:…@{found[3].rpartition('@')[2]}"
        return self.at.partition("?")[0]

    def _holds_secret(self) -> bool:
        """Whether a key or password stands in the place itself, instead of the name of a variable."""
        found = _USER.match(self.at)
        if found and (not is_variable(found[2]) or "@" in found[3]):
            return True
        for name, value in parse_qsl(self.at.partition("?")[2], keep_blank_values=True):
            is_secret = is_secret_name(name) or _HIDES_SECRET.search(name)
            if is_secret and not is_variable(value):
                return True
            if any(not is_variable(inner.strip()) for inner in _ODBC_SECRET.findall(value)):
                return True
        return False

    def check_address(self) -> None:
        """Refuses what SQLAlchemy can't read.

        Raises:
            Unsupported: SQLAlchemy is not installed.
            RecipeError: The place is no address.
        """
        if self.path is None:
            self._url(self.at)

    def _url(self, at: str) -> Any:
        need("sqlalchemy", self.where, "sql")
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            return make_url(at)
        except (ArgumentError, ValueError):
            raise RecipeError(
                f"{self.where}: the place is no database's address. Expected a file, or one such as "
                "postgresql+psycopg://user@host/shop."
            ) from None

    def url(self) -> Any:
        """SQLAlchemy's address, with the password.

        Raises:
            NotFound: An environment variable that is named is not set.
        """
        url = self._url(
            filled_in(self.at, f"{self.where}: {self.shown}", lambda value: quote(value, safe=""))
        )
        if not self.password_env:
            return url
        password = os.environ.get(self.password_env)
        if password is None:
            raise NotFound(
                f"{self.where}: the environment variable {self.password_env!r} is not set. Put the database's "
                "password there."
            )
        return url.set(password=password) if password else url


class Reading(Protocol):
    """A database that is open to be read, all in the same state where it can say so."""

    def quoted(self, name: str) -> str:
        """The name of a column or table as it stands in a statement."""
        ...

    def ask(self, statement: str, values: Mapping[str, Any]) -> tuple[tuple[str, ...], Iterator[Row]]:
        """The names of a SELECT's columns, and its rows as they come; `values` are bound where `:name` stands."""
        ...


def opened(place: Place, *, streamed: bool = False) -> AbstractContextManager[Reading]:
    """A database for as long as it is read.

    Args:
        place: Where it is.
        streamed: Whether rows come from the server a few at a time.

    Raises:
        NotFound: There is no such file, or an environment variable that is named is not set.
        Unsupported: SQLAlchemy, or the database's driver, is not installed.
        DocumentError: An SQLite file can't be read, refuses the statement, or takes too long.
        EndpointError: Another database can't be reached, does not know the user, breaks off, or takes too long.
        RecipeError: Another database refuses the statement.
    """
    if place.path is not None:
        return _opened_sqlite(place, place.path)
    return _opened_by_sqlalchemy(place, streamed=streamed)


@contextmanager
def _opened_sqlite(place: Place, path: Path) -> Generator[Reading]:
    if not path.is_file():
        raise NotFound(f"{place.where}: {path}: there is no such database. Check the path.")
    end_s = time.monotonic() + place.timeout_s
    try:
        with closing(
            sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=place.timeout_s, isolation_level=None
            )
        ) as database:
            database.text_factory = lambda data: data.decode("utf-8", "replace")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, place.value_bytes)
            database.execute("BEGIN")  # all is read in one state of the file
            _hold_sqlite(database, end_s)
            yield _Sqlite(database)
    except sqlite3.Error as error:
        if _LATE.search(str(error)):
            raise DocumentError(_too_late(place)) from None
        raise DocumentError(
            f"{place.where}: {path}: {error}. Check the file, the query and the columns' names."
        ) from None


def _hold_sqlite(database: sqlite3.Connection, end_s: float) -> None:
    """Makes a connection read-only, keeps it in its own file, and bounds its time."""
    database.execute("PRAGMA query_only = ON")
    database.execute("PRAGMA trusted_schema = OFF")
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.set_authorizer(_may)
    database.set_progress_handler(lambda: time.monotonic() > end_s, CHECKED_EVERY)


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


class _Sqlite:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def ask(self, statement: str, values: Mapping[str, Any]) -> tuple[tuple[str, ...], Iterator[Row]]:
        cursor = self._database.execute(statement, values)
        return tuple(str(column[0]) for column in cursor.description or ()), cursor


@contextmanager
def _opened_by_sqlalchemy(place: Place, *, streamed: bool) -> Generator[Reading]:
    url = place.url()
    import sqlalchemy
    from sqlalchemy import exc
    from sqlalchemy.pool import NullPool

    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        raise NotFound(f"{place.where}: {url.database}: there is no such database. Check the path.")
    try:
        engine = sqlalchemy.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=_limits(url, place.timeout_s)
        )
    except (exc.NoSuchModuleError, ImportError) as error:
        raise Unsupported(
            f"{place.where}: {place.shown}: its driver is not installed ({error}). Install it with pip, such as "
            "psycopg for postgresql."
        ) from None
    try:
        with engine.connect() as connection, closing(_BySqlalchemy(connection)) as reading:
            _hold(connection, place.timeout_s)
            connection.execution_options(stream_results=streamed, max_row_buffer=ROWS_AT_ONCE)
            yield reading
    except exc.DBAPIError as error:
        raise _refused(place, error, url.password) from None
    except exc.SQLAlchemyError as error:
        raise RecipeError(
            f"{place.where}: {place.shown}: {_words(error, url.password)}. Check the settings."
        ) from None


def _limits(url: Any, timeout_s: float) -> dict[str, int]:
    """What a driver is told so that a host that doesn't answer is given up, unless the address says it itself."""
    setting = _CONNECTS_WITHIN.get(url.get_driver_name())
    if setting is None or setting in url.query:
        return {}
    return {setting: max(LEAST_CONNECT_S, math.ceil(min(timeout_s, CONNECT_S)))}


def _refused(place: Place, error: Any, password: str | None) -> DocumentError | EndpointError | RecipeError:
    from sqlalchemy.exc import ProgrammingError

    said = _words(error.orig, password)
    if _LATE.search(said):
        return EndpointError(_too_late(place))
    if isinstance(error, ProgrammingError):
        return RecipeError(f"{place.where}: {place.shown}: {said}. Check the query and the columns' names.")
    return EndpointError(
        f"{place.where}: {place.shown}: {said}. Check the address, the user, the password and the query."
    )


def _words(error: BaseException, password: str | None) -> str:
    """What a driver says, without the password, and without the statement that some add."""
    said = re.split(r"\s(?:LINE \d+:|\[SQL: )", " ".join(str(error).split()))[0]
    return said[:500].replace(password or "\0", "…").rstrip(".")


def _too_late(place: Place) -> str:
    return (
        f"{place.where}: {place.shown}: took longer than {place.timeout_s:g} s. Give the table an index, or allow "
        "more with timeout_s."
    )


def _hold(connection: Any, timeout_s: float) -> None:
    """Begins a transaction that may only read and bounds the time of its statements, as far as the database can."""
    from sqlalchemy.exc import ProgrammingError

    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if dialect == "sqlite":
        _hold_sqlite(connection.connection.driver_connection, time.monotonic() + timeout_s)
    for said in _HELD_BY.get(dialect, ()):
        with suppress(ProgrammingError):  # an older server doesn't know the variable
            connection.exec_driver_sql(said.format(ms=int(timeout_s * 1000), s=timeout_s))
    if dialect in {"mysql", "mariadb"}:  # what was said holds from the next transaction on
        connection.commit()


class _BySqlalchemy:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._results: list[Any] = []

    def close(self) -> None:
        """Closes what was not read to its end, and undoes the transaction."""
        for result in self._results:
            result.close()
        self._connection.rollback()

    def quoted(self, name: str) -> str:
        return self._connection.dialect.identifier_preparer.quote(name)

    def ask(self, statement: str, values: Mapping[str, Any]) -> tuple[tuple[str, ...], Iterator[Row]]:
        import sqlalchemy

        result = self._connection.execute(sqlalchemy.text(escaped(statement, values.keys())), dict(values))
        self._results.append(result)
        return tuple(map(str, result.keys())), self._rows(result)

    def _rows(self, result: Any) -> Iterator[Row]:
        for row in result:
            yield tuple(row)
        self._results.remove(result)
