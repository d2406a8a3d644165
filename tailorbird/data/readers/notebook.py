"""The reader of Jupyter notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tailorbird.data.markup import fenced
from tailorbird.data.readers.content import Content, Limits, clean_text, first_heading, joined
from tailorbird.data.readers.objects import parsed
from tailorbird.data.readers.plain import without_markup
from tailorbird.errors import DocumentError

OUTPUT_CHARS = 2_000
"""Of one cell's output; what is more is left out, and that is said."""
_COLOURS = re.compile(r"\x1b\[[0-9;]{0,40}[A-Za-z]")
_LANGUAGE = re.compile(r"[\w+#-]{1,30}\Z")


def read_ipynb(data: bytes, limits: Limits) -> Content:
    """Markdown cells as they are, code cells and the beginning of what they printed as fenced blocks.

    Raises:
        DocumentError: It is no notebook of Jupyter's format 3 or 4, or has too many characters.
    """
    notebook = _mapping(parsed(data, limits))
    cells = notebook.get("cells")
    if cells is None:  # format 3
        cells = [
            cell
            for sheet in _list(notebook.get("worksheets"))
            for cell in _list(_mapping(sheet).get("cells"))
        ]
    if not isinstance(cells, list) or "nbformat" not in notebook:
        raise DocumentError(
            "no notebook: expected 'cells' and 'nbformat'. Save it from Jupyter, or name it .json."
        )
    language = _language(_mapping(notebook.get("metadata")))
    text = clean_text(joined((part for cell in cells for part in _parts(_mapping(cell), language)), limits))
    titles = (
        _text(_mapping(cell).get("source")) for cell in cells if _mapping(cell).get("cell_type") == "markdown"
    )
    return Content(text, clean_text(next(filter(None, map(first_heading, titles)), "")))


def _parts(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    kind = cell.get("cell_type")
    if kind == "heading":  # format 3
        yield f"# {_text(cell.get('source'))}"
    elif kind == "markdown":
        yield without_markup(clean_text(_text(cell.get("source")))).strip("\n")
    elif kind == "code":
        yield fenced(_text(cell.get("source", cell.get("input"))), language)
        yield _output(cell)
    else:
        yield _text(cell.get("source")).strip("\n")


def _output(cell: Mapping[str, Any]) -> str:
    """What the cell printed and its value, as plain text; pictures and pages are left out."""
    printed = _COLOURS.sub("", "\n".join(filter(None, map(_printed, _list(cell.get("outputs"))))))
    left_out = len(printed) - OUTPUT_CHARS
    block = fenced(printed[:OUTPUT_CHARS], "output")
    return f"{block}\n\n({left_out:,} more characters of output are left out.)" if left_out > 0 else block


def _printed(output: Any) -> str:
    output = _mapping(output)
    if output.get("output_type") in {"error", "pyerr"}:
        return f"{output.get('ename')}: {output.get('evalue')}"
    data = _mapping(output.get("data"))
    return _text(output.get("text") or data.get("text/plain")).strip("\n")


def _language(metadata: Mapping[str, Any]) -> str:
    """What its code is written in, if that is one word."""
    spoken = _mapping(metadata.get("language_info")).get("name") or _mapping(metadata.get("kernelspec")).get(
        "language"
    )
    return spoken if isinstance(spoken, str) and _LANGUAGE.match(spoken) else ""


def _text(value: Any) -> str:
    """A string, or the lines of one."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
