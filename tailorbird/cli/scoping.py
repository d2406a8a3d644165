"""The options that say who may read documents, who asks, and what documents are chosen by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from tailorbird.errors import InputError
from tailorbird.records import Reader, Scope

Tenant = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Whose they are; no other tenant finds them.")
]
Access = Annotated[
    str | None,
    typer.Option(
        "--access", metavar="A,B", help="The groups that may read them; '' is everyone of the tenant."
    ),
]
Facts = Annotated[
    list[str] | None,
    typer.Option("--fact", metavar="NAME=VALUE", help="What to choose them by; may be given several times."),
]
AskedTenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Find only what readers of this tenant may read."),
]
AskedGroups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME", help="The reader's groups; may be given several times."),
]
AskedFacts = Annotated[
    list[str] | None,
    typer.Option(
        "--fact", metavar="NAME=VALUE", help="Find only documents of this fact; may be given several times."
    ),
]
AskedDocuments = Annotated[
    str, typer.Option("--documents", metavar="PATTERN", help="Find only documents of such ids: 'faq/*'.")
]


def read_facts(texts: Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    """Facts given as NAME=VALUE.

    Raises:
        InputError: One has no `=`, or no name.
    """
    found: list[tuple[str, str]] = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--fact {text!r} is no fact; expected NAME=VALUE, such as kind=faq.")
        found.append((name.strip(), value.strip()))
    return tuple(found)


def read_access(text: str | None) -> tuple[str, ...] | None:
    """Groups given with commas between them; None where nothing is said.

    Raises:
        InputError: A group has no name; only nothing at all is everyone.
    """
    if text is None or not text.strip():
        return None if text is None else ()
    groups = tuple(part.strip() for part in text.split(","))
    if "" in groups:
        raise InputError(
            f"--access {text!r}: a group has no name. Give names apart by commas, or '' for everyone."
        )
    return groups


def read_scope(
    tenant: str | None, groups: Sequence[str] | None, facts: Sequence[str] | None, documents: str
) -> Scope | None:
    """What was asked for; None where nothing is said, which is the owner asking of everything."""
    reader = Reader(tenant or "", tuple(groups or ())) if tenant is not None or groups else None
    found = Scope(reader, read_facts(facts), documents)
    return None if found == Scope() else found
