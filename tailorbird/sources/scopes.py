"""Who may read a document and what it is chosen by, as terms that every index holds and every search asks for.

A document has a term for each group that may read it and one for each of its facts; a scope is a list of clauses, of
each of which a document must have at least one term. So whatever ranks passages, SQLite, tantivy or a vector store on
another machine, it needs one column of terms to keep to access rules while it searches.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.errors import InputError
from tailorbird.records import Document, Reader, Scope

Clauses = tuple[tuple[str, ...], ...]

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Rules:
    """The tenant, the groups that may read, and the facts, of a document or of all that come from one place.

    `access` None: nobody but the owner may read it; empty: everyone of the tenant.
    """

    tenant: str = ""
    access: tuple[str, ...] | None = ()
    facts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        # What connectors of others give need not be of the types that it should be.
        pairs: list[object] = [part for pair in self.facts for part in pair]
        for text in (self.tenant, *(self.access or ()), *pairs):
            if not isinstance(text, str) or _CONTROL.search(text):
                raise InputError(
                    f"{text!r} can't be a tenant, a group or a fact: expected a text without control characters. "
                    "Change it where the document's rules are set."
                )
        empty = "" in (self.access or ()) or any(not name for name, _ in self.facts)
        if empty:
            raise InputError(
                f"access {self.access}, facts {self.facts}: a group or a fact has no name. Name it, or leave it out."
            )

    @classmethod
    def of(cls, document: Document) -> Rules:
        """Those that a document brings.

        Raises:
            InputError: A name can't be used.
        """
        return cls(document.tenant, tuple(document.access), tuple((n, v) for n, v in document.facts))

    def narrowed(self, by: Rules) -> Rules:
        """With those of the place it comes from: who may read must be allowed by both; it has the facts of both."""
        tenant, access = self.tenant or by.tenant, self.access
        if self.access is None or by.access is None or (by.tenant and by.tenant != tenant):
            access = None
        elif by.access:
            both = tuple(group for group in self.access or by.access if group in by.access)
            access = both or None
        return Rules(tenant, access, tuple(dict.fromkeys((*self.facts, *by.facts))))

    def terms(self) -> tuple[str, ...]:
        """What a document of these rules is found by, each once."""
        if self.access is None:
            readers: list[str] = []
        else:
            readers = [_term("read", self.tenant, group) for group in self.access or ("",)]
        return tuple(dict.fromkeys((*readers, *(_term("fact", *pair) for pair in self.facts))))

    def to_json(self) -> str:
        """As it is stored; equal rules give equal texts."""
        access = None if self.access is None else sorted(set(self.access))
        facts = sorted({(name, value) for name, value in self.facts})
        return json.dumps([self.tenant, access, facts], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """What `to_json` gave."""
        tenant, access, facts = json.loads(text)
        return cls(tenant, None if access is None else tuple(access), tuple((n, v) for n, v in facts))


NO_RULES = Rules()
"""Everyone of the one tenant that has no name may read it; it has no facts."""
OPEN = '["read","",""]'
"""The only term of a document without rules."""


def clauses(scope: Scope) -> Clauses:
    """Of each clause a document must have a term; the pattern of its id is not among them.

    Raises:
        InputError: A fact has no name.
    """
    found: list[tuple[str, ...]] = []
    if scope.reader is not None:
        found.append(_read_terms(scope.reader))
    values: dict[str, list[str]] = {}
    for name, value in scope.facts:
        if not name:
            raise InputError(f"facts {scope.facts}: a fact has no name. Give it as NAME=VALUE.")
        values.setdefault(name, []).append(_term("fact", name, value))
    found += [tuple(dict.fromkeys(terms)) for terms in values.values()]
    return tuple(found)


def allowed_documents(scope: Scope) -> tuple[str, list[Any]]:
    """A condition on a column `document`, in SQL, and its values."""
    conditions, values = ["1"], []
    for terms in clauses(scope):
        marks = ", ".join("?" * len(terms))
        conditions.append(f"document IN (SELECT document FROM document_terms WHERE term IN ({marks}))")  # noqa: S608
        values += terms
    if scope.documents:
        conditions.append("document GLOB ?")
        values.append(scope.documents)
    return " AND ".join(conditions), values


def stale_rules(connection: sqlite3.Connection, connector: str, rules: Rules) -> list[tuple[str, str]]:
    """The connector's documents whose rules in force are not what theirs and the place's, `rules`, make: id, rules."""
    rows = connection.execute("SELECT id, own, rules FROM documents WHERE connector = ?", (connector,))
    made: dict[str, str] = {}
    stale: list[tuple[str, str]] = []
    for document, own, in_force in rows:
        if own not in made:
            made[own] = Rules.from_json(own).narrowed(rules).to_json()
        if made[own] != in_force:
            stale.append((document, made[own]))
    return stale


def put_in_force(connection: sqlite3.Connection, stale: Sequence[tuple[str, str]]) -> int:
    """Give documents their rules, within the caller's transaction; returns how many of them had others before."""
    others = 0
    for document, rules in stale:
        (before,) = connection.execute("SELECT rules FROM documents WHERE id = ?", (document,)).fetchone()
        connection.execute("UPDATE documents SET rules = ? WHERE id = ?", (rules, document))
        connection.execute("DELETE FROM document_terms WHERE document = ?", (document,))
        terms = [(document, term) for term in Rules.from_json(rules).terms()]
        connection.executemany("INSERT INTO document_terms (document, term) VALUES (?, ?)", terms)
        if before:
            others += 1
            for table in ("word_changes", "vector_changes"):
                connection.execute(
                    f"INSERT OR REPLACE INTO {table} (number) SELECT number FROM passages WHERE document = ?",  # noqa: S608
                    (document,),
                )
    return others


def _read_terms(reader: Reader) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_term("read", reader.tenant, group) for group in ("", *reader.groups)))


def _term(*parts: str) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
