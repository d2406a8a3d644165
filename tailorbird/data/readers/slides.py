"""The reader of PowerPoint presentations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from tailorbird.data.readers.archive import check_archive
from tailorbird.data.readers.content import Content, Limits, clean_text, joined, paged, too_long
from tailorbird.data.readers.tables import cell_text, table_lines
from tailorbird.errors import DocumentError

_FURNITURE = frozenset({"DATE", "FOOTER", "HEADER", "SLIDE_NUMBER"})


def read_pptx(data: bytes, limits: Limits) -> Content:
    """Each slide as a page: its title as a heading, its texts and tables, the speaker's notes.

    Hidden slides and shapes are left out; a hidden slide keeps its number as an empty page.

    Raises:
        DocumentError: Its zip looks hostile, or it has too many slides or characters.
    """
    check_archive(data, "ppt/presentation.xml", "PowerPoint presentation (.pptx)", limits)
    from pptx import Presentation

    slides = Presentation(io.BytesIO(data)).slides
    if len(slides) > limits.pages:
        raise DocumentError(f"{len(slides):,} slides; at most {limits.pages:,} are read. Divide it.")
    pages: list[str] = []
    num_chars = 0
    for number, slide in enumerate(slides, start=1):
        page = "" if _is_false(slide.element.get("show")) else joined(_parts(slide, number), limits)
        pages.append("" if page == _untitled(number) else clean_text(page))  # nothing but pictures
        num_chars += len(page)
        if num_chars > limits.chars:
            raise too_long(limits)
    return paged(pages)


def _untitled(number: int) -> str:
    return f"# Slide {number}"


def _is_false(attribute: str | None) -> bool:
    return attribute in {"0", "false"}


def _parts(slide: Any, number: int) -> Iterator[str]:
    title = slide.shapes.title
    words = cell_text(title.text_frame.text) if title is not None else ""
    yield f"# {words}" if words else _untitled(number)
    for shape in _shapes(slide):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            yield _text(shape.text_frame)
        elif getattr(shape, "has_table", False):
            yield "\n".join(table_lines([cell.text for cell in row.cells] for row in shape.table.rows))
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None and notes.text.strip():
        yield f"Notes: {_lines(notes.text)}"


def _shapes(slide: Any) -> Iterator[Any]:
    """All shapes that are seen, those in groups too, in their order; without page furniture."""
    stack = list(slide.shapes)[::-1]
    while stack:
        shape = stack.pop()
        if any(not _is_false(hidden) for hidden in shape.element.xpath("./*/p:cNvPr/@hidden")):
            continue
        if shape.is_placeholder and shape.placeholder_format.type.name in _FURNITURE:
            continue
        stack += list(getattr(shape, "shapes", ()))[::-1]
        yield shape


def _text(frame: Any) -> str:
    """One paragraph as it is, several as a list with its levels."""
    paragraphs = [(p.level, _lines(p.text)) for p in frame.paragraphs if p.text.strip()]
    if len(paragraphs) == 1:
        return paragraphs[0][1]
    return "\n".join(f"{'  ' * level}- {cell_text(text)}" for level, text in paragraphs)


def _lines(text: str) -> str:
    """The text with line breaks, which PowerPoint keeps as vertical tabs, and without indents."""
    return "\n".join(line.strip() for line in text.replace("\v", "\n").split("\n") if line.strip())
