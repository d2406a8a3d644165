"""Which kinds of files are read, by which reader, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tailorbird.data.readers.code import LANGUAGES, code_reader
from tailorbird.data.readers.content import Content, Limits
from tailorbird.data.readers.delimited import read_csv, read_tsv
from tailorbird.data.readers.mail import read_eml
from tailorbird.data.readers.notebook import read_ipynb
from tailorbird.data.readers.objects import read_json, read_jsonl
from tailorbird.data.readers.pdf import read_pdf
from tailorbird.data.readers.plain import read_html, read_markdown, read_text
from tailorbird.data.readers.slides import read_pptx
from tailorbird.data.readers.wikitext import read_wikitext
from tailorbird.data.readers.word import read_docx
from tailorbird.data.readers.workbook import read_xlsx

ZIP = "a zip, as .docx, .xlsx and .pptx are"
_MAGIC = {
    b"%PDF-": ".pdf",
    b"PK\x03\x04": ZIP,
    b"\xd0\xcf\x11\xe0": "an old Office file (.doc, .xls, .ppt), or an encrypted one",
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"\x1f\x8b": ".gz",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: how it is read, what its bytes begin with, and what else there is to know.

    `isolated` files are parsed in a child process: all but those that only our own code reads, in
    time and memory that grow with the file and no faster. `title` says what the title is where the
    reader finds none: the first heading, else the file's name without its kind; or the name at once.
    """

    read: Callable[[bytes, Limits], Content]
    isolated: bool = True
    magic: str = ""
    title: Literal["heading", "stem", "name"] = "heading"


KINDS: dict[str, Kind] = {
    ".txt": Kind(read_text, isolated=False),
    ".md": Kind(read_markdown, isolated=False),
    ".html": Kind(read_html),
    ".htm": Kind(read_html),
    ".pdf": Kind(read_pdf, magic=".pdf"),
    ".docx": Kind(read_docx, magic=ZIP),
    ".xlsx": Kind(read_xlsx, magic=ZIP, title="stem"),
    ".pptx": Kind(read_pptx, magic=ZIP),
    ".csv": Kind(read_csv, title="stem"),
    ".tsv": Kind(read_tsv, title="stem"),
    ".json": Kind(read_json, title="stem"),
    ".jsonl": Kind(read_jsonl, title="stem"),
    ".eml": Kind(read_eml),
    ".ipynb": Kind(read_ipynb, title="stem"),
    ".mediawiki": Kind(read_wikitext, title="stem"),
    ".wikitext": Kind(read_wikitext, title="stem"),
    **{suffix: Kind(code_reader(name), isolated=False, title="name") for suffix, name in LANGUAGES.items()},
}
"""By the end of the file's name, in small letters."""

KNOWN_KINDS = (
    ".txt, .md, .html, .pdf, .docx, .xlsx, .pptx, .csv, .tsv, .json, .jsonl, .eml, .ipynb, .wikitext "
    "or source code"
)
"""The kinds as an error or a help text names them."""


def magic_of(data: bytes, suffix: str) -> str:
    """The kind that the first bytes say; empty for text and the unknown. A PDF may begin with other bytes."""
    if suffix == ".pdf" and b"%PDF-" in data[:1024]:
        return ".pdf"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "")
