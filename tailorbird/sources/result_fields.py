"""Where the results stand in an answer of JSON: paths of names apart by dots, through lists too."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tailorbird.errors import EndpointError
from tailorbird.records import Document
from tailorbird.sources.live_passages import MAX_RESULTS, document_at

MAX_PARTS = 20
"""Texts of one result that are joined where its path leads to several."""
_HIGHLIGHT = re.compile(r"""</?(?:b|em|i|mark|span|strong)(?: [\w-]+="[^"<>]*")*>""", re.IGNORECASE)
"""By which searches mark the words that they found."""


def found_at(value: Any, path: str) -> list[Any]:
    """What stands at a path; a list on the way stands for each of its items, and a number for one of them.

    >>> found_at({"hits": [{"name": "a"}, {"name": "b"}]}, "hits.name")
    ['a', 'b']
    >>> found_at({"hits": [{"name": "a"}, {"name": "b"}]}, "hits.1.name")
    ['b']
    """
    found = [value]
    for step in filter(None, path.split(".")):
        found = [inner for item in found for inner in _inside(item, step)]
    return [inner for item in found for inner in (item if isinstance(item, list) else [item])]


def _inside(value: Any, step: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if step in value:
            yield value[step]
    elif isinstance(value, list):
        if step.isdecimal():
            yield from value[int(step[:9]) :][:1]
        else:
            for item in value:
                yield from _inside(item, step)


@dataclass(frozen=True)
class ResultFields:
    """Where an answer holds its results, and each of these its parts.

    `results` is a path in the answer, the others are paths in a result. A result without a link is named by
    its place in the answer.
    """

    results: str
    text: tuple[str, ...]
    title: str
    link: str

    def documents(self, answer: Any, place: str) -> list[Document]:
        """The results that hold a text, in the answer's order; `place` names those without a link.

        Several may have the same link, such as parts of one page; the same text at the same link stands once.

        Raises:
            EndpointError: there is nothing at the path of results, or no result has one of the parts.
        """
        listed = found_at(answer, self.results)
        if not listed and not self._is_there(answer):
            raise EndpointError(
                f"{place}: the answer holds nothing at {self.results!r}; it has {_names(answer)}. Correct the setting "
                "`results`."
            )
        given = [item for item in listed[:MAX_RESULTS] if item is not None]
        found: dict[tuple[str, str], Document] = {}
        for number, result in enumerate(given, 1):
            text = "\n".join(part for path in self.text for part in _texts(result, path))
            title = next(_texts(result, self.title), "")
            link = next(_texts(result, self.link), "") or f"{place}#{number}"
            document = document_at(link, text, title)
            if document is not None:
                found.setdefault((document.id, document.text), document)
        if given and not found:
            raise EndpointError(
                f"{place}: no result holds a text at {', '.join(map(repr, self.text))}; the first has "
                f"{_names(given[0])}. Correct the setting `text`."
            )
        return list(found.values())

    def _is_there(self, answer: Any) -> bool:
        """Whether the path ends at an empty list, or at nothing in an answer that says so: no hits."""
        *above, last = self.results.split(".")
        holders = found_at(answer, ".".join(above)) if above else [answer]
        return any(isinstance(holder, dict) and last in holder for holder in holders) or answer == []


def parsed(body: bytes, place: str, kind: str = "") -> Any:
    """An answer as JSON.

    Raises:
        EndpointError: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise EndpointError(
            f"{place}: the answer is no JSON ({reason}); it calls itself {kind or 'nothing'}. Check the address."
        ) from None


def _texts(result: Any, path: str) -> Iterator[str]:
    if not path:
        return
    for part in found_at(result, path)[:MAX_PARTS]:
        if isinstance(part, str) and part.strip():
            yield _unmarked(part).strip()
        elif isinstance(part, int | float) and not isinstance(part, bool):
            yield str(part)


def _unmarked(text: str) -> str:
    """The text without marks, and where it had some, which makes it HTML, with the characters that entities stand for.

    >>> _unmarked("a <strong>lost</strong> card &amp; more"), _unmarked("if a <b and b> c: &amp;")
    ('a lost card & more', 'if a <b and b> c: &amp;')
    """
    bare = _HIGHLIGHT.sub("", text)
    return text if bare == text else html.unescape(bare)


def _names(value: Any) -> str:
    if isinstance(value, dict):
        return f"the keys {', '.join(map(repr, list(value)[:10])) or 'of nothing'}"[:300]
    return f"a {type(value).__name__}"
