"""The report's sections of plots: all arms at a glance, and how sure the leading ones were."""

from __future__ import annotations

from collections.abc import Mapping

from tailorbird.evaluation.calibration import Calibration, calibration_of
from tailorbird.evaluation.calibration_chart import reliability_plot
from tailorbird.evaluation.charts import intervals_plot
from tailorbird.evaluation.comparison import Comparison, percent
from tailorbird.evaluation.difference_chart import differences_plot
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.markup import figure, section
from tailorbird.evaluation.scatter_charts import cost_plot, latency_plot

LEADING_ARMS = 3


def charts(comparison: Comparison) -> str:
    """Scores, differences, and quality against latency and against cost."""
    if not any(arm.ran for arm in comparison.arms):
        return ""
    arms, verdict = comparison.arms, comparison.verdict
    figures = [
        figure(
            "Score and 95 % interval",
            intervals_plot(arms, verdict.arm),
            "Overlapping intervals do not mean equal: the paired differences decide.",
        ),
        figure(
            f"Difference to {verdict.candidate}, in points",
            differences_plot(arms, verdict.candidate, verdict.arm, comparison.margin),
            f"Paired by example, with 95 % intervals. Within the band (±{comparison.margin * 100:g} points) "
            "differences count as none. Filled: told apart after correction for the number of arms.",
        ),
        figure(
            "Quality against latency",
            latency_plot(arms, verdict.arm),
            "Median seconds of one answer, log scale. Filled and joined: no arm is both faster and better.",
        ),
        figure(
            "Quality against cost",
            cost_plot(arms, verdict.arm),
            "US dollars for 1,000 answers, log scale. Filled and joined: no arm is both cheaper and better.",
        ),
    ]
    return section("At a glance", f'<div class="charts">{"".join(figures)}</div>')


def calibrations(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    """Reliability diagrams of the leading arms that tell probabilities.

    A floor's numbers order its labels; they are no probabilities that a reader could rely on.
    """
    found = [
        (arm.name, calibration)
        for arm in comparison.arms
        if not arm.floor and arm.name in evaluations
        if (calibration := calibration_of(evaluations[arm.name], comparison.metric))
    ]
    if comparison.task != "classify" or not found:
        return ""
    figures = [figure(name, reliability_plot(name, c), _said(c)) for name, c in found[:LEADING_ARMS]]
    note = (
        '<p class="quiet">Answers are sorted by the probability that the model gave them. On the diagonal it is '
        "as sure as it is right; below it, surer.</p>"
    )
    return section("How sure, and how right", note, f'<div class="small charts">{"".join(figures)}</div>')


def _said(calibration: Calibration) -> str:
    gap = calibration.sure - calibration.right
    much = f"{percent(abs(gap))} points too {'sure' if gap > 0 else 'unsure'}"
    return (
        f"{percent(calibration.sure)} % sure on average, {percent(calibration.right)} % right: {much}. "
        f"{calibration.count} answers."
    )
