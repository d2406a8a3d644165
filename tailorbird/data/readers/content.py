"""What every reader gives and keeps to: content, limits, clean text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tailorbird.errors import DocumentError

_BIDI_AND_ZERO_WIDTH = "\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
_TAGS = "\U000e0000-\U000e007f"
_CONTROLS = "\x00-\x08\x0b\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff"
_INVISIBLE = re.compile(f"[{_BIDI_AND_ZERO_WIDTH}{_TAGS}{_CONTROLS}]")
# joiners mean something in Arabic, Indic and emoji; between Latin letters they only hide
_LATIN_JOINER = re.compile("(?<=[\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\u024f])|^[\u200c\u200d]")


@dataclass(frozen=True, slots=True)
class Content:
    """What a reader got out of a file. `page_starts` holds where each page (or slide) begins in `text`."""

    text: str
    title: str = ""
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may be and cost; whatever exceeds one is refused.

    Args:
        file_bytes: Size of the file.
        unpacked_bytes: Size of all parts of a zip, unpacked.
        zip_ratio: How many times its own size a zip may unpack to.
        zip_parts: Parts of a zip.
        xml_bytes: Size of the XML in a zip; a book of a thousand pages has about half of the default.
        pages: Pages or slides.
        cells: Cells of all sheets, empty ones before a filled one included.
        chars: Characters of the text that comes out.
        depth: Levels of nesting in JSON.
        memory_bytes: Memory of the process that parses, itself included; held where the system can
            (Linux).
        cpu_s: Seconds of computing; held where the system can (Linux, macOS).
        wall_s: Seconds from asking to the answer; more than `cpu_s`, for a machine may be busy.
    """

    file_bytes: int = 50 * 2**20
    unpacked_bytes: int = 200 * 2**20
    zip_ratio: int = 200
    zip_parts: int = 10_000
    xml_bytes: int = 25 * 2**20
    pages: int = 5_000
    cells: int = 5_000_000
    chars: int = 20_000_000
    depth: int = 64
    memory_bytes: int = 512 * 2**20
    cpu_s: float = 30.0
    wall_s: float = 90.0


def clean_text(text: str) -> str:
    """The text with plain line ends and without invisible, directional and control characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\u2028", "\n")
    text = _INVISIBLE.sub("", text).replace("\u2029", "\n\n").replace("\u00a0", " ")
    return _LATIN_JOINER.sub("", text) if "\u200c" in text or "\u200d" in text else text


def first_heading(text: str) -> str:
    """The first Markdown heading's words; empty if there is none."""
    found = re.search(r"^#{1,6}[ \t]+([^\s#].*)$", text, re.MULTILINE)
    return found.group(1).rstrip("# \t") if found else ""


def decoded(data: bytes) -> str:
    """The characters of a text file: UTF-8, or UTF-16 that says so.

    Raises:
        DocumentError: It is neither.
    """
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} at {error.start:,}, line {line}"
        raise DocumentError(f"not {error.encoding.upper()} ({byte}). Save it as UTF-8.") from None


def joined(parts: Iterable[str], limits: Limits, between: str = "\n\n") -> str:
    """The parts that are not empty, one after another; the next part is only made while there is room.

    Raises:
        DocumentError: They have more than `limits.chars` characters.
    """
    kept: list[str] = []
    num_chars = 0
    for part in parts:
        if part:
            kept.append(part)
            num_chars += len(part) + len(between)
            if num_chars > limits.chars + len(between):
                raise too_long(limits)
    return between.join(kept)


def paged(pages: Sequence[str], title: str = "") -> Content:
    """Pages one after another, empty ones too, so that each keeps its number."""
    starts: list[int] = []
    at = 0
    for page in pages:
        starts.append(at)
        at += len(page) + 2
    return Content("\n\n".join(pages), title, tuple(starts))


def check_size(size_bytes: int, limits: Limits) -> None:
    """Refuses files that are too large, before they are read.

    Raises:
        DocumentError: There are more bytes than one file may have.
    """
    if size_bytes > limits.file_bytes:
        raise DocumentError(
            f"{size_bytes / 2**20:.0f} MB; at most {limits.file_bytes // 2**20} MB are read. Divide it."
        )


def too_long(limits: Limits) -> DocumentError:
    """The refusal of a text that has too many characters."""
    return DocumentError(f"gives more than {limits.chars:,} characters, the most that are read. Divide it.")
