"""Rows of a database that is opened for nothing but reading.

SQLite is opened read-only, and every step of a statement that does more than read is denied. Other
databases are reached by SQLAlchemy, in one transaction that is read-only where the database knows such
(PostgreSQL, MySQL, MariaDB, Oracle) and undone at its end: give them a user that may do no more.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tailorbird.errors import DocumentError, EndpointError, NotFound, RecipeError, Unsupported

VALUE_BYTES = 256 * 2**20
"""The largest value of an SQLite database that is loaded."""
STEPS = 10_000
"""Steps of SQLite's machine between two looks at the clock."""
ROWS_AT_ONCE = 500
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    getattr(sqlite3, "SQLITE_RECURSIVE", 33),
}

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Selection:
    """What is selected: rows of a table, `schema.table` too, or of a query that was checked."""

    table: str = ""
    query: str = ""


class Rows(Protocol):
    """Reads from one selection, all in the same state of the database."""

    def select(
        self, columns: Sequence[str], order: Sequence[str], where: Mapping[str, Any] | None = None
    ) -> Iterator[Row]:
        """The columns' values, row by row, ordered; with `where` only of rows that have these values."""
        ...


def sqlite_path(place: str) -> Path | None:
    """The path of an SQLite database in a place such as `shop.db` or `sqlite:///shop.db`; None if it is elsewhere."""
    if place.startswith("sqlite:///"):
        return Path(place.removeprefix("sqlite:///"))
    return None if "://" in place else Path(place)


@contextmanager
def sqlite_rows(path: Path, selection: Selection, timeout_s: float) -> Generator[Rows]:
    """Rows of an SQLite database.

    Raises:
        NotFound: There is no such file.
        DocumentError: It is no database, lacks what is selected, or takes too long.
    """
    if not path.is_file():
        raise NotFound(f"{path}: there is no such database. Check the path.")
    end_s = time.monotonic() + timeout_s
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, isolation_level=None)
        ) as database:
            database.text_factory = lambda data: data.decode("utf-8", "replace")
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
            database.execute("PRAGMA trusted_schema = OFF")  # a view may not call what does more than compute
            database.execute("BEGIN")
            database.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
            )
            database.set_progress_handler(lambda: time.monotonic() > end_s, STEPS)
            yield _SqliteRows(database, selection)
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise DocumentError(
                f"{path}: took longer than {timeout_s:g} s. Allow more with timeout_s."
            ) from None
        raise DocumentError(f"{path}: {error}. Check the file, the query and the columns' names.") from None


class _SqliteRows:
    def __init__(self, database: sqlite3.Connection, selection: Selection) -> None:
        self._database = database
        inner = f"({selection.query}\n)" if selection.query else _dotted(selection.table)
        self._from = f"FROM {inner} AS q"

    def select(
        self, columns: Sequence[str], order: Sequence[str], where: Mapping[str, Any] | None = None
    ) -> Iterator[Row]:
        # named by their table: SQLite takes a quoted name that it does not know for a text
        names = ", ".join(f"q.{_quoted(name)}" for name in columns)
        fits = " AND ".join(f"q.{_quoted(name)} = ?" for name in where or {})
        ordered = ", ".join(f"q.{_quoted(name)}" for name in order)
        statement = f"SELECT {names} {self._from} {f'WHERE {fits}' if fits else ''} ORDER BY {ordered}"
        for row in self._database.execute(statement, list((where or {}).values())):  # noqa: UP028
            yield row  # `yield from` would close the cursor, even after its database


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _dotted(name: str) -> str:
    return ".".join(map(_quoted, name.split(".")))


# --- other databases


def read_url(place: str) -> Any:
    """The place as SQLAlchemy's URL.

    Raises:
        RecipeError: It is none, or holds a password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        raise RecipeError(
            "sql: the place is no database's address. Expected a file, or one such as postgresql+psycopg://user@host/shop."
        ) from None
    secret = [name for name in url.query if re.search("pass|pwd|secret|token", name) and name != "passfile"]
    if url.password is not None or secret:
        raise RecipeError(
            f"sql: the place holds a password, which would be stored: {url.set(query={}).render_as_string()}. Leave it "
            "out, put it in an environment variable, and name that with password_env."
        )
    return url


@contextmanager
def database_rows(url: Any, password: str | None, selection: Selection, timeout_s: float) -> Generator[Rows]:
    """Rows of a database that SQLAlchemy reaches.

    Raises:
        Unsupported: Its driver is not installed.
        EndpointError: It cannot be reached, does not know the user, breaks off, or takes too long.
        RecipeError: It lacks what is selected.
    """
    import sqlalchemy
    from sqlalchemy import exc
    from sqlalchemy.pool import NullPool

    shown = url.render_as_string()
    try:
        engine = sqlalchemy.create_engine(
            url.set(password=password) if password else url, poolclass=NullPool, hide_parameters=True
        )
    except (exc.NoSuchModuleError, ImportError) as error:
        raise Unsupported(f"{shown}: its driver is not installed ({error}). Install it with pip.") from None
    try:
        with engine.connect() as connection:
            reading = _read_only(connection, timeout_s)
            rows = _DatabaseRows(reading, selection)
            try:
                yield rows
            finally:
                rows.close()
                reading.rollback()
    except exc.DBAPIError as error:
        said = " ".join(str(error.orig).split())[:500].replace(password or "\0", "…")
        if isinstance(error, exc.ProgrammingError):
            raise RecipeError(f"{shown}: {said}. Check the query and the columns' names.") from None
        raise EndpointError(f"{shown}: {said}. Check the address, the user and password_env.") from None
    except exc.SQLAlchemyError as error:
        raise RecipeError(f"{shown}: {' '.join(str(error).split())[:500]}. Check the settings.") from None


def _read_only(connection: Any, timeout_s: float) -> Any:
    """The connection, in a transaction that may only read, as far as the database knows that."""
    name = connection.dialect.name
    if name == "postgresql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")
    elif name in {"mysql", "mariadb"}:
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        connection.commit()
    elif name == "oracle":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    return connection.execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE)


class _DatabaseRows:
    def __init__(self, connection: Any, selection: Selection) -> None:
        self._connection, self._selection = connection, selection
        self._results: list[Any] = []

    def close(self) -> None:
        """Closes what was not read to its end."""
        for result in self._results:
            result.close()

    def select(
        self, columns: Sequence[str], order: Sequence[str], where: Mapping[str, Any] | None = None
    ) -> Iterator[Row]:
        import sqlalchemy

        source = self._source(list(dict.fromkeys([*columns, *order, *(where or {})])))
        statement = sqlalchemy.select(*(source.c[name] for name in columns))
        for name, value in (where or {}).items():
            statement = statement.where(source.c[name] == value)
        statement = statement.order_by(*(source.c[name] for name in order))
        result = self._connection.execute(statement)
        self._results.append(result)
        for row in result:
            yield tuple(row)
        self._results.remove(result)

    def _source(self, names: Sequence[str]) -> Any:
        import sqlalchemy

        columns = [sqlalchemy.column(name) for name in names]
        if not self._selection.query:
            schema, _, table = self._selection.table.rpartition(".")
            return sqlalchemy.table(table, *columns, schema=schema or None).alias("q")
        # a colon before a word would be taken for a value to be filled in
        literal = re.sub(r"(?<![:\w\\]):(?=\w)", r"\\:", self._selection.query)
        return sqlalchemy.text(f"{literal}\n").columns(*columns).subquery("q")
