"""The pieces that the report's plots are drawn with, and the plot of scores, as inline SVG.

Colours come from the page's style sheet. A plot is one image to a screen reader: its title says what it
shows and its description says every number in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tailorbird.evaluation.comparison import ArmResult, percent
from tailorbird.evaluation.markup import escape

WIDTH = 420
LETTER = 7.1
BOLD_LETTER = 7.9
ROW = 40
"""Height of one arm in a plot with an arm a row: its name and number, and below them its interval."""
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def intervals_plot(arms: Sequence[ArmResult], use: str | None) -> str:
    """A forest plot: every arm's score and its 95 % interval on one scale."""
    drawn = [
        (a, a.score, a.low, a.high)
        for a in arms
        if a.score is not None and a.low is not None and a.high is not None
    ]
    ticks = share_ticks(min(low for _, _, low, _ in drawn), max(high for *_, high in drawn))
    x = Scale(ticks[0], ticks[-1], 20, WIDTH - 24)
    bottom = 12 + ROW * len(drawn)
    parts = [vertical(x(t), bottom, f"{t * 100:g} %") for t in ticks]
    for row, (arm, score, low, high) in enumerate(drawn):
        style = "dot use" if arm.name == use else "dot"
        parts.append(arm_row(row, arm.name, percent(score), strong=arm.name == use))
        parts.append(span(row, x(low), x(score), x(high), style))
    said = [
        f"{a.name} {percent(score)} % ({percent(low)} to {percent(high)})" for a, score, low, high in drawn
    ]
    return svg(bottom + 26, "Score of every arm with its 95 % interval", parts, "; ".join(said))


def arm_row(row: int, name: str, number: str, *, strong: bool) -> str:
    """The name of an arm and its number, above the place of its interval."""
    y, bold = 20 + ROW * row, weight(strong)
    return (
        f'<text x="0" y="{y}"{bold}>{escape(short(name, 40))}</text>'
        f'<text x="{WIDTH}" y="{y}" text-anchor="end"{bold}>{number}</text>'
    )


def span(row: int, low: float, at: float, high: float, style: str) -> str:
    """An interval and its estimate in a row, by horizontal places; `style` is the estimate's."""
    y = 34 + ROW * row
    mark = " use" if "use" in style else ""
    return (
        f'<line class="span{mark}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="{style}" cx="{at:.1f}" cy="{y}" r="5"/>'
    )


def share_ticks(low: float, high: float, *, least: float = 0.0) -> list[float]:
    """Round numbers around a range of shares of 1, four to seven of them, none below `least` or above 1."""
    step = next((s for s in _STEPS if (high - low) / s <= 5), _STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first, last = (first - 1, last + 1) if first == last else (first, last)
    return [
        round(i * step, 6) for i in range(max(round(least / step), first), min(round(1 / step), last) + 1)
    ]


def vertical(x: float, bottom: float, text: str) -> str:
    """A line of the grid at one value of the horizontal axis."""
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom}"/>'
    return (
        f'{line}<text class="quiet" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>'
    )


def horizontal(y: float, left: float, text: str) -> str:
    """A line of the grid at one value of the vertical axis."""
    line = f'<line class="grid" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="quiet" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'


def weight(strong: bool) -> str:
    """The attribute of a text that is set bold, if it is."""
    return ' class="strong"' if strong else ""


def short(name: str, letters: int) -> str:
    """A name, cut where it has more letters than there is room for."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def svg(height: float, title: str, parts: Sequence[str], description: str = "", width: float = WIDTH) -> str:
    """The whole drawing; the description says in words what can be seen in it."""
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
    said = f"<desc>{escape(description)}</desc>" if description else ""
    return head + f"<title>{escape(title)}</title>{said}" + "".join(parts) + "</svg>"
