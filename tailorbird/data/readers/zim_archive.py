"""The reader of ZIM archives: the pages in them, in the order of their paths.

libzim is GPL, and an extra. This module runs only in a process of its own, so that neither its licence
nor its crashes reach further.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.entries import Entry
from tailorbird.errors import DocumentError

PAGES = ("text/html", "application/xhtml+xml")


def zim_entries(place: str, _settings: Mapping[str, Any], limits: Limits) -> Iterator[Entry]:
    """The archive's HTML pages; redirects, images, scripts and indexes are none.

    Raises:
        DocumentError: It is no ZIM archive, or damaged.
    """
    from libzim.reader import Archive

    try:
        archive = Archive(Path(place))
        count = archive.entry_count
    except RuntimeError as error:
        raise _damaged(error) from None
    for number in range(count):
        entry = archive._get_entry_by_id(number)  # noqa: SLF001  -- the only way to all entries
        if not entry.is_redirect:
            item = entry.get_item()
            if item.mimetype.partition(";")[0].strip().lower() in PAGES:
                yield _entry(item, limits)


def _entry(item: Any, limits: Limits) -> Entry:
    def load() -> bytes:
        return bytes(item.content)

    version = hashlib.blake2b(item.content).hexdigest()[:16] if item.size <= limits.file_bytes else ""
    return Entry(item.path, version, load, item.title, item.size)


def _damaged(error: Exception) -> DocumentError:
    return DocumentError(
        f"is no ZIM archive, or a damaged one ({error}). Get it again, and compare its checksum."
    )
