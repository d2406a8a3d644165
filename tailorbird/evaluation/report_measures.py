"""The report's other measures: what was measured besides the deciding metric, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailorbird.evaluation.abstention import AbstentionCurve
from tailorbird.evaluation.comparison import ArmResult, Comparison, percent
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.markup import escape, row, section, table
from tailorbird.evaluation.measures import MEASURES, Measure, selective_curve

OWN = Measure("A metric of your own.")
SAID_OTHERWISE = frozenset({"valid"})
"""What another measure says already: the rate of invalid answers."""


def other_measures(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    """A table of arms and measures with what each says below, and what abstaining would be worth."""
    arms = [arm for arm in comparison.arms if arm.ran]
    measured = {name for arm in arms for name in arm.secondary} - SAID_OTHERWISE
    names = [name for name in MEASURES if name in measured] + sorted(measured - MEASURES.keys())
    if not names:
        return ""
    columns = ["arm", *(_title(name) for name in names)]
    rows = [row([_named(arm), *(_cell(arm, name) for name in names)]) for arm in arms]
    meanings = "".join(
        f"<dt>{escape(_words(name))}</dt><dd>{escape(MEASURES.get(name, OWN).meaning)}</dd>" for name in names
    )
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in _not_measured(arms, comparison))
    curves = _curves(arms, evaluations)
    return section("Other measures", table(columns, rows), notes, curves, f"<dl>{meanings}</dl>")


def _not_measured(arms: Sequence[ArmResult], comparison: Comparison) -> list[str]:
    """Why a dash stands where other arms have a number."""
    notes = list[str]()
    if silent := [arm.name for arm in arms if "perplexity" not in arm.secondary]:
        notes.append(
            f"Perplexity and bits per byte are not measured of {', '.join(silent)}: baselines have no language model, "
            "and endpoints don't tell how likely they find a text."
        )
    unsure = [arm.name for arm in arms if "calibration_error" not in arm.secondary]
    if comparison.task == "classify" and unsure:
        notes.append(
            f"Calibration is not measured of {', '.join(unsure)}: a baseline's numbers only order its labels, and some "
            "models give none."
        )
    return notes


def _curves(arms: Sequence[ArmResult], evaluations: Mapping[str, Evaluation]) -> str:
    """The share of right answers among the surest ones, at several coverages, for arms with probabilities."""
    found = [
        (arm, curve)
        for arm in arms
        if "aurc" in arm.secondary and arm.name in evaluations
        if (curve := selective_curve(evaluations[arm.name]))
    ]
    if not found:
        return ""
    columns = ["arm", *(f"surest {share * 100:.0f} %" for share in _COVERAGES)]
    rows = [row([_named(arm), *(_right_among(curve, share) for share in _COVERAGES)]) for arm, curve in found]
    note = (
        '<p class="quiet">Per cent right among the surest answers; beneath it, the probability from which the model '
        "would answer. Answers of equal probability stay together, so that a part may be larger.</p>"
    )
    return "<h3>If the least sure answers were left to people</h3>" + table(columns, rows) + note


_COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)


def _right_among(curve: AbstentionCurve, share: float) -> str:
    # Of the curve's own points, the first that covers so much.
    point = next(point for point in curve.points if point.coverage >= share - 1e-9)
    return f"{percent(1 - point.risk)}<small>from {point.threshold * 100:.0f} %</small>"


def _cell(arm: ArmResult, name: str) -> str:
    value = arm.secondary.get(name)
    if value is None:
        return "–"
    if MEASURES.get(name, OWN).is_share:
        return percent(value)
    return f"{value:.2f}" if value < 1000 else f"{value:.2g}"


def _title(name: str) -> str:
    return f"{_words(name)}, %" if MEASURES.get(name, OWN).is_share else _words(name)


def _words(name: str) -> str:
    return name.replace("_", " ") if name in MEASURES else name


def _named(arm: ArmResult) -> str:
    return f'<span class="name">{escape(arm.name)}</span>'
