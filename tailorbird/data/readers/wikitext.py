"""The reader of wikitext, in which MediaWiki's pages are written.

What a reader of the page sees as text stays: headings, paragraphs, lists, tables, links by their words.
References, templates, files, categories and comments go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tailorbird.data.hidden_text import hide_by_themselves
from tailorbird.data.readers.content import Content, Limits, clean_text, decoded
from tailorbird.data.readers.tables import table_lines
from tailorbird.data.readers.wikitext_braces import Pieces, without_braces
from tailorbird.errors import DocumentError

MOST_COLUMNS, MOST_ROWS_SPANNED = 200, 1_000
MOST_CHARS = 4_000_000
"""Characters of a page's wikitext; MediaWiki keeps pages to 2 MB."""

_ITEM, _ASIDE = "\ue002", "\ue003"
"""A list's mark, and one that only moves its line in; `without_braces` saw to it that no others are there."""
_NO_TEXT = frozenset({"category", "file", "image", "media", "mediawiki", "template"})
"""Beginnings of links that show no words; those of other languages are turned into these before."""
_OTHER_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8}){0,2}|simple")
_QUOTES = re.compile("'{2,}")
_SWITCHES = re.compile(r"__[A-Z]{3,40}__")
_EMPTY_BRACKETS = re.compile(r"[ \t]?\([\s,;:–-]*\)")
_LOST_COMMA = re.compile(r"\([ \t]*[,;:][ \t]*")
_MARKS = re.compile(f"[ \t]*([{_ITEM}{_ASIDE}]+)[ \t]*(.*)")
_HEADING = re.compile(r"(#{1,6}) ")
ATTRIBUTES_CHARS = 300
_ATTRIBUTE = re.compile(
    r"""(align|bgcolor|class|colspan|id|rowspan|scope|style|valign|width)\s*=\s*("[^"]*"|'[^']*'|[^\s"'/]+)(?:\s+|/\s*|\Z)""",
    re.IGNORECASE,
)
_ONLY_ATTRIBUTES = re.compile(f"(?:{_ATTRIBUTE.pattern})+", re.IGNORECASE)
_PLAIN_LINK = re.compile(r"\[\[([^\[\]|{}<>\n]*)(?:\|([^\[\]|{}<>\n]*))?\]\]")
_LINE_MARKS = re.compile(r"^[ \t]*([*#:;]+)[ \t]*(\{\|)?", re.MULTILINE)


def read_wikitext(data: bytes, limits: Limits) -> Content:
    """The page's text, with headings as `## `, lists as `- ` and tables as rows under their header.

    Raises:
        DocumentError: It is not UTF-8, or too long.
    """
    from mwparserfromhell import parse

    text = decoded(data)
    if len(text) > min(MOST_CHARS, limits.chars):
        raise DocumentError(
            f"has {len(text):,} characters of wikitext; at most {min(MOST_CHARS, limits.chars):,} are read. Divide it."
        )
    pieces = Pieces()
    plain = _simplified(without_braces(text.replace("\r\n", "\n"), pieces))
    parsed = parse(plain, skip_style_tags=True)
    shown = _QUOTES.sub("", _SWITCHES.sub("", _text(parsed.nodes, pieces)))
    shown = _LOST_COMMA.sub("(", _EMPTY_BRACKETS.sub("", shown))
    lines = [_line(line) for line in shown.split("\n")]
    return Content(clean_text(pieces.put_back(_paragraphs(lines))).strip("\n"))


def _simplified(text: str) -> str:
    """With what is frequent and plain done, which the parser would make many objects of: links, marks of lists."""

    def marked(found: re.Match[str]) -> str:
        marks, table = found.groups()
        return "{|" if table else "".join(_ITEM if mark in "*#" else _ASIDE for mark in marks)

    text = _PLAIN_LINK.sub(lambda found: _link(found[1], found[2]), text)
    return _LINE_MARKS.sub(marked, text.replace("&nbsp;", " "))


def _line(line: str) -> str:
    """The line, with its list's marks as a bullet further in by each level."""
    found = _MARKS.match(line)
    if found is None:
        return " ".join(line.split())
    marks, rest = found.groups()
    rest = " ".join(rest.split())
    depth = marks.count(_ITEM)
    return f"{'  ' * (depth - 1)}- {rest}" if depth and rest else rest


def _paragraphs(lines: Sequence[str]) -> str:
    """The lines without more than one empty one in a row, and without headings that have nothing beneath them."""
    kept: list[str] = []
    deepest = 0  # of the headings below, from the last one on, that are still to have their text above them
    for line in reversed(lines):
        found = _HEADING.match(line)
        if found:
            level = len(found[1])
            if not deepest or level >= deepest:
                continue
            deepest = level
        elif line:
            deepest = 7
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(reversed(kept))


def _text(nodes: Sequence[Any], pieces: Pieces) -> str:
    """The nodes' text. Nodes nest no deeper than the parser does, which is some 40 levels."""
    return "".join(_shown(node, pieces) for node in nodes)


def _shown(node: Any, pieces: Pieces) -> str:
    show = _SHOWN.get(type(node).__name__)
    return show(node, pieces) if show else ""  # templates and arguments that were not closed


def _heading(node: Any, pieces: Pieces) -> str:
    title = " ".join(_text(node.title.nodes, pieces).split())
    return f"\n\n{'#' * node.level} {title}\n\n" if title else "\n\n"


def _link(target: str, text: str | None) -> str:
    """What a link shows; nothing where it places a file, a category, or the same page in another language."""
    target = target.strip()
    prefix, colon, _ = target.partition(":")
    if colon and prefix.strip().lower() in _NO_TEXT:
        return ""
    if text is not None:
        return text
    return "" if colon and _OTHER_LANGUAGE.fullmatch(prefix) else target.removeprefix(":")


def _wikilink(node: Any, pieces: Pieces) -> str:
    return _link(str(node.title), None if node.text is None else _text(node.text.nodes, pieces))


def _external_link(node: Any, pieces: Pieces) -> str:
    if node.title is not None:
        return _text(node.title.nodes, pieces)
    return "" if node.brackets else str(node.url)


def _entity(node: Any, _pieces: Pieces) -> str:
    try:
        return node.normalize()
    except (ValueError, OverflowError):
        return ""


def _tag(node: Any, pieces: Pieces) -> str:
    tag = str(node.tag).strip().lower()
    if tag in {"br", "hr"}:
        return "\n"
    if tag in {"script", "style"} or hide_by_themselves(_attributes(node)):
        return ""
    if tag == "table":
        return f"\n\n{pieces.keep(_table(node, pieces))}\n\n"
    inner = _text(node.contents.nodes, pieces) if node.contents is not None else ""
    if tag in {"li", "dd", "dt"}:
        return f"\n{_ITEM}{inner.strip()}\n"
    return f"\n{inner}\n" if tag in {"blockquote", "center", "div", "p", "poem"} else inner


def _attributes(node: Any) -> dict[str, str | None]:
    return {
        str(a.name).strip().lower(): None if a.value is None else str(a.value).strip()
        for a in node.attributes
    }


_SHOWN: dict[str, Callable[[Any, Pieces], str]] = {
    "Text": lambda node, _pieces: str(node.value),
    "Wikilink": _wikilink,
    "Tag": _tag,
    "Heading": _heading,
    "ExternalLink": _external_link,
    "HTMLEntity": _entity,
}
"""By the class of the parser's nodes."""


# --- tables


def _table(table: Any, pieces: Pieces) -> str:
    """Its caption, and its rows as the other readers write them; a table of one column is just lines."""
    captions: list[str] = []
    rows = list(_spread(_rows(table, pieces, captions)))
    while rows and len(rows[0]) == 1 and max(map(len, rows)) > 1:
        captions += rows.pop(0)
    is_list = max(map(len, rows), default=0) < 2
    lines = [cell for row in rows for cell in row] if is_list else list(table_lines(rows))
    told = [caption for caption in captions if caption]
    return "\n".join([*told, *([""] if told and lines else []), *lines])


Cell = tuple[str, int, int]
"""Its text, and how many columns and rows it covers."""


def _rows(table: Any, pieces: Pieces, captions: list[str]) -> Iterator[list[Cell]]:
    unopened: list[Cell] = []  # a first row that nothing opens
    for node in _tags(table):
        tag = str(node.tag).strip().lower()
        if _is_cell(node):
            cell = _covering(node, pieces)
            if cell[0].startswith("+") and node.wiki_markup == "|":  # as the parser gives what `|+` marks
                captions.append(cell[0].removeprefix("+").strip())
            else:
                unopened.append(cell)
            continue
        if unopened:
            yield unopened
            unopened = []
        if tag == "caption":
            captions.append(_cell(node, pieces))
        elif tag in {"tbody", "thead", "tfoot"}:
            yield from _rows(node, pieces, captions)
        elif tag == "tr" and not hide_by_themselves(_attributes(node)):
            yield [_covering(cell, pieces) for cell in _tags(node) if _is_cell(cell)]
    if unopened:
        yield unopened


def _tags(node: Any) -> Iterator[Any]:
    children = node.contents.nodes if node.contents is not None else []
    return (child for child in children if type(child).__name__ == "Tag")


def _is_cell(node: Any) -> bool:
    return str(node.tag).strip().lower() in {"td", "th"}


def _covering(node: Any, pieces: Pieces) -> Cell:
    attributes = _attributes(node)
    text = "" if hide_by_themselves(attributes) else _cell(node, pieces)
    if len(text) <= ATTRIBUTES_CHARS and _ONLY_ATTRIBUTES.fullmatch(text):
        # a template stood there, which gave the cell its words and stood behind its attributes
        attributes |= {found[1].lower(): found[2].strip("\"'") for found in _ATTRIBUTE.finditer(text)}
        text = ""
    return text, _span(attributes, "colspan", MOST_COLUMNS), _span(attributes, "rowspan", MOST_ROWS_SPANNED)


def _span(attributes: dict[str, str | None], name: str, most: int) -> int:
    value = attributes.get(name) or ""
    return min(max(int(value), 1), most) if value.isascii() and value.isdigit() and len(value) < 9 else 1


def _cell(node: Any, pieces: Pieces) -> str:
    """Its text on one line; what was kept apart, such as a table in it, is put back first."""
    inner = _text(node.contents.nodes, pieces) if node.contents is not None else ""
    inner = _QUOTES.sub("", pieces.put_back(inner))
    return " ".join(inner.replace(_ITEM, " ").replace(_ASIDE, " ").split())


def _spread(rows: Iterable[list[Cell]]) -> Iterator[list[str]]:
    """Each row with a value in every column: cells that cover several rows say theirs in each of them."""
    waiting: dict[int, tuple[str, int]] = {}
    begun: list[str] = []  # a row of such cells alone, which the next one says again
    for row in rows:
        values = _values(row, waiting)
        if begun and values[: len(begun)] != begun:
            yield begun
        begun = values if row and all(down > 1 for _, _, down in row) else []
        if any(values) and not begun:
            yield values
    if begun:
        yield begun


def _values(row: list[Cell], waiting: dict[int, tuple[str, int]]) -> list[str]:
    """One row's values by column; `waiting` holds what cells above still say, by column, and in how many rows."""
    values: list[str] = []
    cells = iter(row)
    while (column := len(values)) < MOST_COLUMNS:
        if column in waiting:
            text, left = waiting.pop(column)
            if left > 1:
                waiting[column] = text, left - 1
            values.append(text)
        elif (cell := next(cells, None)) is None:
            break
        else:
            text, columns, down = cell
            for i in range(min(columns, MOST_COLUMNS - column)):
                values.append(text if i == 0 else "")
                if down > 1:
                    waiting[column + i] = values[-1], down - 1
    return values
