"""Readers of text, Markdown and HTML."""

from __future__ import annotations

import re

from tailorbird.data.markup import html_to_text
from tailorbird.data.readers.content import Content, Limits, clean_text, decoded


def read_text(data: bytes, _limits: Limits) -> Content:
    """The file's lines as they are."""
    return Content(clean_text(decoded(data)).strip("\n"))


def read_markdown(data: bytes, _limits: Limits) -> Content:
    """The text without what a reader of the page does not see; the title is the front matter's."""
    text = clean_text(decoded(data)).strip("\n")
    front = re.match(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|$)", text, re.DOTALL)
    title = ""
    if front:
        found = re.search(r"^title:(.*)$", front.group(1) or "", re.MULTILINE)
        title = found.group(1).strip(" \t\"'") if found else ""
        text = text[front.end() :]
    return Content(without_markup(text).strip("\n"), title)


def without_markup(text: str) -> str:
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


def read_html(data: bytes, _limits: Limits) -> Content:
    """The page's text with headings, lists and tables."""
    title, text = html_to_text(data)
    return Content(clean_text(text).strip("\n"), clean_text(title))
