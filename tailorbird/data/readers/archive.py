"""Looking at an Office file's zip before anything in it is parsed."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from tailorbird.data.readers.content import Limits
from tailorbird.errors import DocumentError

_CHUNK = 2**20
_DOCTYPE = b"<!DOCTYPE"


def check_archive(data: bytes, main_part: str, kind: str, limits: Limits) -> None:
    """Refuses bombs by the sizes they declare; zipfile reads no part beyond what it declares.

    Args:
        data: The zip.
        main_part: The part that this kind of file must have, such as `word/document.xml`.
        kind: What such a file is called, such as `Word document (.docx)`.
        limits: The most of it that is read.

    Raises:
        DocumentError: It is too large unpacked, of another kind, or declares entities.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        _check_sizes(parts, len(data), limits)
        if main_part not in archive.namelist():
            raise DocumentError(f"a zip without {main_part}, so no {kind}. Export it as one.")
        for part in parts:
            if _is_xml(part):
                with archive.open(part) as file:
                    _check_entities(file, part.filename)


def _is_xml(part: zipfile.ZipInfo) -> bool:
    return part.filename.lower().endswith((".xml", ".rels", ".vml"))


def _check_sizes(parts: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    unpacked = sum(part.file_size for part in parts)
    if len(parts) > limits.zip_parts or unpacked > min(limits.unpacked_bytes, limits.zip_ratio * size):
        found = f"{len(parts):,} parts, {unpacked / 2**20:.0f} MB unpacked from {size / 2**20:.1f} MB"
        raise DocumentError(f"looks like a zip bomb ({found}). If it is genuine, save it again or divide it.")
    xml = sum(part.file_size for part in parts if _is_xml(part))
    if xml > limits.xml_bytes:
        limit = f"at most {limits.xml_bytes / 2**20:.0f} MB are read"
        raise DocumentError(f"{xml / 2**20:.0f} MB of text and layout inside; {limit}. Divide it.")


def _check_entities(file: IO[bytes], name: str) -> None:
    """No Office program writes a DOCTYPE; entities that grow, or name other files, need one."""
    before = b""
    while chunk := file.read(_CHUNK):
        text = before + chunk.replace(b"\0", b"")  # without what UTF-16 has in between
        if _DOCTYPE in text:
            raise DocumentError(
                f"part {name} declares a DOCTYPE, which no Office program does. Save it anew from one."
            )
        before = text[-len(_DOCTYPE) :]
