"""For whom a request is asked, and of what: the field `tailorbird` of a chat completion request -> a `Scope`.

Whoever holds the server's key is the owner, who may read everything; a program that serves others says here for whom
it asks, as it knows them:

    {"tailorbird": {"tenant": "acme", "groups": ["staff"], "facts": {"kind": ["faq"]}, "documents": "faq/*"}}
"""

from __future__ import annotations

from typing import Any

from tailorbird.records import Reader, Scope
from tailorbird.server.failures import Refusal

FIELDS = ("tenant", "groups", "facts", "documents")
MOST_CHARS = 1_000
MOST_NAMES = 100


def read_scope(value: Any) -> Scope | None:
    """What part of the knowledge may answer; None where nothing is said, which is all of it.

    A null in it is refused: a program that doesn't know for whom it asks must not be answered as the owner.

    Raises:
        Refusal: it is of another form, or has a field that isn't known.
    """
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise _refused("tailorbird", value, f"an object with {', '.join(FIELDS)}")
    if unknown := [key for key in value if key not in FIELDS]:
        raise Refusal(
            f"tailorbird.{unknown[0][:200]}: not known. Known: {', '.join(FIELDS)}. Check the spelling: who may read "
            "what is never guessed.",
            param="tailorbird",
            code="unsupported_parameter",
        )
    reader = None
    if "tenant" in value or "groups" in value:
        reader = Reader(_text("tenant", value.get("tenant", "")), _texts("groups", value.get("groups", [])))
    return Scope(reader, _facts(value.get("facts", {})), _text("documents", value.get("documents", "")))


def _facts(value: Any) -> tuple[tuple[str, str], ...]:
    """Each name with each of its values, of which a document must have one."""
    if not isinstance(value, dict) or len(value) > MOST_NAMES:
        raise _refused("tailorbird.facts", value, 'an object such as {"kind": "faq"}')
    found: list[tuple[str, str]] = []
    for name, given in value.items():
        values = _texts(f"facts.{name[:200]}", [given] if isinstance(given, str) else given)
        if not name or not values:
            raise _refused(f"tailorbird.facts.{name[:200]}", given, "a name with a text or a list of texts")
        found += [(name, text) for text in values]
    return tuple(found)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MOST_NAMES:
        raise _refused(f"tailorbird.{name}", value, f"a list of at most {MOST_NAMES} texts")
    return tuple(_text(name, text) for text in value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_CHARS or not value.isprintable():
        raise _refused(f"tailorbird.{name}", value, f"a text of at most {MOST_CHARS} characters")
    return value


def _refused(name: str, value: Any, expected: str) -> Refusal:
    return Refusal(f"{name}: got {str(value)[:80]!r}; expected {expected}.", param="tailorbird")
