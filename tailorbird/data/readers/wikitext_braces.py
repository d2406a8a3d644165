"""What of wikitext is no text of the page: comments, references, templates; and what is no wikitext: formulas, code.

One pass over the text, in time that grows with its length and no faster, before a parser sees it: what
is nested here, and most of what a page is made of, is never parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tailorbird.data.markup import fenced

# a page may hold these characters only where we put them: around the number of a kept piece
_OPEN, _CLOSE = "\ue000", "\ue001"
_RESERVED = re.compile("[\ue000-\ue003]")
_KEPT = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

_DROPPED = (
    *("categorytree", "charinsert", "gallery", "graph", "hiero", "imagemap", "indicator", "inputbox"),
    *("mapframe", "maplink", "ref", "references", "score", "section", "templatedata", "templatestyles"),
    "timeline",
)
_CODE = ("pre", "source", "syntaxhighlight")
_FORMULAS = ("ce", "chem", "math")
_RAW = (*_DROPPED, *_CODE, *_FORMULAS, "nowiki")
"""Elements in which wikitext is not wikitext, or which show nothing that is text of the page."""

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TOKEN = re.compile(rf"<(/?)({'|'.join(_RAW)})\b([^<>]{{0,2000}})>|(\{{\{{)|(\}}\}})", re.IGNORECASE)
_LANGUAGE = re.compile(r"""lang\s*=\s*["']?([\w+#-]{1,30})""")

MOST_LEVELS = 40
"""Templates in templates deeper than this show nothing: MediaWiki gives up at about the same depth."""


class Pieces:
    """Text that no parser may touch, each piece kept under a number until the rest is done."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def keep(self, text: str) -> str:
        """What stands in the text's place until then."""
        self._texts.append(text)
        return f"{_OPEN}{len(self._texts) - 1}{_CLOSE}"

    def put_back(self, text: str) -> str:
        """The text with the pieces in it; a piece may hold others that were kept before it."""
        return _KEPT.sub(lambda found: self.put_back(self._texts[int(found[1])]), text)


def without_braces(text: str, pieces: Pieces) -> str:
    """Wikitext without comments, references and templates; formulas, code and `nowiki` are in `pieces`.

    Of templates only those stay that wrap words of a sentence, such as `{{lang|de|Haus}}`. Braces that
    are not closed are left out and what follows them stays.
    """
    text = _COMMENT.sub("", _RESERVED.sub("", text))
    closed = _last_closings(text)
    opened: list[list[str]] = [[]]
    at = raw_until = 0
    for found in _TOKEN.finditer(text):
        if found.start() < raw_until:
            continue
        opened[-1].append(text[at : found.start()])
        at = found.end()
        closing, name, attributes, begins, ends = found.groups()
        if begins:
            opened.append([])
        elif ends:
            if len(opened) > 1:
                inner = "".join(opened.pop())
                opened[-1].append(_shown(inner) if len(opened) <= MOST_LEVELS else "")
        elif not closing and not attributes.endswith("/") and closed.get(name.lower(), -1) > at:
            end = _closing(name).search(text, at)
            assert end
            opened[-1].append(_kept(name.lower(), attributes, text[at : end.start()], pieces))
            at = raw_until = end.end()
    opened[-1].append(text[at:])
    return "".join(part for level in opened for part in level)


def _closing(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}\s*>", re.IGNORECASE)


def _last_closings(text: str) -> dict[str, int]:
    """Where the last closing tag of each raw element begins: one that is never closed holds nothing."""
    found = re.finditer(rf"</({'|'.join(_RAW)})\s*>", text, re.IGNORECASE)
    return {closing[1].lower(): closing.start() + 1 for closing in found}


def _kept(name: str, attributes: str, inner: str, pieces: Pieces) -> str:
    if name in _DROPPED:
        return ""
    if name in _CODE:
        language = _LANGUAGE.search(attributes)
        return f"\n\n{pieces.keep(fenced(inner, language[1] if language else ''))}\n\n"
    return pieces.keep(" ".join(inner.split()) if name in _FORMULAS else inner)


# --- templates that wrap words


def _shown(inner: str) -> str:
    """What a template shows, if it is one of the few that only dress words up."""
    name, *rest = _arguments(inner)
    name = name.strip().lower().replace("_", " ")
    show = _first if name.startswith("lang-") else _SHOWN.get(name)
    if show is None:
        return ""
    return show([value.strip() for value in rest if not re.match(r"\s*[\w -]{1,40}=", value)])


def _arguments(inner: str) -> list[str]:
    """Cut at the bars that are not inside a link."""
    if "[[" not in inner:
        return inner.split("|")
    parts: list[list[str]] = [[]]
    depth = 0
    for piece in re.split(r"(\[\[|\]\]|\|)", inner):
        if piece == "|" and depth <= 0:
            parts.append([])
            continue
        depth += (piece == "[[") - (piece == "]]")
        parts[-1].append(piece)
    return ["".join(part) for part in parts]


def _first(values: Sequence[str]) -> str:
    return values[0] if values else ""


def _second(values: Sequence[str]) -> str:
    return values[1] if len(values) > 1 else ""


def _last(values: Sequence[str]) -> str:
    return values[-1] if values else ""


def _quantity(values: Sequence[str]) -> str:
    """`{{convert|5|to|10|km|mi}}` is `5 to 10 km`."""
    if len(values) > 3 and values[1] in {"-", "–", "and", "by", "or", "to", "x", "±"}:
        return " ".join(values[:4])
    return " ".join(values[:2])


_SHOWN: dict[str, Callable[[Sequence[str]], str]] = {
    "!": lambda _values: "|",
    "=": lambda _values: "=",
    **dict.fromkeys(("abbr", "big", "em", "nobr", "nobold", "noitalic", "nowrap", "small", "strong"), _first),
    **dict.fromkeys(("blockquote", "cquote", "quote", "quotation", "sic", "tooltip", "verse"), _first),
    **dict.fromkeys(("langx", "lang"), _second),
    **dict.fromkeys(("script", "translit", "transl", "transliteration"), _last),
    **dict.fromkeys(("convert", "cvt", "val"), _quantity),
    **dict.fromkeys(("c.", "ca.", "circa"), lambda values: f"c. {_first(values)}".strip()),
    **dict.fromkeys(("frac", "fraction", "sfrac"), "/".join),
    **dict.fromkeys(("snd", "spnd", "spaced ndash"), lambda _values: " – "),
    "as of": lambda values: f"As of {' '.join(values)}",
}
"""By a template's name in small letters, what it shows of its unnamed values: the same in most wikis."""
