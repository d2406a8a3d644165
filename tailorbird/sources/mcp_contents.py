"""What an MCP server holds or says, as documents: by the parsers that files go through, within their limits."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tailorbird.data.documents import Unreadable, document_from_bytes
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.kinds import KINDS, KNOWN_KINDS
from tailorbird.errors import DocumentError
from tailorbird.records import Document

MIME_KINDS = {
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/pdf": ".pdf",
    "message/rfc822": ".eml",
    "text/x-python": ".py",
    "application/x-ipynb+json": ".ipynb",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
}
"""MIME types that are read, and as what kind of file."""
UNTELLING = frozenset({"", "text/plain", "application/octet-stream"})
"""MIME types that say less than the end of a name."""
MAX_CONTENTS = 200
"""Parts of one resource that are read."""


def documents_of(
    uri: str, contents: Sequence[Any], parser: ParserProcess, title: str = ""
) -> Iterator[Document | Unreadable]:
    """A resource's contents, each as a document or the reason why it is none; ids are their own URIs, each once.

    Args:
        uri: of the resource.
        contents: `TextResourceContents` and `BlobResourceContents` of the SDK.
        parser: parses what may be hostile.
        title: stands where the content itself names none.
    """
    given: set[str] = set()
    for number, content in enumerate(contents[:MAX_CONTENTS], 1):
        name = str(content.uri or uri)
        id_ = name if name not in given else f"{uri}#{number}"
        given.add(id_)
        try:
            yield document_of_content(id_, content, parser, title)
        except DocumentError as error:
            yield Unreadable(id_, str(error).removeprefix(f"{id_}: "))
    if len(contents) > MAX_CONTENTS:
        yield Unreadable(f"{uri}#rest", f"it has {len(contents):,} parts; at most {MAX_CONTENTS} are read.")


def document_of_content(id_: str, content: Any, parser: ParserProcess, title: str = "") -> Document:
    """One content as a document.

    Raises:
        DocumentError: it is of a kind that is not read, too large, damaged, or without text.
    """
    text = getattr(content, "text", None)
    suffix = suffix_of(id_, str(content.mime_type or ""), is_text=text is not None)
    data = text.encode("utf-8", "replace") if text is not None else _blob(id_, content.blob, parser)
    if len(data) > parser.limits.file_bytes:
        raise DocumentError(f"{id_}: larger than {parser.limits.file_bytes:,} bytes, the most that is read.")
    document = document_from_bytes(id_, data, suffix, parser)
    named = document.title and document.title != PurePosixPath(id_).stem
    return document if named or not title else replace(document, title=title)


def suffix_of(uri: str, mime: str, *, is_text: bool) -> str:
    """The kind of file that a content is, such as `.pdf`: by its MIME type, or where that says little by its URI's end.

    Raises:
        DocumentError: it is of no kind that is read.
    """
    kind = mime.partition(";")[0].strip().lower()
    parts = urlsplit(uri)
    ending = PurePosixPath(parts.path.strip("/") or parts.netloc).suffix.lower()
    if kind in UNTELLING and ending in KINDS:
        return ending
    if kind in MIME_KINDS:
        return MIME_KINDS[kind]
    if is_text:
        return ".txt"
    raise DocumentError(f"{uri}: is of the kind {kind or 'that nobody names'}; expected {KNOWN_KINDS}.")


def _blob(id_: str, blob: str, parser: ParserProcess) -> bytes:
    if len(blob) > parser.limits.file_bytes * 4 // 3 + 4:
        raise DocumentError(f"{id_}: larger than {parser.limits.file_bytes:,} bytes, the most that is read.")
    try:
        return base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise DocumentError(f"{id_}: is no base64, as contents that aren't text are sent.") from None
