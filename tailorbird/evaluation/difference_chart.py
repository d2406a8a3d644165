"""Every arm against the candidate: paired differences with their intervals, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from tailorbird.evaluation.charts import ROW, WIDTH, Scale, arm_row, share_ticks, span, svg, vertical
from tailorbird.evaluation.comparison import ArmResult, points
from tailorbird.evaluation.verdict import ALPHA


def differences_plot(arms: Sequence[ArmResult], candidate: str | None, use: str | None, margin: float) -> str:
    """A forest plot of arm minus candidate, with the line of no difference and the band of ±margin.

    Filled points are those that differ significantly after Holm's correction. Nothing where no arm was
    compared with another.
    """
    drawn = [
        (a, a.difference, a.difference_low, a.difference_high)
        for a in arms
        if a.difference is not None and a.difference_low is not None and a.difference_high is not None
    ]
    if not drawn:
        return ""
    lowest, highest = (
        min(-margin, *(low for _, _, low, _ in drawn)),
        max(margin, *(high for *_, high in drawn)),
    )
    ticks = share_ticks(lowest, highest, least=-1.0)
    x = Scale(ticks[0], ticks[-1], 20, WIDTH - 24)
    bottom = 12 + ROW * len(drawn)
    parts = [
        f'<rect class="band" x="{x(-margin):.1f}" y="8" width="{x(margin) - x(-margin):.1f}" height="{bottom - 8}"/>',
        *(vertical(x(t), bottom, f"{t * 100:+g}".replace("-", "−") if t else "0") for t in ticks),
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="8" y2="{bottom}"/>',
    ]
    for row, (arm, mean, low, high) in enumerate(drawn):
        parts.append(arm_row(row, arm.name, points(mean), strong=arm.name == use))
        parts.append(span(row, x(low), x(mean), x(high), _style(arm, use)))
    said = [
        f"{a.name} {points(mean)} points ({points(low)} to {points(high)})" for a, mean, low, high in drawn
    ]
    return svg(bottom + 26, f"Difference of every arm to {candidate}, in points", parts, "; ".join(said))


def _style(arm: ArmResult, use: str | None) -> str:
    told_apart = arm.p_adjusted is not None and arm.p_adjusted < ALPHA
    return f"{'dot' if told_apart else 'hollow'}{' use' if arm.name == use else ''}"
