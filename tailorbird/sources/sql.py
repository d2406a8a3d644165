"""Rows of a database as a connector."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tailorbird.data.documents import (
    Unchanged,
    Unreadable,
    clean_text,
    document_from_bytes,
    first_heading,
    reading_version,
)
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, RecipeError
from tailorbird.records import Document, content_hash
from tailorbird.sources.database_rows import Rows, Selection
from tailorbird.sources.sql_reading import Place, Row, opened
from tailorbird.sources.sql_statement import check_reads_only
from tailorbird.sources.web_reading import reason_of, words_of

TextKind = Literal["text", "markdown", "html"]
_SUFFIXES = {"text": ".txt", "markdown": ".md", "html": ".html"}
_FIELD = re.compile(r"\{([^{}]+)\}")
ONE_BY_ONE = 1_000
"""Changed rows up to this many are asked for one by one; of more the whole is read."""
VALUE_BYTES = 256 * 2**20
"""The largest value of an SQLite database that is loaded."""


@dataclass(frozen=True)
class SqlRows:
    """The rows of a table or of a query, each a document: its id is the label and the row's id.

    Args:
        place: An SQLite file, also as `sqlite:///shop.db`, or a database's address as SQLAlchemy has it, such as
            `postgresql+psycopg://reader@db.example/shop`; never with a password, but its variable may be named there,
            as `reader:$SHOP_PASSWORD@`.
        selection: The table or the query.
        ids: Columns whose values name a row; no two rows have the same.
        texts: Columns that hold the text; of several each value is on a line of its own behind the column's name.
        template: In place of `texts`: a text with columns' names in braces, such as `# {name}` and `{body}`.
        title: The column that holds the title.
        text_kind: How texts are written; `html` is read as a web page is.
        label: Begins every id; by default the table's name.
        password_env: The environment variable that holds the password.
        timeout_s: Seconds that reading may take: of SQLite in all, of PostgreSQL for one statement.

    Raises:
        RecipeError: The settings make no sense, the query may write, or the place holds a password.
        Unsupported: The place needs SQLAlchemy, which is not installed.
    """

    place: str
    selection: Selection
    ids: tuple[str, ...]
    texts: tuple[str, ...] = ()
    template: str = ""
    title: str = ""
    text_kind: TextKind = "text"
    label: str = ""
    password_env: str = ""
    timeout_s: float = 600.0

    complete = True

    def __post_init__(self) -> None:
        if bool(self.selection.table) == bool(self.selection.query):
            raise RecipeError("sql: expected either table or query. Give one of them.")
        if self.selection.query:  # also where no plug-in made it
            check_reads_only(self.selection.query, "sql")
        if not self.ids or bool(self.texts) == bool(self._fields):
            raise RecipeError(
                f"sql: got id {', '.join(self.ids)!r}, text {', '.join(self.texts)!r} and template {self.template!r}; "
                "expected the id's column, and either the text's columns or a template with columns in braces."
            )
        if self.text_kind not in get_args(TextKind) or self.timeout_s <= 0:
            raise RecipeError(
                f"sql: got text_kind {self.text_kind!r} and timeout_s {self.timeout_s:g}; expected one of "
                f"{', '.join(get_args(TextKind))}, and more than 0."
            )
        if not self.label and self.selection.query:
            raise RecipeError(
                "sql: a query's rows need a name for their ids. Give a label, such as label=orders."
            )
        self._place.check_address()

    @property
    def name(self) -> str:
        return f"sql:{self.place}#{self._label}"

    @property
    def _label(self) -> str:
        return self.label or self.selection.table

    @property
    def _fields(self) -> tuple[str, ...]:
        """Columns that the template names."""
        return tuple(dict.fromkeys(_FIELD.findall(self.template)))

    @property
    def _columns(self) -> tuple[str, ...]:
        """What is selected of a row: its id, then what its document is made of."""
        return (*self.ids, *(self.texts or self._fields), *((self.title,) if self.title else ()))

    def documents(self) -> Iterator[Document | Unreadable | Unchanged]:
        """Every row, or why it gives no document.

        Raises:
            NotFound: There is no such database, or the variable `password_env` is not set.
            DocumentError, EndpointError, RecipeError: It cannot be read; an index then keeps what it has.
        """
        with self._rows() as rows, ParserProcess() as parser:
            for row in self._unique(rows.select(self._columns, self.ids)):
                yield self._item(row, parser)

    @property
    def _place(self) -> Place:
        return Place(self.place, "sql", self.timeout_s, VALUE_BYTES, self.password_env)

    @contextmanager
    def _rows(self) -> Generator[Rows]:
        with opened(self._place, streamed=True) as reading:
            yield Rows(reading, self.selection)

    def _unique(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, which come by id, if no two have the same."""
        before = None
        for row in rows:
            key = row[: len(self.ids)]
            if key == before:
                if None in key:
                    continue  # refused once, by the one id that all of them have
                raise DocumentError(
                    f"{self.name}: two rows have the id {self._id(key)!r}. Name more columns as id, comma between them."
                )
            before = key
            yield row

    def _id(self, key: Row) -> str:
        parts = [clean_text(str(value)) for value in key]
        if len(parts) > 1:  # ("a/b", "c") and ("a", "b/c") are different rows
            parts = [part.replace("%", "%25").replace("/", "%2F") for part in parts]
        return "/".join([self._label, *parts])

    def _item(self, row: Row, parser: ParserProcess, version: str = "") -> Document | Unreadable:
        id = self._id(row[: len(self.ids)])  # noqa: A001  -- the record's own word
        if None in row[: len(self.ids)]:
            return self._without_id(row[: len(self.ids)])
        values = dict(zip(self._columns, row, strict=True))
        binary = next((name for name, value in values.items() if isinstance(value, bytes | memoryview)), "")
        if binary:
            return Unreadable(id, f"column {binary!r} holds bytes. Name columns that hold text.")
        text = self._text(values)
        if len(text) > parser.limits.chars:
            return Unreadable(id, f"has {len(text):,} characters; at most {parser.limits.chars:,} are read.")
        try:
            data = text.encode("utf-8", "replace")
            document = document_from_bytes(id, data, _SUFFIXES[self.text_kind], parser)
        except DocumentError as error:
            return Unreadable(id, reason_of(id, error))
        title = clean_text(_shown(values[self.title])) if self.title else first_heading(document.text)
        return replace(document, title=title, version=version or document.version)

    def _without_id(self, key: Row) -> Unreadable:
        return Unreadable(self._id(key), "the row's id is NULL. Name a column that always has a value.")

    def _text(self, values: Mapping[str, Any]) -> str:
        if self.template:
            return _FIELD.sub(lambda found: _shown(values[found[1]]), self.template)
        if len(self.texts) == 1:
            return _shown(values[self.texts[0]])
        shown = ((name, _shown(values[name])) for name in self.texts)
        return "\n".join(f"{name}: {value}" for name, value in shown if value)


@dataclass(frozen=True)
class VersionedSqlRows(SqlRows):
    """Rows with a column that changes whenever a row does, such as a time or a number: only changed ones are read.

    Args:
        version: That column.
    """

    version: str = ""

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*super()._columns, self.version)

    @property
    def reading(self) -> str:
        """Changes wherever rows become other documents than before."""
        made = [
            self.texts,
            self.template,
            self.title,
            self.text_kind,
            self.selection.table,
            self.selection.query,
        ]
        return content_hash([reading_version(), *map(str, made)])

    def _item(self, row: Row, parser: ParserProcess, version: str = "") -> Document | Unreadable:
        return super()._item(row, parser, version or _shown(row[-1]))

    def changes(self, known: Mapping[str, str]) -> Iterator[Document | Unreadable | Unchanged]:
        """As `documents`, but of rows of the version that is known only id and version are asked for."""
        if not known:
            yield from self.documents()
            return
        with self._rows() as rows, ParserProcess() as parser:
            told = list(self._unique(rows.select((*self.ids, self.version), self.ids)))
            if sum(not self._is_known(row, known) for row in told) > ONE_BY_ONE:
                told = rows.select(self._columns, self.ids)
            for row in told:
                key = row[: len(self.ids)]
                if self._is_known(row, known):
                    yield Unchanged(self._id(key))
                elif len(row) == len(self._columns):
                    yield self._item(row, parser)
                elif None in key:
                    yield self._without_id(key)
                else:
                    whole = rows.select(self._columns, self.ids, dict(zip(self.ids, key, strict=True)))
                    yield from (self._item(found, parser) for found in whole)

    def _is_known(self, row: Row, known: Mapping[str, str]) -> bool:
        version = _shown(row[-1])
        return bool(version) and known.get(self._id(row[: len(self.ids)])) == version


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def sql_at(
    place: str,
    *,
    id: str | Sequence[str] = (),  # noqa: A002  -- the setting's name
    text: str | Sequence[str] = (),
    version: str = "",
    table: str = "",
    query: str = "",
    **rest: Any,
) -> SqlRows:
    """The rows at a place, as the plug-in `sql`; several columns are words apart by commas."""
    selection = Selection(table, check_reads_only(query, "sql") if query else "")
    ids, texts = words_of(id), words_of(text)
    if version:
        return VersionedSqlRows(place, selection, ids, texts, version=version, **rest)
    return SqlRows(place, selection, ids, texts, **rest)
