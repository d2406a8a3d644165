"""The reliability diagram: how sure a model was against how often it was right, as inline SVG."""

from __future__ import annotations

import math

from tailorbird.evaluation.calibration import Bin, Calibration
from tailorbird.evaluation.charts import Scale, svg
from tailorbird.evaluation.comparison import percent

WIDTH, HEIGHT = 300, 290
LEFT, BOTTOM, TOP = 44, 226, 12
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability_plot(name: str, calibration: Calibration) -> str:
    """Bins as points with their intervals; on the dashed diagonal a model is as sure as it is right.

    Points are larger where a bin holds more answers, and the numbers beneath say how many.
    """
    x, y = Scale(0, 1, LEFT, WIDTH - 24), Scale(0, 1, BOTTOM, TOP)
    parts = [part for tick in _TICKS for part in _grid(x, y, tick)]
    parts.append(f'<line class="diagonal" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    most = max(b.count for b in calibration.bins)
    for found in calibration.bins:
        parts += _point(x, y, found, most)
    parts.append(
        f'<text class="quiet" x="{WIDTH - 24}" y="{HEIGHT - 6}" text-anchor="end">answers in each bin</text>'
    )
    said = [f"{percent(b.sure)} % sure, {percent(b.right)} % right of {b.count}" for b in calibration.bins]
    return svg(HEIGHT, f"How sure {name} was, and how often right", parts, "; ".join(said), WIDTH)


def _grid(x: Scale, y: Scale, tick: float) -> list[str]:
    text = f"{tick * 100:g} %"
    return [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{BOTTOM}"/>',
        f'<line class="grid" x1="{LEFT}" x2="{x(1):.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>',
        f'<text class="quiet" x="{x(tick):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{text}</text>',
        f'<text class="quiet" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>',
    ]


def _point(x: Scale, y: Scale, found: Bin, most: int) -> list[str]:
    at, radius = x(found.sure), 3 + 4 * math.sqrt(found.count / most)
    return [
        f'<line class="span use" x1="{at:.1f}" x2="{at:.1f}" y1="{y(found.low):.1f}" y2="{y(found.high):.1f}"/>',
        f'<circle class="front" cx="{at:.1f}" cy="{y(found.right):.1f}" r="{radius:.1f}"/>',
        f'<text class="quiet" x="{at:.1f}" y="{BOTTOM + 36}" text-anchor="middle">{found.count}</text>',
    ]
