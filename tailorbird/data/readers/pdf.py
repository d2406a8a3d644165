"""The reader of PDF."""

from __future__ import annotations

import re
from typing import Any

from tailorbird.data.readers.content import Content, Limits, clean_text, paged, too_long
from tailorbird.errors import DocumentError


def read_pdf(data: bytes, limits: Limits) -> Content:
    """The text of each page; scans give none. PDFium is not thread-safe: one thread at a time.

    Raises:
        DocumentError: It is encrypted, or has too many pages or characters.
    """
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError("encrypted with a password. Save it without one.") from None
        raise
    with pdf:
        if len(pdf) > limits.pages:
            raise DocumentError(f"{len(pdf):,} pages; at most {limits.pages:,} are read. Divide it.")
        pages = _pages(pdf, limits)
        title = clean_text(pdf.get_metadata_dict().get("Title", "")).strip()
    return paged(pages, title)


def _pages(pdf: Any, limits: Limits) -> list[str]:
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
        if num_chars > limits.chars:
            raise too_long(limits)
    return pages
