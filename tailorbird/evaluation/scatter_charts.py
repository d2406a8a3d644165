"""Quality against what it takes: the latency of an answer, and its cost. Both axes of cost are logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tailorbird.evaluation.charts import (
    BOLD_LETTER,
    LETTER,
    WIDTH,
    Scale,
    horizontal,
    share_ticks,
    short,
    svg,
    vertical,
    weight,
)
from tailorbird.evaluation.comparison import ArmResult, money, percent, seconds
from tailorbird.evaluation.markup import escape

HEIGHT, LEFT = 300, 44
BOTTOM = HEIGHT - 34
MOST_TICKS = 5

Point = tuple[ArmResult, float, float]
"""An arm, its score, and what an answer takes."""


def latency_plot(arms: Sequence[ArmResult], use: str | None) -> str:
    """Score against the median latency of one answer; arms that no other beats in both are joined."""
    drawn = [(a, a.score, a.latency_p50_s) for a in arms if a.score is not None and a.latency_p50_s]
    return _scatter(drawn, use, "Score against the median latency of one answer", seconds, seconds)


def cost_plot(arms: Sequence[ArmResult], use: str | None) -> str:
    """Score against the cost of 1,000 answers; what costs nothing stands at the left edge.

    Nothing where no arm costs anything: there is nothing to weigh.
    """
    drawn = [(a, a.score, a.cost_per_1k) for a in arms if a.score is not None and a.cost_per_1k is not None]
    if not any(cost for *_, cost in drawn):
        return ""
    return _scatter(drawn, use, "Score against the cost of 1,000 answers", money, _dollars)


def _dollars(power: float) -> str:
    """A power of ten in dollars, however small: "$0.00001"."""
    return f"${power:.12f}".rstrip("0").rstrip(".")


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


def _scatter(
    drawn: Sequence[Point],
    use: str | None,
    title: str,
    text: Callable[[float], str],
    tick: Callable[[float], str],
) -> str:
    if not drawn:
        return ""
    x = _Powers([value for *_, value in drawn])
    ticks = share_ticks(min(s for _, s, _ in drawn), max(s for _, s, _ in drawn))
    y = Scale(ticks[0], ticks[-1], BOTTOM, 14)
    parts = [horizontal(y(t), LEFT, f"{t * 100:g} %") for t in ticks]
    named = [(place, "free" if value == 0 else tick(value)) for value, place in x.ticks()]
    parts += [vertical(place, BOTTOM, name) for place, name in _readable(named)]
    places = [(x(value), y(score)) for _, score, value in drawn]
    front = pareto_front([(value, score) for _, score, value in drawn])
    parts.append(_edge([places[i] for i in front]))
    labels = _Labels(list(places))
    # The front's names are placed first, while there is most room.
    for index in sorted(range(len(drawn)), key=lambda i: i not in front):
        arm, (px, py) = drawn[index][0], places[index]
        style = "front" if index in front else f"hollow{' use' if arm.name == use else ''}"
        parts.append(f'<circle class="{style}" cx="{px:.1f}" cy="{py:.1f}" r="5"/>')
        parts.append(labels.place(arm.name, px, py, strong=arm.name == use))
    said = [f"{arm.name} {percent(score)} %, {text(value)}" for arm, score, value in drawn]
    best = ", ".join(drawn[i][0].name for i in front)
    return svg(HEIGHT, title, parts, f"{'; '.join(said)}. No arm beats these in both: {best}.")


def _readable(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Ticks whose names don't run into each other: the outermost stay, of the others those that have room."""
    if not ticks:
        return []
    ordered = sorted(ticks)
    half = [LETTER * len(name) / 2 + 3 for _, name in ordered]
    first, kept = ordered[0][0] + half[0], list[tuple[float, str]]()
    taken = math.inf
    for (place, name), width in reversed(list(zip(ordered, half, strict=True))[1:]):
        if place + width <= taken and place - width >= first:
            kept.append((place, name))
            taken = place - width
    return [tick for tick in ticks if tick in (ordered[0], *kept)]


class _Powers:
    """A logarithmic axis over the powers of ten around the values; 0 has a place left of them."""

    def __init__(self, values: Sequence[float]) -> None:
        logs = [math.log10(value) for value in values if value > 0]
        self.zero = any(value == 0 for value in values)
        self.first = math.floor(min(logs))
        self.last = max(math.ceil(max(logs)), self.first + 1)
        self.scale = Scale(self.first, self.last, LEFT + (46 if self.zero else 8), WIDTH - 28)

    def __call__(self, value: float) -> float:
        return LEFT + 8 if value == 0 else self.scale(math.log10(value))

    def ticks(self) -> list[tuple[float, float]]:
        """Values and their places; of many powers only every second or third, the last among them."""
        every = math.ceil((self.last - self.first) / MOST_TICKS)
        values = [10.0**e for e in range(self.last, self.first - 1, -every)]
        return [(value, self(value)) for value in ([0.0, *values] if self.zero else values)]


class _Labels:
    """Puts each label where it covers no point and no other label, if there is such a place."""

    def __init__(self, points: list[tuple[float, float]]) -> None:
        self.taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in points]

    def place(self, name: str, px: float, py: float, *, strong: bool) -> str:
        text = short(name, 28)
        width = (BOLD_LETTER if strong else LETTER) * len(text)
        beside = [
            (px + 10, py + 4),
            (px - 10 - width, py + 4),
            (px - width / 2, py - 11),
            (px - width / 2, py + 20),
        ]
        beside += [(px + dx, py + dy) for dy in (18, -10, 32, -24, 46, -38) for dx in (10, -10 - width)]
        tx, ty = at = min(beside, key=lambda at: self._covered(at, width))
        self.taken.append((tx, ty - 11, tx + width, ty + 3))
        # Left of its point a name ends where it should, however wide a font makes it.
        on_left = tx + width <= px
        place = f'x="{tx + width:.1f}" text-anchor="end"' if on_left else f'x="{tx:.1f}"'
        label = f'<text {place} y="{ty:.1f}"{weight(strong)}>{escape(text)}</text>'
        if at in beside[:4]:
            return label
        # Further away it might be read as the name of another point.
        x, y = min(max(px, tx), tx + width), ty - 11 if ty > py else ty + 3
        return f'<line class="leader" x1="{px:.1f}" y1="{py:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>{label}'

    def _covered(self, at: tuple[float, float], width: float) -> float:
        left, top, right, bottom = at[0], at[1] - 11, at[0] + width, at[1] + 3
        # Letters are only estimated, so the right edge is kept clear by a few.
        outside = 1000.0 * (left < LEFT or right > WIDTH - 16 or top < 0 or bottom > BOTTOM)
        return outside + sum(
            max(0.0, min(right, r) - max(left, x)) * max(0.0, min(bottom, b) - max(top, t))
            for x, t, r, b in self.taken
        )


def _edge(places: Sequence[tuple[float, float]]) -> str:
    return '<polyline class="edge" points="' + " ".join(f"{px:.1f},{py:.1f}" for px, py in places) + '"/>'
