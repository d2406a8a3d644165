"""Small pieces of HTML; every text from outside passes through `escape`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def escape(text: object) -> str:
    """Any value as text that HTML and SVG show as it is; control characters become visible.

    >>> escape("<script>alert(1)</script>")
    '&lt;script&gt;alert(1)&lt;/script&gt;'
    """
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def shortened(text: str, letters: int) -> str:
    """The text, or its beginning with the number of letters left out."""
    return text if len(text) <= letters else f"{text[:letters]} … ({len(text) - letters} more characters)"


def table(columns: Sequence[str], rows: Iterable[str], *, style: str = "") -> str:
    """A table that scrolls by itself where the page is narrow; `rows` are made by `row`."""
    head = "".join(_column(column) for column in columns)
    body = "".join(rows)
    label = ", ".join(filter(None, columns))
    mark = f' class="{style}"' if style else ""
    return scroll(
        f"<table{mark}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", f"Table: {label}"
    )


def _column(name: str) -> str:
    return f'<th scope="col">{escape(name)}</th>' if name else "<td></td>"


def row(cells: Iterable[str], style: str = "") -> str:
    """A row of cells that are HTML already; the first says what the row is about."""
    mark = f' class="{style}"' if style else ""
    first, *rest = cells
    return f'<tr{mark}><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"


def scroll(body: str, label: str) -> str:
    """Something wide, HTML already, that is moved sideways by touch, mouse or arrow keys; the label names it."""
    return f'<div class="scroll" role="group" tabindex="0" aria-label="{escape(label)}">{body}</div>'


def section(title: str, *parts: str) -> str:
    """A part of the page with a heading; nothing where there is nothing to show."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def details(summary: str, body: str) -> str:
    """Something shown when asked for; `body` is HTML already."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def tag(text: str, style: str = "") -> str:
    """A small label."""
    return f'<span class="tag{" " + style if style else ""}">{escape(text)}</span>'


def figure(title: str, svg: str, caption: str) -> str:
    """A drawing with a heading and a caption; nothing where nothing is drawn."""
    if not svg:
        return ""
    return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def page(title: str, body: str) -> str:
    """A whole page that loads nothing; `body` is HTML already."""
    style = files("tailorbird.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Tailorbird</title><style>{style}</style></head>"
        f'<body><a class="skip" href="#content">Skip to the content</a><main id="content">{body}</main>'
        "</body></html>\n"
    )
