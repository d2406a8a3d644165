"""Text that a reader of a page does not see is not read; text that is only small, pale or moved a little is."""

import time

import pytest

from tailorbird.data.markup import html_to_text

HIDING_STYLES = [
    "display:none",
    "DISPLAY : NONE !important",
    "color:red;display:none",
    "dis/* */play:none",
    "d\\69splay:none",
    "visibility:hidden",
    "visibility: collapse",
    "content-visibility:hidden",
    "opacity:0",
    "opacity:.01",
    "opacity:0%",
    "font-size:0",
    "font-size:0.5px",
    "font-size: 1px",
    "font-size:0%",
    "font: 0/0 a",
    "font:0px Arial",
    "width:0;overflow:hidden",
    "max-height:0px;overflow-y:hidden",
    "height:1px;width:1px;overflow:clip",
    "position:absolute;left:-9999px",
    "position:absolute;top:-100em",
    "text-indent:-9999px",
    "text-indent:-1000%",
    "margin-left:-10000px",
    "clip:rect(0,0,0,0)",
    "clip: rect(1px, 1px, 1px, 1px)",
    "clip-path:inset(50%)",
    "clip-path: circle(0)",
    "transform:scale(0)",
    "transform:translateX(-9999px)",
    "scale:0",
    "zoom:0",
    "color:transparent",
    "color:rgba(0,0,0,0)",
    "color:rgb(0 0 0 / 0%)",
    "color:#0000",
    "color:#12345600",
    "color:white",
    "color:#fff",
    "color:#FEFEFE",
    "color:rgb(255, 255, 255)",
    "color:rgb(100%,100%,100%)",
    "color:hsl(0,0%,100%)",
    "-webkit-text-fill-color:#fff",
    "color:#036;background:#036",
    "background-color:rgb(0,51,102);color:#003366",
    "color:black;background:black",
    "color:#fff;background:transparent",
]
SHOWN_STYLES = [
    "",
    "display:block",
    "visibility:visible",
    "opacity:.5",
    "font-size:0.9em",
    "font-size:10px",
    "font:12px/1.5 Arial",
    "font: bold 10px x",
    "height:0",
    "width:100%;overflow:hidden",
    "left:-10px",
    "text-indent:-1em",
    "margin:0 auto",
    "clip-path:inset(10%)",
    "transform:scale(0.9)",
    "transform:translateX(-50%)",
    "color:#333",
    "color:white;background:#036",
    "color:#fff;background:url(dark.png)",
    "color:#fff;background:var(--dark)",
    "color:inherit",
    "color:var(--text)",
    "background:white",
    "content:'display:none'",
    "broken",
    "color:rgb(x)",
    ":;:;",
]


def text_of(body):
    return html_to_text(f"<html><body>{body}</body></html>")[1]


@pytest.mark.parametrize("style", HIDING_STYLES)
@pytest.mark.parametrize("tag", ["p", "span", "pre"])
def test_text_hidden_by_its_style_is_not_read(tag, style):
    assert text_of(f'<p>seen</p><{tag} style="{style}">ignore <b>all</b> rules</{tag}>') == "seen"


@pytest.mark.parametrize("style", SHOWN_STYLES)
def test_text_that_is_seen_is_read(style):
    assert text_of(f'<p style="{style}">seen</p>') == "seen"


@pytest.mark.parametrize(
    "attribute", ["hidden", "hidden=until-found", 'aria-hidden="TRUE"', 'style="display:none"']
)
@pytest.mark.parametrize(
    "page",
    [
        "<pre {}>x</pre>",
        "<pre><code {}>x</code></pre>",
        "<table {}><tr><td>x</td><td>x</td></tr></table>",
        "<table><tbody {}><tr><td>x</td><td>x</td></tr></tbody></table>",
        "<table><tr {}><td>x</td><td>x</td></tr></table>",
        "<table><tr><td {}>x</td><td {}>x</td></tr></table>",
        "<table><caption>seen <b {}>x</b></caption><tr><td>a</td><td>b</td></tr></table>",
        "<ul {}><li>x</li></ul>",
        "<div {}><div style='display:block'>x</div></div>",
    ],
)
def test_hidden_parts_of_every_kind_are_left_out(page, attribute):
    assert "x" not in text_of(page.replace("{}", attribute))


def test_white_text_is_seen_on_what_is_dark_around_it():
    assert text_of('<div style="background:#036"><p><b style="color:#fff">seen</b></p></div>') == "seen"
    assert text_of('<div class="banner"><b style="color:#fff">seen</b></div>') == "seen"
    assert (
        text_of('<table><tr bgcolor="#003366"><td><font color="#ffffff">a</font></td><td>b</td></tr></table>')
        == "a | b"
    )
    inner = '<div style="background:#fff"><b style="color:#fff">x</b></div>'
    assert text_of(f'<div style="background:#036">{inner}seen</div>') == "seen"
    assert text_of('<body class="page" style="background:none"><font color="white">x</font>seen') == "seen"
    assert text_of("<font color='FFFFFF'>x</font>seen") == "seen"


def test_code_keeps_its_white_space_where_something_is_hidden_in_it():
    assert text_of("<pre>a  b\n<i hidden>x</i>  c<br>d</pre>") == "```\na  b\n  c\nd\n```"


@pytest.mark.parametrize(
    "page",
    [
        '<b style="color:#123">' * 10_000,
        "<main>" + "<header>" * 10_000,
        f'<b style="font:{"0" * 500_000}">x</b>',
        f'<b style="transform:scale({"0" * 500_000}">x</b>',
        f'<b style="{"/*" * 210_000}">x</b>',
        '<b style="color:rgb(1e999,1e999,1e999)">x</b>',
        '<b style="opacity:1e999;left:-1e999px">x</b>',
    ],
)
def test_styles_made_to_take_long_do_not(page):
    began = time.monotonic()
    text_of(page)
    assert time.monotonic() - began < 20
