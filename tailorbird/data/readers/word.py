"""The reader of Word documents."""

from __future__ import annotations

import io

from tailorbird.data.markup import html_to_text
from tailorbird.data.readers.archive import check_archive
from tailorbird.data.readers.content import Content, Limits, clean_text


def read_docx(data: bytes, limits: Limits) -> Content:
    """Headings, paragraphs, lists and tables, without images.

    Raises:
        DocumentError: Its zip looks hostile or is no Word document.
    """
    import mammoth

    check_archive(data, "word/document.xml", "Word document (.docx)", limits)
    result = mammoth.convert_to_html(
        io.BytesIO(data),
        include_embedded_style_map=False,
        style_map="p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh",
        convert_image=lambda _image: [],
    )
    title, text = html_to_text(result.value)
    return Content(clean_text(text).strip("\n"), title)
