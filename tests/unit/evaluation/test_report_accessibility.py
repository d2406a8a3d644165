"""What a reader with a keyboard, a screen reader or weak eyes needs of the report."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from scripted_arms import Failing, Scripted, classify_data

from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.report import render_report

CSS = (Path(__file__).parents[3] / "tailorbird" / "evaluation" / "report.css").read_text(encoding="utf-8")
TEXT, GRAPHICS = 4.5, 3.0
"""Contrast that WCAG 2.2 asks of text (1.4.3, AA) and of what a drawing says (1.4.11)."""


class Elements(HTMLParser):
    """Every element with its attributes and the path to it."""

    def __init__(self):
        super().__init__()
        self.path, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), tuple(self.path)))
        if tag not in ("meta", "br", "wbr"):
            self.path.append(tag)

    def handle_endtag(self, tag):
        assert self.path.pop() == tag

    def all(self, *tags):
        return [(tag, attributes, path) for tag, attributes, path in self.found if tag in tags]


@pytest.fixture(scope="module")
def page():
    data = classify_data()
    arms = [
        Arm("base", lambda: Scripted(0.3, "b")),
        Arm("tfidf_linear", lambda: Scripted(0.6, "t"), floor=True),
        Arm("few_shot", lambda: Scripted(0.8, "f")),
        Arm("remote", Failing),
    ]
    text = render_report(compare(arms, data, default_metrics(data.task), primary="accuracy"))
    found = Elements()
    found.feed(text)
    found.text = text
    return found


def test_the_page_says_its_language_and_begins_with_a_way_past_what_repeats(page):
    assert page.all("html")[0][1]["lang"] == "en"
    tag, link, _ = next(e for e in page.found if e[2] and e[2][-1] == "body")
    assert (tag, link["href"]) == ("a", "#content")
    assert [a.get("id") for _, a, _ in page.all("main")] == ["content"]


def test_headings_begin_with_one_h1_and_leave_out_no_level(page):
    levels = [int(tag[1]) for tag, *_ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_drawing_has_a_name_and_says_its_numbers(page):
    drawings = page.all("svg")
    assert len(drawings) >= 6
    assert all(a["role"] == "img" and a["aria-label"] for _, a, _ in drawings)
    described = re.findall(r"<svg [^>]*><title>[^<]+</title><desc>([^<]+)</desc>", page.text)
    assert len(described) == len(drawings)
    assert all(re.search(r"\d (%|points)", text) for text in described)


def test_every_table_names_its_columns_and_rows(page):
    headers = page.all("th")
    assert all(a["scope"] == ("col" if "thead" in path else "row") for _, a, path in headers)
    tables = re.findall(r"<table.*?</table>", page.text, flags=re.DOTALL)
    assert len(tables) > 5
    assert all('scope="row"' in table for table in tables)


def test_what_scrolls_can_be_reached_by_keyboard_and_is_named(page):
    scrolling = [a for _, a, _ in page.all("div") if a.get("class") == "scroll"]
    assert scrolling
    assert all(a["tabindex"] == "0" and a["role"] == "group" and a["aria-label"] for a in scrolling)


def test_no_identifier_is_given_twice(page):
    identifiers = [a["id"] for _, a, _ in page.found if "id" in a]
    assert len(set(identifiers)) == len(identifiers)


# -- contrast ---------------------------------------------------------------------------------------


def colours(scheme):
    """The style sheet's colours by name, in light or in dark."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[0]))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[1]))
    return {name: [int(value[i : i + 2], 16) for i in (1, 3, 5)] for name, value in found.items()}


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    lighter, darker = sorted([luminance(one), luminance(other)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standards_own_examples():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([0x77, 0x77, 0x77], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_everything_it_stands_on(scheme):
    known = colours(scheme)
    pairs = [
        *((ink, ground) for ink in ("ink", "quiet") for ground in ("paper", "card", "wash", "accent-wash")),
        *(("accent", ground) for ground in ("paper", "card", "accent-wash")),
        *(("bad", ground) for ground in ("paper", "card")),
        ("warn", "warn-wash"),
    ]
    low = {pair: ratio for pair in pairs if (ratio := contrast(known[pair[0]], known[pair[1]])) < TEXT}
    assert low == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_points_stand_out_from_their_ground(scheme):
    known = colours(scheme)
    low = {c: r for c in ("dot", "accent", "quiet") if (r := contrast(known[c], known["card"])) < GRAPHICS}
    assert low == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_can_be_read_on_every_shade_of_the_map(scheme):
    known = colours(scheme)
    shades = re.findall(
        r"\.(hit|miss)(\d) \{ background: color-mix\(in srgb, var\(--(\w+)\) (\d+)%, var\(--(\w+)\)\)", CSS
    )
    assert len(shades) == 10
    for _, _, colour, percent, ground in shades:
        share = int(percent) / 100
        mixed = [share * c + (1 - share) * g for c, g in zip(known[colour], known[ground], strict=True)]
        assert contrast(known["ink"], mixed) >= TEXT, (colour, percent, scheme)


def test_paper_is_printed_in_the_light_colours():
    assert "@media screen and (prefers-color-scheme: dark)" in CSS
    assert "prefers-color-scheme" not in CSS.split("@media print")[1]
