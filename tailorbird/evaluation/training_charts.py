"""The curves of a training as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tailorbird.evaluation.charts import WIDTH, Scale, horizontal, svg, vertical

HEIGHT, LEFT = 240, 62
MOST_POINTS = 400
"""A longer curve is drawn by the means of so many stretches."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points from left to right; `style` is "raw", "" or "points", which also marks each."""

    points: Sequence[Point]
    style: str = ""


def smoothed(points: Sequence[Point], span: float) -> list[Point]:
    """An exponential mean whose memory is about `span` points, free of bias at the beginning.

    >>> smoothed([(1, 4.0), (2, 4.0)], 5)
    [(1, 4.0), (2, 4.0)]
    """
    kept = 1 - 1 / max(1.0, span)
    total = weight = 0.0
    means: list[Point] = []
    for x, y in points:
        total, weight = kept * total + y, kept * weight + 1
        means.append((x, total / weight))
    return means


def curves_plot(title: str, curves: Sequence[Curve], text: Callable[[float], str], last_step: int) -> str:
    """Curves over the steps on one scale; nothing where there is no point."""
    values = [y for curve in curves for _, y in curve.points]
    if not values:
        return ""
    ticks = round_ticks(min(values), max(values))
    bottom = HEIGHT - 30
    y = Scale(ticks[0], ticks[-1], bottom, 12)
    x = Scale(0, max(1, last_step), LEFT, WIDTH - 20)
    parts = [horizontal(y(tick), LEFT, text(tick)) for tick in ticks]
    parts += [vertical(x(tick), bottom, f"{tick:g}") for tick in _step_ticks(last_step)]
    for curve in curves:
        placed = [(x(px), y(py)) for px, py in thinned(curve.points)]
        parts.append(f'<polyline class="curve {curve.style}" points="{_listed(placed)}"/>')
        if curve.style == "points":
            parts += [f'<circle class="front" cx="{px:.1f}" cy="{py:.1f}" r="4"/>' for px, py in placed]
    return svg(HEIGHT, title, parts)


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS` points, each the mean of a stretch."""
    if len(points) <= MOST_POINTS:
        return list(points)
    edges = [len(points) * n // MOST_POINTS for n in range(MOST_POINTS + 1)]
    stretches = [points[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]


def round_ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers around a range.

    >>> round_ticks(0.13, 2.31)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    # Values that differ by rounding alone are one value.
    width = high - low if high - low > 1e-9 * abs(high) else abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if width / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first, last = (first - 1, last + 1) if first == last else (first, last)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _step_ticks(last_step: int) -> list[float]:
    return [tick for tick in round_ticks(0, max(1, last_step)) if tick <= max(1, last_step) and tick % 1 == 0]


def _listed(places: Sequence[Point]) -> str:
    return " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
