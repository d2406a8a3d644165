"""Bytes of an unknown sender, counted, and unpacked no further than a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tailorbird.errors import DocumentError

MAX_PARTS = 100
"""Compressed pieces one after the other; each costs time, however small it is."""


def unpacked(data: bytes, size_bytes: int) -> bytes:
    """The content of gzip data, of which there may be several parts, one after the other.

    Raises:
        DocumentError: It unpacks to more than `size_bytes`, is damaged, or ends early.
    """
    return b"".join(unpack(iter([data]), size_bytes))


def too_large(size_bytes: int) -> DocumentError:
    """The error of what is larger than a limit."""
    return DocumentError(f"larger than {size_bytes:,} bytes, which is the most that is read.")


def counted(chunks: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """The same chunks, as long as they hold no more than `size_bytes` together.

    Raises:
        DocumentError: They hold more.
    """
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > size_bytes:
            raise too_large(size_bytes)
        yield chunk


def unpack(chunks: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    """Unpacks gzip piece by piece; never more than one byte above the limit is made.

    Raises:
        DocumentError: It unpacks to more than `size_bytes`, is damaged, or ends early.
    """
    left = size_bytes
    part = zlib.decompressobj(16 + zlib.MAX_WBITS)
    num_parts = 0
    for chunk in chunks:
        data = chunk
        while data:
            if part.eof or num_parts == 0:
                num_parts += 1
                part = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                piece = part.decompress(data, left + 1)
            except zlib.error as error:
                raise DocumentError(f"is packed by gzip but damaged ({error}).") from None
            left -= len(piece)
            if left < 0 or num_parts > MAX_PARTS:
                raise too_large(size_bytes)
            yield piece
            data = part.unconsumed_tail or part.unused_data
    if num_parts and not part.eof:
        raise DocumentError("is packed by gzip and ends early. Try again later.")
