"""HTML to plain text that keeps its structure: headings as `# `, lists as `- `, tables as ` | ` rows.

What a reader of the page would not see is left out: scripts, styles, navigation and other page
furniture, and elements that `hidden_text` finds hidden.
"""

from __future__ import annotations

import re
from typing import Any

from tailorbird.data.hidden_text import MOST_LEVELS, is_hidden

_DROPPED = frozenset(
    """script style noscript template head nav footer header aside svg math iframe object embed canvas
    audio video button select textarea input dialog""".split()  # noqa: SIM905  -- a list to read
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS = frozenset(
    """address article blockquote body caption center dd details div dl dt fieldset figcaption figure
    form hr html li main ol p section summary ul""".split()  # noqa: SIM905  -- a list to read
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)


def html_to_text(html: str | bytes) -> tuple[str, str]:
    """Title and text of a page; the title is empty if the page has none.

    Bytes are read as UTF-8, else in the character set that the page declares, else as Windows-1252.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(decode_html(html) if isinstance(html, bytes) else html)
    title = tree.css_first("head > title")
    text = _Text()
    if tree.body is not None:
        _walk(tree.body, text)
    return (_squeeze(title.text()) if title else ""), text.result()


def decode_html(data: bytes) -> str:
    """The page's characters; never fails, for HTML names a default for bytes that fit nothing."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    declared = _CHARSET.search(data[:2048])
    for encoding in ("utf-8", declared.group(1).decode() if declared else "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", "replace")


def _squeeze(text: str) -> str:
    return " ".join(text.split())


class _Text:
    """Collects lines: inline text runs together, a block begins a new paragraph."""

    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self._line: list[str] = []
        self._mark = ""

    def inline(self, text: str) -> None:
        self._line.append(text)

    def block(self, mark: str = "") -> None:
        """Ends the line; `mark` begins the next one, unless that is empty."""
        # a line break inside stays one; other white space is layout
        lines = [_squeeze(part) for part in "".join(self._line).split("\x00")]
        line = "\n".join(part for part in lines if part)
        self._line.clear()
        if line:
            self.paragraphs.append(
                self._mark + (line.replace("\n", " ") if self._mark.startswith("#") else line)
            )
            self._mark = mark
        else:
            self._mark = mark or self._mark

    def forget_mark(self) -> None:
        """An empty item or heading marks nothing that comes after it."""
        self._mark = ""

    def verbatim(self, text: str) -> None:
        self.block()
        self._mark = ""
        self.paragraphs.append(text)

    def result(self) -> str:
        self.block()
        parts: list[str] = []
        for before, paragraph in zip(["", *self.paragraphs], self.paragraphs, strict=False):
            tight = _is_item(before) and _is_item(paragraph)
            parts.append(("\n" if tight else "\n\n") + paragraph)
        return "".join(parts).strip("\n")


def _is_item(paragraph: str) -> bool:
    return paragraph.lstrip().startswith("- ")


def _walk(root: Any, text: _Text) -> None:
    """Depth first without recursion: a page may nest deeper than Python's stack."""
    stack: list[tuple[Any, bool]] = [(root, False)]
    depth = 0
    while stack:
        node, leaving = stack.pop()
        tag = node.tag
        if leaving:
            depth -= tag in {"ul", "ol"}
            text.block()
            if tag == "li" or tag in _HEADINGS:
                text.forget_mark()
            continue
        if tag == "-text":
            text.inline(node.text_content or "")
        elif tag == "br":
            text.inline("\x00")
        elif tag.startswith("-") or _is_dropped(node):
            continue
        elif tag == "pre":
            text.verbatim(fenced(_shown(node)))
        elif tag == "table" and not _is_layout(node):
            text.verbatim(_table(node))
        else:
            depth += tag in {"ul", "ol"}
            if tag in _BLOCKS or tag in _HEADINGS or tag in {"tr", "td", "th", "table"}:
                text.block("  " * (depth - 1) + "- " if tag == "li" else _HEADINGS.get(tag, ""))
                stack.append((node, True))
            stack += [(child, False) for child in reversed(list(node.iter(include_text=True)))]


def _is_dropped(node: Any) -> bool:
    if node.tag == "header":
        return not _is_inside(node, {"article", "main", "section"})  # a page's banner, not a text's own head
    return node.tag in _DROPPED or is_hidden(node)


def _is_inside(node: Any, tags: set[str]) -> bool:
    parent = node.parent
    for _ in range(MOST_LEVELS):
        if parent is None:
            return False
        if parent.tag in tags:
            return True
        parent = parent.parent
    return False


def _shown(root: Any) -> str:
    """All characters of an element, white space as it is, without what is hidden in it."""
    parts: list[str] = []
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        if node.tag == "-text":
            parts.append(node.text_content or "")
        elif node.tag == "br":
            parts.append("\n")
        elif not node.tag.startswith("-") and (node is root or not _is_dropped(node)):
            stack += reversed(list(node.iter(include_text=True)))
    return "".join(parts)


def fenced(code: str, language: str = "") -> str:
    """The code between fences longer than any inside it; empty stays empty."""
    code = code.strip("\n")
    longest = max((len(run) for run in re.findall(r"^[ \t]*(`{3,})", code, re.MULTILINE)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code}\n{fence}" if code.strip() else ""


def _is_layout(table: Any) -> bool:
    """A table around other tables, or of one column, only arranges what is inside."""
    if table.css_first("table table") or table.css_first("pre, ul, ol, h1, h2, h3"):
        return True
    return all(len(row) < 2 for row in _rows(table))


def _table(table: Any) -> str:
    rows = [" | ".join(row) for row in _rows(table) if any(row)]
    caption = table.css_first("caption")
    title = _squeeze(_shown(caption)) if caption and not _is_dropped(caption) else ""
    return "\n".join(([title, ""] if title else []) + rows)


def _rows(table: Any) -> list[list[str]]:
    """The cells' texts, row by row, without hidden ones; a bar in a cell would look like a cell's end."""
    rows: list[list[str]] = []
    for row in table.css("tr"):
        if not is_hidden(row) and not is_hidden(row.parent):
            cells = [cell for cell in row.iter() if cell.tag in {"td", "th"} and not is_hidden(cell)]
            rows.append([_cell(cell) for cell in cells])
    return rows


def _cell(cell: Any) -> str:
    inner = _Text()
    stack: list[Any] = [cell]
    while stack:
        node = stack.pop()
        if node.tag == "-text":
            inner.inline(node.text_content or "")
        elif not node.tag.startswith("-") and (node is cell or not _is_dropped(node)):
            if node.tag in _BLOCKS or node.tag == "br":
                inner.inline(" ")
            stack += reversed(list(node.iter(include_text=True)))
    return _squeeze(inner.result().replace("|", "/"))
