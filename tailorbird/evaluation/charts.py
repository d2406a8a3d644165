"""The report's two plots as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tailorbird.evaluation.comparison import ArmResult, percent, seconds
from tailorbird.evaluation.markup import escape

WIDTH = 520
_LETTER = 6.6
_BOLD_LETTER = 7.4
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
    left = min(230.0, 20 + _BOLD_LETTER * max(len(a.name) for a, *_ in drawn))
    ticks = _share_ticks(min(low for _, _, low, _ in drawn), max(high for *_, high in drawn))
    x = Scale(ticks[0], ticks[-1], left, WIDTH - 54)
    bottom = 14 + 30 * len(drawn)
    parts = [vertical(x(t), bottom, f"{t * 100:g} %") for t in ticks]
    for row, (arm, score, low, high) in enumerate(drawn):
        y, mark, bold = 26 + 30 * row, " use" if arm.name == use else "", _strong(arm.name == use)
        parts += [
            f'<text x="0" y="{y + 4}"{bold}>{escape(_short(arm.name, 30))}</text>',
            f'<line class="span{mark}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot{mark}" cx="{x(score):.1f}" cy="{y}" r="5"/>',
            f'<text x="{WIDTH}" y="{y + 4}" text-anchor="end"{bold}>{percent(score)}</text>',
        ]
    return svg(bottom + 26, "Score of every arm with its 95 % interval", parts)


def latency_plot(arms: Sequence[ArmResult], use: str | None) -> str:
    """Quality against latency (log scale); arms that no other beats in both are joined."""
    drawn = [(a, a.score, a.latency_p50_s) for a in arms if a.score is not None and a.latency_p50_s]
    if not drawn:
        return ""
    height, left = 320, 44
    logs = [math.log10(latency) for *_, latency in drawn]
    x = Scale(math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1), left, WIDTH - 20)
    ticks = _share_ticks(min(s for _, s, _ in drawn), max(s for _, s, _ in drawn))
    y = Scale(ticks[0], ticks[-1], height - 34, 14)
    parts = [horizontal(y(t), left, f"{t * 100:g} %") for t in ticks]
    parts += [vertical(x(e), height - 34, seconds(10.0**e)) for e in range(int(x.low), int(x.high) + 1)]
    places = [(x(math.log10(latency)), y(score)) for _, score, latency in drawn]
    front = pareto_front([(latency, score) for _, score, latency in drawn])
    parts.append(_edge([places[i] for i in front]))
    labels = _Labels(list(places))
    for index in sorted(range(len(drawn)), key=lambda i: i not in front):
        arm, (px, py) = drawn[index][0], places[index]
        style = "front" if index in front else f"hollow{' use' if arm.name == use else ''}"
        parts.append(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        parts.append(labels.place(arm.name, px, py, strong=arm.name == use))
    return svg(height, "Score against the median latency of one answer", parts)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, quality) points that no other point beats, by rising cost.

    >>> pareto_front([(1, 0.5), (2, 0.4), (3, 0.9)])
    [0, 2]
    """
    front: list[int] = []
    best = -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front


class _Labels:
    """Puts each label where it covers no point and no other label, if there is such a place."""

    def __init__(self, points: list[tuple[float, float]]) -> None:
        self.taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in points]

    def place(self, name: str, px: float, py: float, *, strong: bool) -> str:
        text = _short(name, 28)
        width = (_BOLD_LETTER if strong else _LETTER) * len(text)
        places = [
            (px + 10, py + 4),
            (px - 10 - width, py + 4),
            (px - width / 2, py - 11),
            (px - width / 2, py + 20),
        ]
        places += [
            (px + 10, py + 18),
            (px + 10, py - 10),
            (px - 10 - width, py + 18),
            (px - 10 - width, py - 10),
        ]
        tx, ty = min(places, key=lambda at: self._covered(at, width))
        self.taken.append((tx, ty - 11, tx + width, ty + 3))
        return f'<text x="{tx:.1f}" y="{ty:.1f}"{_strong(strong)}>{escape(text)}</text>'

    def _covered(self, at: tuple[float, float], width: float) -> float:
        left, top, right, bottom = at[0], at[1] - 11, at[0] + width, at[1] + 3
        # Letters are only estimated, so the right edge is kept clear by a few.
        outside = 1000.0 * (left < 44 or right > WIDTH - 16 or top < 0)
        return outside + sum(
            max(0.0, min(right, r) - max(left, x)) * max(0.0, min(bottom, b) - max(top, t))
            for x, t, r, b in self.taken
        )


def _share_ticks(low: float, high: float) -> list[float]:
    """Round shares of 1 around a range, four to seven of them."""
    step = next((s for s in _STEPS if (high - low) / s <= 5), _STEPS[-1])
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first, last = (first - 1, last + 1) if first == last else (first, last)
    return [round(i * step, 6) for i in range(max(0, first), min(round(1 / step), last) + 1)]


def _edge(places: Sequence[tuple[float, float]]) -> str:
    return '<polyline class="edge" points="' + " ".join(f"{px:.1f},{py:.1f}" for px, py in places) + '"/>'


def vertical(x: float, bottom: float, text: str) -> str:
    """A line of the grid at one value of the horizontal axis."""
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{bottom}"/>'
    return f'{line}<text class="quiet" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'


def horizontal(y: float, left: float, text: str) -> str:
    """A line of the grid at one value of the vertical axis."""
    line = f'<line class="grid" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="quiet" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _strong(on: bool) -> str:
    return ' class="strong"' if on else ""


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def svg(height: float, title: str, parts: Sequence[str]) -> str:
    """The whole drawing."""
    head = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
    return head + f"<title>{escape(title)}</title>" + "".join(parts) + "</svg>"
