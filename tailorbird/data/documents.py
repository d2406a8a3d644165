"""Reading documents: .txt, .md, .html, .pdf and .docx become text that keeps its structure.

A file that cannot be read is refused with the reason; nothing is skipped in silence, and nothing is
parsed before its kind and declared size have been looked at.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tailorbird.data.markup import html_to_text
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document

MAX_BYTES = 50 * 2**20
MAX_UNPACKED_BYTES = 200 * 2**20
MAX_RATIO = 200
"""A zip whose parts unpack to more than this many times its own size is a bomb."""
MAX_PARTS = 10_000
MAX_XML_BYTES = 25 * 2**20
"""A book of a thousand pages has about half; a parser needs minutes and gigabytes for much more."""
MAX_PAGES = 5_000
MAX_CHARS = 20_000_000

_BIDI_AND_ZERO_WIDTH = "\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
_TAGS = "\U000e0000-\U000e007f"
_CONTROLS = "\x00-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff"
_INVISIBLE = re.compile(f"[{_BIDI_AND_ZERO_WIDTH}{_TAGS}{_CONTROLS}]")
# joiners mean something in Arabic, Indic and emoji; between Latin letters they only hide
_LATIN_JOINER = re.compile("(?<=[\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\u024f])|^[\u200c\u200d]")
_MAGIC = {
    b"%PDF-": ".pdf",
    b"PK\x03\x04": ".docx or another zip",
    b"\xd0\xcf\x11\xe0": "an old Office file (.doc), or an encrypted one",
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"\x1f\x8b": ".gz",
}
_pdfium = threading.Lock()  # PDFium is not thread-safe


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file in the folder that gave no document: its path inside the folder, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Content:
    """What a reader got out of a file."""

    text: str
    title: str = ""
    page_starts: tuple[int, ...] = ()


def read_folder(root: Path) -> Iterator[Document | Unreadable]:
    """Every file beneath a folder, by path: a document, or why it is none. Hidden files are left out.

    Raises:
        NotFound: There is no such folder.
    """
    if not root.is_dir():
        raise NotFound(f"{root}: there is no such folder. Name the folder that holds the documents.")
    for path in sorted(_files(root), key=lambda p: p.relative_to(root).as_posix()):
        try:
            yield read_document(path, root)
        except (DocumentError, NotFound) as error:  # a dangling link is there and is not
            name = path.relative_to(root).as_posix()
            yield Unreadable(name, str(error).removeprefix(f"{name}: "))


def read_document(path: Path, root: Path) -> Document:
    """One document; its id is the path relative to `root`, its version a hash of the file's bytes.

    Raises:
        NotFound: There is no such file.
        DocumentError: The file is of no known kind, not of the kind its name says, damaged, encrypted,
            too large, without text, or outside `root`.
    """
    name = _name(path, root)
    if not path.exists():
        raise NotFound(f"{name}: there is no such document in {root.name}.")
    if path.is_dir():
        raise DocumentError(f"{name}: is a folder or a link to one. Name its files; links are not followed.")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise DocumentError(
            f"{name}: files of type {suffix or 'none'} are not read; expected {known}. Convert it."
        )
    return document_from_bytes(name, _bytes(path, name), suffix)


def document_from_bytes(name: str, data: bytes, suffix: str) -> Document:
    """A document whose bytes came from elsewhere than a file; `suffix`, such as `.pdf`, says what they are.

    Raises:
        DocumentError: As `read_document` does.
    """
    reader = _READERS[suffix]
    try:
        _check_kind(data, suffix)
        content = reader(data)
    except DocumentError as error:
        raise DocumentError(f"{name}: {error}") from None
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else "no details"
        raise DocumentError(
            f"{name}: damaged, cannot be parsed ({type(error).__name__}: {detail})."
        ) from error
    if not content.text.strip():
        raise DocumentError(f"{name}: holds no text.{_empty_hint(suffix)}")
    if len(content.text) > MAX_CHARS:
        raise DocumentError(
            f"{name}: {len(content.text):,} characters; at most {MAX_CHARS:,} are read. Divide it."
        )
    version = hashlib.blake2b(data).hexdigest()[:16]
    title = content.title or first_heading(content.text) or PurePosixPath(name).stem
    return Document(name, content.text, title, version, content.page_starts)


def clean_text(text: str) -> str:
    """The text with plain line ends and without invisible, directional and control characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\u2028", "\n")
    text = _INVISIBLE.sub("", text).replace("\u2029", "\n\n").replace("\u00a0", " ")
    return _LATIN_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text


def first_heading(text: str) -> str:
    """The first Markdown heading's words; empty if there is none."""
    found = re.search(r"^#{1,6}[ \t]+([^\s#].*)$", text, re.MULTILINE)
    return found.group(1).rstrip("# \t") if found else ""


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]  # os.walk stays out of them
        yield from (Path(folder) / name for name in names + links if not name.startswith((".", "~$")))


def _name(path: Path, root: Path) -> str:
    try:
        name = path.relative_to(root).as_posix()
        path.resolve().relative_to(root.resolve())
    except ValueError:
        raise DocumentError(f"{path.name}: lies outside {root.name}. Copy it into the folder.") from None
    return name


def _bytes(path: Path, name: str) -> bytes:
    if not path.is_file():
        raise DocumentError(f"{name}: is no regular file.")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DocumentError(
                f"{name}: {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read. Divide it."
            )
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{name}: cannot be opened ({error.strerror}). Check its permissions.") from None


def _check_kind(data: bytes, suffix: str) -> None:
    """Bytes that say another kind than the name are refused: they would be read as noise."""
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if suffix == ".pdf" and b"%PDF-" in data[:1024]:
        return
    expected = {".pdf": ".pdf", ".docx": ".docx or another zip"}.get(suffix)
    if kind != expected:
        found = kind or "plain text or unknown"
        raise DocumentError(f"named {suffix}, but its content is {found}. Rename it, or export it again.")


def _empty_hint(suffix: str) -> str:
    if suffix == ".pdf":
        return " It is probably a scan: run it through text recognition (OCR) first."
    return " Delete it or add its text."


# --- readers: bytes to content


def _read_text(data: bytes) -> _Content:
    return _Content(clean_text(_decode(data)).strip("\n"))


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at {error.start:,}, line {line}"
        raise DocumentError(f"not UTF-8 ({byte}). Save it as UTF-8.") from None


def _read_markdown(data: bytes) -> _Content:
    text = clean_text(_decode(data)).strip("\n")
    front = re.match(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|$)", text, re.DOTALL)
    title = ""
    if front:
        found = re.search(r"^title:(.*)$", front.group(1) or "", re.MULTILINE)
        title = found.group(1).strip(" \t\"'") if found else ""
        text = text[front.end() :]
    return _Content(_without_markup(text).strip("\n"), title)


def _without_markup(text: str) -> str:
    """Markdown without what a reader does not see: comments, empty anchors, escapes; code is left alone."""
    parts = re.split(
        r"(^[ ]{0,3}(?P<fence>`{3,}+|~{3,}+)[^\n]*\n.*?(?:^[ ]{0,3}(?P=fence)[`~]*[ \t]*$|\Z))",
        text,
        flags=re.MULTILINE | re.DOTALL,
    )
    # re.split gives text, code, fence, text, …
    return "".join(part if i % 3 == 1 else _plain(part) for i, part in enumerate(parts) if i % 3 < 2)


def _plain(text: str) -> str:
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    text = re.sub(r"<a\s+(?:name|id)=[^<>]*>\s*</a>", "", text)
    spans = re.split(r"(`[^`\n]+`)", text)
    return "".join(s if i % 2 else re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", s) for i, s in enumerate(spans))


def _read_html(data: bytes) -> _Content:
    title, text = html_to_text(data)
    return _Content(clean_text(text).strip("\n"), clean_text(title))


def _read_pdf(data: bytes) -> _Content:
    import pypdfium2

    with _pdfium:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise DocumentError("encrypted with a password. Save it without one.") from None
            raise
        with pdf:
            if len(pdf) > MAX_PAGES:
                raise DocumentError(f"{len(pdf):,} pages; at most {MAX_PAGES:,} are read. Divide it.")
            pages = _pages(pdf)
            title = clean_text(pdf.get_metadata_dict().get("Title", "")).strip()
    starts: list[int] = []
    at = 0
    for page in pages:
        starts.append(at)
        at += len(page) + 2
    return _Content("\n\n".join(pages), title, tuple(starts))


def _pages(pdf: Any) -> list[str]:
    pages: list[str] = []
    num_chars = 0
    for page in pdf:
        with_text = page.get_textpage()
        text = with_text.get_text_bounded()
        with_text.close()
        page.close()
        # PDFium marks a hyphen at a line's end with U+FFFE: the word goes on
        pages.append(clean_text(re.sub("[\ufffe\x02](?:\r?\n)?", "", text)).strip())
        num_chars += len(text)
        if num_chars > MAX_CHARS:
            raise DocumentError(f"more than {MAX_CHARS:,} characters. Divide it.")
    return pages


def _read_docx(data: bytes) -> _Content:
    import mammoth

    _check_zip(data)
    result = mammoth.convert_to_html(
        io.BytesIO(data),
        include_embedded_style_map=False,
        style_map="p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh",
        convert_image=lambda _image: [],
    )
    title, text = html_to_text(result.value)
    return _Content(clean_text(text).strip("\n"), title)


def _check_zip(data: bytes) -> None:
    """Looks at a zip's declared sizes; zipfile reads no part beyond what it declares."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED_BYTES or unpacked > MAX_RATIO * len(data):
            size = f"{len(parts):,} parts, {unpacked / 2**20:.0f} MB unpacked from {len(data) / 2**20:.1f} MB"
            raise DocumentError(
                f"looks like a zip bomb ({size}). If it is genuine, save it again or divide it."
            )
        xml = sum(part.file_size for part in parts if part.filename.endswith(".xml"))
        if xml > MAX_XML_BYTES:
            limit = f"at most {MAX_XML_BYTES / 2**20:.0f} MB are read"
            raise DocumentError(f"{xml / 2**20:.0f} MB of text and layout inside; {limit}. Divide it.")
        if "word/document.xml" not in archive.namelist():
            raise DocumentError("a zip without word/document.xml, so no Word document. Export it as .docx.")
        for part in parts:
            if part.filename.endswith((".xml", ".rels")):
                with archive.open(part) as file:
                    if b"<!DOCTYPE" in file.read(4096):
                        raise DocumentError(
                            f"part {part.filename} declares a DOCTYPE, which Word never does."
                        )


_READERS: dict[str, Callable[[bytes], _Content]] = {
    ".txt": _read_text,
    ".md": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".pdf": _read_pdf,
    ".docx": _read_docx,
}
