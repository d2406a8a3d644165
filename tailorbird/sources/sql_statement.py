"""Whether an SQL statement only reads: one SELECT, or WITH and a SELECT.

This is for a clear error before anything is asked. What keeps a database as it is, whatever this misses, is
that it is opened read-only: see `database_rows`.
"""

from __future__ import annotations

import re

from tailorbird.errors import RecipeError

MAX_CHARS = 100_000
_WRITING = frozenset(
    """alter analyze attach begin call checkpoint commit copy create deallocate delete detach discard do drop exec
    execute grant handler import insert into load lock merge notify pragma prepare refresh reindex rename reset
    revoke rollback savepoint set shutdown truncate unlisten update upsert use vacuum""".split()  # noqa: SIM905
)
_HIDDEN = re.compile(
    r"""'(?:[^']|'')*+'|"(?:[^"]|"")*+"|`(?:[^`]|``)*+`|--[^\n]*|/\*(?!!).*?\*/""", re.DOTALL
)
"""What is no code: texts, quoted names, comments. Comments that MySQL runs (`/*!`) are code."""
_UNCLEAR = re.compile(r"""\\['"`]|\$\w*\$|#|/\*|['"`]""")
"""What databases read in different ways: escaped quotes, texts between dollars, `#`, and quotes left open."""


def check_reads_only(statement: str) -> str:
    """The statement without a closing semicolon.

    Raises:
        RecipeError: It is none, more than one, one that might write, or may mean different things.
    """
    if len(statement) > MAX_CHARS:
        raise _refused(f"has {len(statement):,} characters, more than {MAX_CHARS:,}")
    if found := re.search(r"\\['\"`]", statement):
        raise _refused(f"has an escaped quote ({found[0]}), which databases read in different ways")
    code = _HIDDEN.sub(" ", statement)
    if found := _UNCLEAR.search(code):
        raise _refused(f"has {found[0]!r}, which databases read in different ways")
    code = code.strip().rstrip("; \t\r\n")
    if ";" in code:
        raise _refused("is more than one statement")
    words = re.findall(r"[a-z_]\w*", code.lower())
    if not words or words[0] not in {"select", "with"}:
        raise _refused(f"begins with {words[0].upper() if words else 'nothing'}")
    if writing := next((word for word in words if word in _WRITING), ""):
        raise _refused(
            f"has the word {writing.upper()}, which may write; put it in double quotes if it is a name"
        )
    return re.sub(r"[;\s]+\Z", "", statement)


def _refused(why: str) -> RecipeError:
    return RecipeError(f"sql: the query {why}. Expected one SELECT that only reads.")
