"""Whether a reader of a page would not see an element: text hidden there is meant for machines.

Read are attributes and the element's own style: `hidden`, `aria-hidden`; `display: none`, `visibility`,
`content-visibility`; letters and boxes of no size, clipped to nothing, moved off the page or scaled to
nothing; text without colour, or in the colour of its background. Style sheets are not read, nor is what
lies above what: a class can hide text that stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

OFF_PAGE_PX = 500.0
"""Moved this far to the left or up, text is meant to be beside the page."""
FAINT = 0.1
MOST_LEVELS = 16
"""Elements around one that are looked at: a page may nest so deep that looking at all would take hours."""
SIMILAR = 8
"""Colours that differ by no more, of 255 for red, green and blue each, look the same."""

_PIXELS = {
    "": 1.0,
    "px": 1.0,
    "pt": 1.33,
    "em": 16.0,
    "rem": 16.0,
    "%": 4.0,
    "vw": 8.0,
    "vh": 8.0,
    "cm": 37.8,
}
_LENGTH = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(px|pt|em|rem|%|vw|vh|cm)?")
_ESCAPE = re.compile(r"\\([0-9a-f]{1,6})\s?|\\(.)", re.IGNORECASE | re.DOTALL)
_MOVES = frozenset(
    {"left", "top", "text-indent", "margin-left", "margin-top", "margin", "translate", "inset"}
)
_BOXES = frozenset({"width", "height", "max-width", "max-height"})
_WHITE = (255, 255, 255)
_NAMED = {"white": _WHITE, "snow": (255, 250, 250), "whitesmoke": (245, 245, 245), "black": (0, 0, 0)}

Colour = tuple[int, int, int]


def is_hidden(node: Any) -> bool:
    """Whether an element is hidden by itself; one inside a hidden one is hidden too, and not asked about."""
    attributes: dict[str, str | None] = node.attributes
    if hide_by_themselves(attributes):
        return True
    style = _declarations(attributes)
    written = _colour(style, attributes)
    return written is not None and _looks_like_its_background(node, written)


def hide_by_themselves(attributes: dict[str, str | None]) -> bool:
    """Whether attributes hide their element whatever is around it."""
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").strip().lower() == "true":
        return True
    style = _declarations(attributes)
    if any(_hides(name, value) for name, value in style):
        return True
    cut = any(name.startswith("overflow") and value in {"hidden", "clip"} for name, value in style)
    return cut and any(name in _BOXES and _pixels(value, 2) <= 1 for name, value in style)


def _declarations(attributes: dict[str, str | None]) -> list[tuple[str, str]]:
    """Names and values of a style in lower case, without comments, escapes and `!important`."""
    style = re.sub(r"/\*.*?(?:\*/|\Z)", "", attributes.get("style") or "", flags=re.DOTALL)
    style = _ESCAPE.sub(_character, style).lower().replace("!important", "")
    pairs = (part.partition(":") for part in style.split(";"))
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16) if found[1] else ord(found[2])
    return chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else " "


def _hides(name: str, value: str) -> bool:
    hides = _HIDES.get(name)
    return hides(value) if hides else name in _MOVES and _pixels(value, 0) <= -OFF_PAGE_PX


def _shrinks_or_moves(value: str) -> bool:
    moved = re.search(r"translate[xy3d]*\(\s*([^,)]+)", value)
    return re.search(r"scale[xy3d]*\(\s*[0.]+\s*[,)]", value) is not None or (
        moved is not None and _pixels(moved[1].strip(), 0) <= -OFF_PAGE_PX
    )


_HIDES: dict[str, Callable[[str], bool]] = {
    "display": lambda value: value == "none",
    "visibility": lambda value: value in {"hidden", "collapse"},
    "content-visibility": lambda value: value == "hidden",
    "opacity": lambda value: _number(value, 1) < FAINT,
    "font-size": lambda value: _pixels(value, 16) <= 1,
    "font": lambda value: re.search(r"(?:^|\s)[0.]+[a-z%]*(?:/|\s)", value) is not None,
    "clip": lambda value: re.fullmatch(r"rect\([01px\s,]*\)", value) is not None,
    "clip-path": lambda value: re.match(r"inset\(\s*(?:[5-9]\d|100)%|circle\(\s*0", value) is not None,
    "scale": lambda value: _number(value, 1) < FAINT,
    "zoom": lambda value: _number(value, 1) < FAINT,
    "transform": _shrinks_or_moves,
}


def _pixels(value: str, otherwise: float) -> float:
    """About how many pixels a length has; `otherwise` if it is none."""
    found = _LENGTH.match(value)
    return float(found[1]) * _PIXELS[found[2] or ""] if found else otherwise


def _number(value: str, otherwise: float) -> float:
    found = _LENGTH.match(value)
    if found is None:
        return otherwise
    return float(found[1]) / (100 if found[2] == "%" else 1)


def _colour(style: list[tuple[str, str]], attributes: dict[str, str | None]) -> str | None:
    """The colour that an element gives its text, as written; None if it gives none."""
    named = [value for name, value in style if name in {"color", "-webkit-text-fill-color"}]
    return named[-1] if named else (attributes.get("color") or "").strip().lower() or None


def _looks_like_its_background(node: Any, written: str) -> bool:
    colour = _rgb(written)
    if colour is None:
        return _is_clear(written)
    behind = _background(node)
    return behind is not None and all(abs(a - b) <= SIMILAR for a, b in zip(colour, behind, strict=True))


def _background(node: Any) -> Colour | None:
    """The colour behind an element, by styles; white where nothing says otherwise, None if it isn't known.

    A class or an id may give a background, so that white text is then taken for seen.
    """
    for _ in range(MOST_LEVELS):
        if node is None or node.tag in {"html", "body", "-document", "-undef"}:
            return _WHITE
        attributes: dict[str, str | None] = node.attributes
        style = _declarations(attributes)
        given = [value for name, value in style if name in {"background", "background-color"}]
        given += [attributes.get("bgcolor") or ""] if "bgcolor" in attributes else []
        if given and not _is_clear(given[-1]):
            return _rgb(given[-1])
        if attributes.get("class") or attributes.get("id"):
            return None
        node = node.parent
    return None


def _is_clear(colour: str) -> bool:
    """Whether nothing is seen of a colour."""
    if found := re.fullmatch(r"#(?:[0-9a-f]{3}([0-9a-f])|[0-9a-f]{6}([0-9a-f])[0-9a-f])", colour):
        return (found[1] or found[2]) == "0"
    channels = _channels(colour)
    return colour in {"transparent", "none"} or (len(channels) == 4 and _number(channels[3], 1) < FAINT)


def _channels(colour: str) -> list[str]:
    """What stands in the brackets of rgb(), rgba(), hsl() or hsla()."""
    found = re.fullmatch(r"(?:rgb|hsl)a?\((.*)\)", colour)
    return re.split(r"[,\s/]+", found[1].strip()) if found else []


def _rgb(colour: str) -> Colour | None:
    """Red, green and blue in 0–255; None for what is not read here, or not seen at all."""
    if _is_clear(colour):
        return None
    if found := re.fullmatch(r"#?([0-9a-f]{6})(?:[0-9a-f]{2})?", colour):
        return _from_digits([found[1][i : i + 2] for i in (0, 2, 4)])
    if found := re.fullmatch(r"#([0-9a-f]{3})[0-9a-f]?", colour):
        return _from_digits([digit * 2 for digit in found[1]])
    channels = _channels(colour)
    if len(channels) >= 3 and colour.startswith("rgb"):
        red, green, blue = (_number(c, 0) * (255 if c.endswith("%") else 1) for c in channels[:3])
        return _byte(red), _byte(green), _byte(blue)
    if len(channels) >= 3 and _number(channels[2], 0) in {0, 1}:  # hsl: no light is black, all of it is white
        level = round(255 * _number(channels[2], 0))
        return level, level, level
    return _NAMED.get(colour)


def _from_digits(digits: list[str]) -> Colour:
    red, green, blue = (int(pair, 16) for pair in digits)
    return red, green, blue


def _byte(value: float) -> int:
    return round(min(255.0, max(0.0, value)))
