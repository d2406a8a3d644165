"""A database as a source that is asked live, by a SELECT of the user's in which the question is a bound value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tailorbird.errors import DocumentError, EndpointError, RecipeError
from tailorbird.records import Document, Passage
from tailorbird.sources.keywords import match_any
from tailorbird.sources.live_passages import MAX_RESULTS, best_passages, document_at, sendable
from tailorbird.sources.sql_reading import Place, opened
from tailorbird.sources.sql_statement import bound_names, check_reads_only

WORDS = ("fts5", "tsquery", "like")
BOUND = ("query", "words", "k")
VALUE_BYTES = 2 * 2**20
"""The largest value that an SQLite database may make."""


@dataclass(frozen=True)
class SqlQuery:
    """Passages from the rows of a SELECT, in its order fused with BM25 over their texts.

    The SELECT names what it needs of `:query` (the question), `:words` (its words as the database's search takes
    them) and `:k` (how many rows). Its columns are `text`, and if it likes `id`, `title` and `score`, by which the
    rows are ordered, highest first; without it they are taken as they come.

    Args:
        database: the path of an SQLite file, or a URL as SQLAlchemy has it, with the name of an environment variable
            where the password goes: `postgresql://reader:$SHOP_PASSWORD@host/shop`.
        query: the SELECT.
        words: what `:words` is: an expression for SQLite's "fts5", one for PostgreSQL's to_tsquery ("tsquery"), or a
            pattern with the longest word for LIKE ("like").
        timeout_s: seconds that one question may take.

    Raises:
        RecipeError: the query is not one SELECT, asks for values that there aren't, or for none of the question.
    """

    database: str
    query: str
    words: str = "fts5"
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        check_reads_only(self.query, "sql_query")
        names = bound_names(self.query)
        Place(self.database, "sql_query", self.timeout_s, VALUE_BYTES)  # holds no password
        if self.words not in WORDS:
            raise RecipeError(f"sql_query: words is {self.words!r}; expected one of {', '.join(WORDS)}.")
        if unknown := sorted(names - set(BOUND)):
            raise RecipeError(
                f"sql_query: the query names :{unknown[0]}, and there is only :{', :'.join(BOUND)}. Correct the query."
            )
        if not names & {"query", "words"}:
            raise RecipeError(
                "sql_query: the query doesn't ask for the question. Put :words or :query where it goes."
            )

    def search(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages.

        Raises:
            NotFound: there is no such file.
            EndpointError: the database can't be read, refuses the query, takes too long, or gives no column `text`.
        """
        asked = sendable(query)
        words = words_for(self.words, asked)
        if k <= 0 or not asked or not words:
            return []
        columns, records = self._records({"query": asked, "words": words, "k": k})
        if "text" not in columns:
            raise EndpointError(
                f"sql_query: the query gives the columns {', '.join(columns) or 'of nothing'}, and no `text`. "
                "Name it so: SELECT body AS text."
            )
        if "score" in columns:
            records.sort(key=_score, reverse=True)
        place = self.database.rpartition("/")[2].partition("?")[0] or "database"
        found = (_document(record, place, number) for number, record in enumerate(records, 1))
        return best_passages([document for document in found if document], query, k)

    def _records(self, values: dict[str, Any]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """The columns' names in lower case, and the first rows by them."""
        place = Place(self.database, "sql_query", self.timeout_s, VALUE_BYTES)
        bound = {name: values[name] for name in sorted(bound_names(self.query))}
        try:
            with opened(place) as reading:
                named, rows = reading.ask(self.query, bound)
                columns = tuple(name.lower() for name in named)
                return columns, [dict(zip(columns, row, strict=True)) for row in islice(rows, MAX_RESULTS)]
        except (DocumentError, RecipeError) as error:
            raise EndpointError(str(error)) from None  # nothing of the settings that could be known before


def words_for(form: str, query: str) -> str:
    """A question's words as a database's search takes them; whatever the question, it is well-formed.

    >>> [words_for(form, "Is the card lost?") for form in WORDS]
    ['"card" OR "lost"', 'card | lost', '%card%']
    """
    expression = match_any(query)
    terms = re.findall(r'"([^"]+)"', expression)
    if form == "fts5":
        return expression
    if form == "tsquery":
        return " | ".join(terms)
    longest = max(terms, key=len, default="")
    return f"%{longest}%" if longest else ""


def _document(record: dict[str, Any], place: str, number: int) -> Document | None:
    text, title, name = (record.get(key) for key in ("text", "title", "id"))
    id_text = str(number) if name is None else str(name)
    id_ = id_text if "://" in id_text else f"{place}#{id_text}"
    return document_at(id_, _text(text), _text(title))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _score(record: dict[str, Any]) -> float:
    try:
        return float(record["score"])
    except (TypeError, ValueError):
        return float("-inf")
