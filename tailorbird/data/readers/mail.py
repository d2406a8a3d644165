"""The reader of e-mails."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

from tailorbird.data.markup import html_to_text
from tailorbird.data.readers.content import Content, Limits, clean_text, joined
from tailorbird.errors import DocumentError

_SHOWN = ("From", "To", "Cc", "Date")
_HEADER_CHARS = 1_000
"""A longer line of addresses is cut, and says so by an ellipsis."""


def read_eml(data: bytes, limits: Limits) -> Content:
    """The subject as heading and title, who wrote to whom and when, and the text, or else the HTML as text.

    Attachments are named and not read, e-mails in the e-mail among them. The date is as in ISO 8601.

    Raises:
        DocumentError: It is no e-mail, or has more characters than are read.
    """
    from email import message_from_bytes, policy

    message: Any = message_from_bytes(data, policy=policy.default)
    if not any(name in message for name in (*_SHOWN, "Subject")):
        raise DocumentError(
            "no e-mail: it does not begin with From, To, Subject or Date. Rename it, or save the e-mail again."
        )
    subject = _header(message, "Subject")
    return Content(clean_text(joined(_parts(message, subject), limits)).strip(), clean_text(subject))


def _parts(message: EmailMessage, subject: str) -> Iterator[str]:
    yield f"# {subject}" if subject else ""
    yield "\n".join(f"{name}: {value}" for name in _SHOWN if (value := _header(message, name)))
    body: Any = message.get_body(("plain", "html"))
    if body is not None:
        yield _body(body)
    names = [name for part in message.iter_attachments() if part is not body and (name := _name(part))]
    if names:
        yield f"Attached, not read here: {', '.join(names)}"


def _header(message: EmailMessage, name: str) -> str:
    value: Any = message[name]
    moment = getattr(value, "datetime", None)
    words = " ".join(str(value or "").split())
    return moment.isoformat() if moment else words[:_HEADER_CHARS] + "…" * (len(words) > _HEADER_CHARS)


def _body(part: Any) -> str:
    try:
        text = str(part.get_content())
    except LookupError:  # a character set that nobody knows
        text = part.get_payload(decode=True).decode("utf-8", "replace")
    return html_to_text(text)[1] if part.get_content_type() == "text/html" else text.strip("\r\n")


def _name(part: Any) -> str:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_payload()
        return f"e-mail “{_header(inner[0], 'Subject')}”" if inner else "e-mail"
    kind = "" if part.is_multipart() else part.get_content_type()
    return " ".join((part.get_filename() or kind).split())
