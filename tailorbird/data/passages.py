"""Cutting a document into passages: along its headings, at sentence ends, none overlapping.

A passage is a slice of the document's text. Cuts depend on the words around them and not on a
count from the top, so that editing one sentence changes the passage it stands in and hardly
another: of the places where a passage could end, a paragraph's end is preferred, then the sentence
with the least hash (content-defined chunking by local extremes, as in Bjørner, Blass and Gurevich,
"Content-dependent chunking for differential compression, the local maximum approach", 2010).
"""

from __future__ import annotations

import bisect
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tailorbird.data.documents import first_heading
from tailorbird.records import Document, Passage, content_hash

_WHOLE = 2
"""Code and tables up to this many times `max_chars` stay whole."""

# all patterns take time linear in the length of a line: a document may be hostile
_HEADING = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(.*)$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_TABLE_ROW = re.compile(r"\s*\|.*\||.*\S[ \t]\|[ \t]")
_RULE = re.compile(r"[\s|:+-]*$")
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S")
_SENTENCE_END = re.compile(r"""(?<![.!?…])[.!?…]+["'”’»)\]]*(?=\s)|[。！？]+[」』”）]*""")
_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof sr jr st vs etc e.g i.e cf al no nos vol pp p fig figs eq sec ch ed eds inc ltd
    co corp dept est approx u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec gen col sgt
    capt rev hon z.b d.h bzw usw ca nr bspw vgl""".split()  # noqa: SIM905  -- a list to read, not to edit
)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is not cut: a sentence, a row, a block of code. `ends_block` allows a cut gladly."""

    start: int
    end: int
    ends_block: bool
    header: str = ""


@dataclass(slots=True)
class _Section:
    """What stands beneath one heading; `start` includes the heading's own line."""

    start: int
    headings: tuple[str, ...]
    blocks: list[tuple[str, int, int]] = field(default_factory=list)


def split_document(document: Document, *, max_chars: int = 800) -> list[Passage]:
    """The passages of a document, in order; `document.text[p.start:p.end] == p.text`.

    Every character that is not white space is in exactly one passage. A new heading begins a new
    passage, and its path is in `headings`. A sentence, and code or a table of up to twice
    `max_chars`, stays whole; a longer table is cut between rows, and the later pieces carry the
    header row as the last of their `headings`. Ids are hashes of the document's id, the text and
    the number of its occurrence.

    Args:
        document: What to cut.
        max_chars: The most characters of a passage, at least 50; only whole code, whole tables and
            a heading before its first sentence may exceed it.

    Raises:
        ValueError: `max_chars` is below 50.
    """
    if max_chars < 50:
        raise ValueError(f"max_chars={max_chars} cuts sentences to shreds; expected at least 50.")
    title = document.title or first_heading(document.text)
    seen: Counter[str] = Counter()
    passages: list[Passage] = []
    for start, end, headings in _pieces(document.text, max_chars):
        text = document.text[start:end]
        identity = content_hash([document.id, text, seen[text]])
        seen[text] += 1
        page = bisect.bisect_right(document.page_starts, start) or None
        passages.append(
            Passage(identity, document.id, text, title, headings, start, end, page, document.version)
        )
    return passages


def statements(text: str) -> list[Span]:
    r"""Where the text's sentences, its tables' rows and its lines of code stand; headings are left out.

    >>> statements("# Rates\n\nTwo a day. Three at night.")
    [(9, 19), (19, 35)]
    """
    return [
        (unit.start, unit.end)
        for kind, start, end in _blocks(text)
        if kind != "heading"
        for unit in (
            _rows(text, kind, start, end, len(text))
            if kind in {"code", "table"}
            else _units(text, kind, start, end, len(text))
        )
    ]


def _pieces(text: str, max_chars: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    for section in _sections(text):
        units = [u for kind, start, end in section.blocks for u in _units(text, kind, start, end, max_chars)]
        first = section.start
        for group in _pack(text, units, section.start, max_chars):
            start, end = _trim(text, first if first is not None else group[0].start, group[-1].end)
            first = None
            header = (group[0].header,) if group[0].header else ()
            if start < end:
                yield start, end, section.headings + header
        if not units:  # headings at the very end, with nothing beneath them
            start, end = _trim(text, section.start, len(text))
            if start < end:
                yield start, end, section.headings


def _trim(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


# --- structure


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line), line
        start += len(line) + 1


def _sections(text: str) -> list[_Section]:
    """Sections with their blocks; headings with nothing beneath them lead into the next section."""
    sections: list[_Section] = []
    path: list[tuple[int, str]] = []
    current = _Section(0, ())
    for kind, start, end in _blocks(text):
        if kind != "heading":
            current.blocks.append((kind, start, end))
            continue
        found = _HEADING.match(text[start:end])
        assert found
        level = len(found.group(1))
        path = [(depth, name) for depth, name in path if depth < level] + [
            (level, found.group(2).rstrip("# \t"))
        ]
        headings = tuple(name for _, name in path if name)
        if current.blocks:
            sections.append(current)
            current = _Section(start, headings)
        else:
            current = _Section(current.start if current.headings else start, headings)
    return [*sections, current]


def _blocks(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each block: heading, code, table, item or prose."""
    kind, begin, stop, fence = "", 0, 0, ""
    for start, end, line in _lines(text):
        if fence:
            stop = end
            if line.strip().startswith(fence) and not line.strip().strip("`~"):
                yield "code", begin, stop
                kind, fence = "", ""
            continue
        opened = _FENCE.match(line)
        new = "code" if opened else _kind(line, kind)
        if new == "prose" and kind == "item" and line.startswith((" ", "\t")):
            stop = end  # a line further in goes on with its item
            continue
        if kind and (new != kind or new in {"heading", "item"}):
            yield kind, begin, stop
            kind = ""
        if new and not kind:
            kind, begin = new, start
        stop = end
        fence = opened.group(1) if opened else ""
    if kind:
        yield kind, begin, stop


def _kind(line: str, before: str) -> str:
    if not line.strip():
        return ""
    if _HEADING.match(line):
        return "heading"
    if _TABLE_ROW.match(line) or (before == "table" and _RULE.match(line)):
        return "table"
    if _ITEM.match(line):
        return "item"
    return "prose"


# --- units


def _units(text: str, kind: str, start: int, end: int, max_chars: int) -> Iterator[_Unit]:
    if kind in {"code", "table"}:
        if end - start <= _WHOLE * max_chars:
            yield _Unit(start, end, ends_block=True)
        else:
            yield from _rows(text, kind, start, end, max_chars)
        return
    spans = list(_sentences(text, start, end))
    for i, (first, last) in enumerate(spans):
        cut = [*_hard(text, first, last, max_chars)]
        for j, (a, b) in enumerate(cut):
            yield _Unit(a, b, ends_block=i == len(spans) - 1 and j == len(cut) - 1)


def _rows(text: str, kind: str, start: int, end: int, max_chars: int) -> Iterator[_Unit]:
    """Line by line; code is gladly cut at empty lines, and a table's later rows remember the header."""
    header = ""
    for i, (a, b, line) in enumerate(_lines(text[start:end])):
        ends = start + b == end or text.startswith("\n\n", start + b)
        for first, last in _hard(text, start + a, start + b, max_chars):
            yield _Unit(first, last, ends_block=ends and last == start + b, header=header if i else "")
        if kind == "table" and i == 0 and len(line) <= max_chars // 2:
            header = line.strip().strip("|").strip()


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    begin = start
    for found in _SENTENCE_END.finditer(text, start, end):
        if _ends_sentence(text, begin, found, end):
            yield begin, found.end()
            begin = found.end()
    if text[begin:end].strip():
        yield begin, end


def _ends_sentence(text: str, begin: int, found: re.Match[str], end: int) -> bool:
    """Not after an abbreviation or an initial, and not before a small letter."""
    after = text[found.end() : min(end, found.end() + 8)].lstrip()
    if not after or found.group().startswith(("。", "！", "？")):
        return True
    if after[0].islower():
        return False
    if not found.group().startswith("."):
        return True
    word = text[max(begin, found.start() - 12) : found.start()].split()
    last = word[-1].lstrip("([\"'“‘").lower() if word else ""
    return last not in _ABBREVIATIONS and not (len(last) == 1 and last.isalpha())


def _hard(text: str, start: int, end: int, max_chars: int) -> Iterator[Span]:
    """Pieces of at most `max_chars`, cut between words where there are any."""
    while end - start > max_chars:
        space = max(text.rfind(" ", start, start + max_chars), text.rfind("\n", start, start + max_chars))
        cut = space + 1 if space > start + max_chars // 2 else start + max_chars
        yield start, cut
        start = cut
    yield start, end


# --- packing


def _pack(text: str, units: Sequence[_Unit], start: int, max_chars: int) -> Iterator[Sequence[_Unit]]:
    """Units that make a passage together; `start` is where the section's heading begins.

    Of all ends in the second half of what fits the most eligible is chosen, not the last: whoever
    comes upon the same words from another start will most likely choose the same.
    """
    at = 0
    while at < len(units):
        start = units[at].start if at else start
        end = at + 1
        while end < len(units) and units[end].end - start <= max_chars:
            end += 1
        late = [i for i in range(at, end) if units[i].end - start > max_chars // 2]
        if late and end < len(units):
            end = 1 + min(late, key=lambda i: (not units[i].ends_block, _rank(text, units[i])))
        yield units[at:end]
        at = end


def _rank(text: str, unit: _Unit) -> int:
    """A number that depends on the words alone."""
    return zlib.crc32(" ".join(text[unit.start : unit.end].split()).encode("utf-8", "replace"))
