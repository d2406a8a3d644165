"""The report's section on what more would buy: labels, parts, seeds, and questions until an arm pays back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tailorbird.evaluation.charts import Scale
from tailorbird.evaluation.comparison import Comparison, money, percent, points
from tailorbird.evaluation.markup import details, escape, figure, row, section, table
from tailorbird.evaluation.training_charts import round_ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 250, 44, 14, 26, 216
"""Of a curve's drawing; narrower than the others, so that its letters stay large on a phone."""

Json = Mapping[str, Any]


def extras_section(comparison: Comparison) -> str:
    """The whole section; nothing of a comparison from before there was one."""
    extras = comparison.extras
    if not extras:
        return ""
    measured = any(extras.get(key) for key in ("curve", "ablation", "seeds"))
    note = "Measured after the verdict, on its arm and the best other one; no part of the verdict."
    return section(
        "What more would buy",
        f'<p class="quiet">{note}</p>' if measured else "",
        _curves(extras.get("curve", ())),
        _ablation(extras.get("ablation", ())),
        _seeds(extras),
        _break_even(extras.get("break_even", {}), comparison.price_per_hour),
        _notes(extras.get("notes", ())),
    )


# -- more labels -----------------------------------------------------------------------------------


def _curves(curves: Sequence[Json]) -> str:
    if not curves:
        return ""
    shown = [_curve_values(curve) for curve in curves]
    low, high = min(min(values) for values in shown), max(max(values) for values in shown)
    figures = "".join(
        figure(f"More labels: {curve['arm']}", curve_plot(curve, low, high), curve["sentence"])
        for curve in curves
    )
    note = (
        "<p><small>Dots: means over draws of the labels, and their range. Line: error = a · n<sup>−b</sup> + c "
        "through them, dashed beyond the labels there are. Wash: 95 % interval of the score, over test examples and "
        "draws; what more labels gain is surer than that, as the same test is asked at all sizes.</small></p>"
    )
    return f'<div class="charts curves">{figures}</div>{note}'


def _curve_values(curve: Json) -> list[float]:
    """All heights that are drawn."""
    of_points = [value for point in curve["points"] for value in (point["lowest"], point["highest"])]
    return of_points + [value for at in curve["band"] for value in (at["low"], at["high"])]


def curve_plot(curve: Json, low: float, high: float) -> str:
    """A learning curve with its band, the number of labels on a log scale.

    Args:
        curve: `LearningCurve.to_json`.
        low: the lowest score in [0, 1] that must be on the scale.
        high: the highest.
    """
    ticks = [tick for tick in round_ticks(100 * low, 100 * high) if 0 <= tick <= 100]
    y = Scale(ticks[0] / 100, ticks[-1] / 100, BOTTOM, TOP)
    sizes = [at["num_labels"] for at in (*curve["points"], *curve["band"])]
    x = Scale(math.log2(min(sizes)) - 0.15, math.log2(max(sizes)) + 0.15, LEFT, WIDTH - RIGHT)
    parts = [_level(y(tick / 100), f"{tick:g} %") for tick in ticks]
    parts += [_size(x(math.log2(point["num_labels"])), str(point["num_labels"])) for point in curve["points"]]
    if curve["band"]:
        end = curve["band"][-1]["num_labels"]
        parts.append(_size(x(math.log2(end)), str(end)))
        parts += _law(curve, x, y)
    for point in curve["points"]:
        px, low_y, high_y = x(math.log2(point["num_labels"])), y(point["lowest"]), y(point["highest"])
        parts += [
            f'<line class="span use" x1="{px:.1f}" x2="{px:.1f}" y1="{low_y:.1f}" y2="{high_y:.1f}"/>',
            f'<circle class="front" cx="{px:.1f}" cy="{y(point["score"]):.1f}" r="4.5"/>',
        ]
    title = escape(f"Score of {curve['arm']} by the number of labels")
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
    return f"{head}{''.join(parts)}</svg>"


def _law(curve: Json, x: Scale, y: Scale) -> list[str]:
    """The wash, and the line: whole as far as was measured, dashed beyond."""
    now = curve["num_labels"]
    places = [(at["num_labels"], x(math.log2(at["num_labels"])), at) for at in curve["band"]]
    upper = [f"{px:.1f},{y(at['high']):.1f}" for _, px, at in places]
    lower = [f"{px:.1f},{y(at['low']):.1f}" for _, px, at in reversed(places)]
    line = [(size, f"{px:.1f},{y(at['score']):.1f}") for size, px, at in places]
    before = [at for size, at in line if size <= now]
    # The dashed part begins where the whole one ends, so that no gap is left between them.
    beyond = [*before[-1:], *(at for size, at in line if size > now)]
    px = x(math.log2(now))
    return [
        f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>',
        f'<polyline class="curve" points="{" ".join(before)}"/>',
        f'<polyline class="edge" points="{" ".join(beyond)}"/>',
        f'<line class="now" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP - 8}" y2="{BOTTOM}"/>',
        f'<text class="quiet" x="{px:.1f}" y="{TOP - 12}" text-anchor="middle">now</text>',
    ]


def _level(y: float, text: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="quiet" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _size(x: float, text: str) -> str:
    return f'<text class="quiet" x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{text}</text>'


# -- parts, seeds and costs ------------------------------------------------------------------------


def _ablation(found: Sequence[Json]) -> str:
    if not found:
        return ""
    rows: list[str] = []
    # Without a part an arm may be another one of the comparison, which is then not run again.
    named = any(one["taken_from"] for one in found)
    for one in found:
        between = f"{points(one['low'])} to {points(one['high'])}"
        cells = [
            f'<span class="name">{escape(one["arm"])}</span><small>without {escape(one["without"])}</small>',
            percent(one["score"]),
            f"<b>{points(one['difference'])}</b><small>{between}</small>",
            *([escape(one["taken_from"] or "–")] if named else []),
        ]
        rows.append(row(cells))
    note = "<p><small>Paired by example, 95 % intervals, each for itself.</small></p>"
    columns = ["arm", "score, %", "against the whole arm", *(["measured as"] if named else [])]
    return f"<h3>Without each part</h3>{table(columns, rows)}{note}"


def _seeds(extras: Json) -> str:
    found: Sequence[Json] = extras.get("seeds", ())
    if not found:
        return ""
    rows = [
        row(
            [
                f'<span class="name">{escape(one["arm"])}</span>',
                percent(one["score"]),
                f"±{percent(one['test'])}",
                _spread(one["training"]),
                _spread(one["examples"]),
            ]
        )
        for one in found
    ]
    columns = ["arm", "score, %", "test examples", "training seed", "labels drawn"]
    order = f"<p>{escape(extras['seed_order'])}</p>" if extras.get("seed_order") else ""
    note = (
        "<p><small>Standard deviations in points, by where they come from; below them their 95 % intervals. Labels: "
        "random halves, which differ as all labels do from as many fresh ones.</small></p>"
    )
    return f"<h3>How much is chance</h3>{table(columns, rows)}{order}{note}"


def _spread(found: Json | None) -> str:
    if found is None:
        return "–"
    between = f"{percent(found['low'])} to {percent(found['high'])}"
    models = f"{len(found['scores'])} models"
    return f"±{percent(found['deviation'])}<small>{between}</small><small>{models}</small>"


def _break_even(found: Json, price_per_hour: float) -> str:
    if not found:
        return ""
    rows = [
        row(
            [
                f'<span class="name">{escape(pair["arm"])}</span><small>against {escape(pair["against"])}</small>',
                escape(money(pair["once"])),
                escape(_signed_money(pair["answer"])),
                "never" if pair["questions"] is None else f"{pair['questions']:,}",
            ]
        )
        for pair in found["pairs"]
    ]
    columns = ["arm", "more to make", "less for 1,000 answers", "pays back after questions"]
    note = (
        f"<p><small>Making: measured seconds at ${price_per_hour:g} an hour of this machine, without what an endpoint "
        "took meanwhile. Answers: as in the leaderboard. Only arms that no other beats in score and in both costs."
        "</small></p>"
    )
    shown = (
        details(f"{len(rows)} pair{'s' if len(rows) != 1 else ''} of arms", table(columns, rows))
        if rows
        else ""
    )
    return f"<h3>When it pays back</h3><p>{escape(found['sentence'])}</p>{shown}{note}"


def _signed_money(usd: float) -> str:
    """For a thousand answers; negative where they cost more."""
    return money(1000 * usd) if usd >= 0 else f"−{money(-1000 * usd)}"


def _notes(notes: Sequence[str]) -> str:
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{listed}</ul>' if listed else ""
