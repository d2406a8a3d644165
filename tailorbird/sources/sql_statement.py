"""The words of an SQL statement: whether it only reads, and where values are bound in it.

This is for a clear error before anything is asked. What keeps a database as it is, whatever this misses, is
that it is opened read-only: see `sql_reading`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tailorbird.errors import RecipeError

MAX_CHARS = 100_000
_WRITING = frozenset(
    """alter analyze attach begin call checkpoint commit copy create deallocate delete detach discard do drop exec
    execute grant handler import insert into load lock merge notify pragma prepare refresh reindex rename reset
    revoke rollback savepoint set shutdown truncate unlisten update upsert use vacuum""".split()  # noqa: SIM905
)
_HIDDEN = re.compile(
    r"""'(?:[^']|'')*+'|"(?:[^"]|"")*+"|`(?:[^`]|``)*+`|\[[\w ]*\]|--(?!\S)[^\n]*|/\*(?!!).*?\*/""",
    re.DOTALL,
)
"""What is no code: texts, quoted names, comments. Comments that MySQL runs (`/*!`) are code, and so is there what
follows `--` without a space."""
_UNCLEAR = re.compile(r"""\\['"`]|\$\w*\$|#|/\*|--|['"`]""")
"""What databases read in different ways: escaped quotes, texts between dollars, `#`, and quotes left open."""
_BOUND = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)")


def check_reads_only(statement: str, where: str) -> str:
    """The statement without a closing semicolon: one SELECT, or WITH and a SELECT.

    Args:
        statement: SQL.
        where: What the error begins with.

    Raises:
        RecipeError: It is none, more than one, one that might write, or may mean different things.
    """
    if len(statement) > MAX_CHARS:
        raise _refused(where, f"has {len(statement):,} characters, more than {MAX_CHARS:,}")
    if found := re.search(r"\\['\"`]", statement):
        raise _refused(where, f"has an escaped quote ({found[0]}), which databases read in different ways")
    code = _HIDDEN.sub(" ", statement)
    if found := _UNCLEAR.search(code):
        raise _refused(where, f"has {found[0]!r}, which databases read in different ways")
    code = code.strip().rstrip("; \t\r\n")
    if ";" in code:
        raise _refused(where, "is more than one statement")
    words = re.findall(r"[a-z_]\w*", code.lower())
    if not words or words[0] not in {"select", "with"} or not code[0].isalpha():
        raise _refused(where, f"begins with {code.split()[0].upper()[:20] if code else 'nothing'}")
    if writing := next((word for word in words if word in _WRITING), ""):
        raise _refused(
            where, f"has the word {writing.upper()}, which may write; put it in double quotes if it is a name"
        )
    return re.sub(r"[;\s]+\Z", "", statement)


def _refused(where: str, why: str) -> RecipeError:
    return RecipeError(f"{where}: the query {why}. Expected one SELECT that only reads.")


def bound_names(statement: str) -> set[str]:
    """The names that a statement binds, such as `query` in `:query`; `::text` binds none.

    >>> sorted(bound_names("SELECT :words, ':k', a::text FROM pages WHERE body = :query"))
    ['query', 'words']
    """
    return set(_BOUND.findall(_HIDDEN.sub(" ' ", statement)))


def escaped(statement: str, names: Collection[str]) -> str:
    r"""The statement with a backslash before all colons that SQLAlchemy's `text` would take for a value but `names`.

    >>> print(escaped("SELECT ':k', tags[:n] FROM pages WHERE body = :k", ["k"]))
    SELECT '\:k', tags[\:n] FROM pages WHERE body = :k
    """
    parts, end = [], 0
    for hidden in _HIDDEN.finditer(statement):
        parts += [_escaped(statement[end : hidden.start()], names), _escaped(hidden[0], ())]
        end = hidden.end()
    return "".join([*parts, _escaped(statement[end:], names)])


def _escaped(part: str, names: Collection[str]) -> str:
    return re.sub(
        r"(?<![:\w\\]):(\w+)", lambda found: found[0] if found[1] in names else f"\\{found[0]}", part
    )
