"""Rows of a table or of a query, column by column, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.sources.sql_reading import Reading, Row


@dataclass(frozen=True)
class Selection:
    """What is selected: rows of a table, `schema.table` too, or of a query that was checked."""

    table: str = ""
    query: str = ""


@dataclass(frozen=True)
class Rows:
    """Reads from one selection."""

    reading: Reading
    selection: Selection

    def select(
        self, columns: Sequence[str], order: Sequence[str], where: Mapping[str, Any] | None = None
    ) -> Iterator[Row]:
        """The columns' values, row by row, ordered; with `where` only of rows that have these values."""
        # named by their table: SQLite takes a quoted name that it does not know for a text
        values = {f"tailorbird_{number}": value for number, value in enumerate((where or {}).values())}
        fits = " AND ".join(
            f"{self._of(name)} = :{bound}" for name, bound in zip(where or {}, values, strict=True)
        )
        named, ordered = ", ".join(map(self._of, columns)), ", ".join(map(self._of, order))
        where_fits = f"WHERE {fits}" if fits else ""
        statement = f"SELECT {named} FROM {self._inner()} q {where_fits} ORDER BY {ordered}"  # noqa: S608 - quoted
        _, rows = self.reading.ask(statement, values)
        for row in rows:  # noqa: UP028
            yield row  # `yield from` would close the cursor, even after its database

    def _of(self, column: str) -> str:
        return f"q.{self.reading.quoted(column)}"

    def _inner(self) -> str:
        if self.selection.query:
            return f"({self.selection.query}\n)"
        return ".".join(map(self.reading.quoted, self.selection.table.split(".")))
