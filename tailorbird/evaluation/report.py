"""A comparison as one HTML page: no scripts, nothing loaded, readable on a phone and on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailorbird.data.storage import write_atomic
from tailorbird.evaluation.comparison import ArmResult, Comparison, money, p_value, percent, points, seconds
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.markup import details, escape, page, row, section, table, tag
from tailorbird.evaluation.report_answers import confusions, failures, refusals_table
from tailorbird.evaluation.report_charts import calibrations, charts
from tailorbird.evaluation.report_extras import extras_section
from tailorbird.evaluation.report_history import since_last_run, warning_box
from tailorbird.evaluation.report_judge import judged_answers
from tailorbird.evaluation.report_measures import other_measures
from tailorbird.evaluation.verdict import Verdict

_KINDS = {"winner": "Clear winner", "tie": "Tie: use the cheapest", "undecided": "Undecided"}


def write_report(
    comparison: Comparison,
    evaluations: Mapping[str, Evaluation] | None,
    folder: Path,
    *,
    title: str = "Comparison",
    data_notes: Sequence[str] = (),
) -> Path:
    """Writes `report.html` into `folder` and gives its path.

    Args:
        comparison: What was found.
        evaluations: Test answers by arm; None takes those of the comparison.
        folder: Where the page goes; made where it is missing.
        title: The page's heading.
        data_notes: Sentences for the data section, such as the leakage report's.
    """
    content = render_report(comparison, evaluations, title=title, data_notes=data_notes)
    path = folder / "report.html"
    write_atomic(path, content.encode("utf-8"))
    return path


def render_report(
    comparison: Comparison,
    evaluations: Mapping[str, Evaluation] | None = None,
    *,
    title: str = "Comparison",
    data_notes: Sequence[str] = (),
) -> str:
    """The page as text; the same comparison gives the same page."""
    answers = comparison.evaluations if evaluations is None else evaluations
    body = "".join(
        [
            _top(comparison, title),
            _leaderboard(comparison),
            since_last_run(comparison),
            charts(comparison),
            extras_section(comparison),
            judged_answers(comparison),
            other_measures(comparison, answers),
            calibrations(comparison, answers),
            confusions(comparison, answers),
            refusals_table(comparison, answers),
            failures(comparison, answers),
            _data(comparison, data_notes),
            _notes(comparison, answers),
            _reproduce(comparison),
        ]
    )
    return page(title, body)


def _top(comparison: Comparison, title: str) -> str:
    verdict = comparison.verdict
    facts = [
        ("test examples", comparison.num_test),
        ("dev examples", comparison.num_dev),
        ("arms measured", sum(arm.ran for arm in comparison.arms)),
        ("metric", comparison.metric),
    ]
    listed = "".join(f"<li>{escape(name)} <b>{escape(value)}</b></li>" for name, value in facts)
    return (
        f'<header><h1>{escape(title)}</h1><div class="verdict {escape(verdict.kind)}">'
        f"{tag(_KINDS[verdict.kind])}{_sentence(verdict)}</div>{warning_box(comparison)}"
        f'<ul class="facts">{listed}</ul></header>'
    )


def _sentence(verdict: Verdict) -> str:
    """The headline large, what must be added to it small; numbers stay with their percent signs."""
    headline, rest = escape(verdict.headline), escape(verdict.sentence[len(verdict.headline) :].strip())
    html = f"<p>{headline}</p>" + (f'<p class="rest">{rest}</p>' if rest else "")
    return html.replace(" %", "&nbsp;%")


def _leaderboard(comparison: Comparison) -> str:
    columns = ["arm", f"{comparison.metric}, %", "vs candidate", "p", "dev, %", "p50 · p95"]
    columns += ["cost / 1,000", "build", "tokens / answer"]
    rows = [
        _measured(arm, comparison) if arm.ran else _unmeasured(arm, len(columns)) for arm in comparison.arms
    ]
    note = (
        "<p><small>95 % intervals. The candidate is the arm that was best on dev; differences to it are "
        "paired by example, p-values adjusted for the number of arms (Holm). Latency is of single answers, "
        "one at a time: the median and the 95th percentile. Tokens: input → output; reused ones were "
        "computed once for several answers.</small></p>"
    )
    return section("Leaderboard", table(columns, rows), note)


def _measured(arm: ArmResult, comparison: Comparison) -> str:
    verdict = comparison.verdict
    is_used = arm.name == verdict.arm
    is_candidate = arm.name == verdict.candidate
    tags = (
        [tag("use this", "use")] * is_used + [tag("baseline")] * arm.floor + [tag("candidate")] * is_candidate
    )
    difference = "–"
    if arm.difference is not None:
        between = f"{points(arm.difference_low)} to {points(arm.difference_high)}"
        difference = f"{points(arm.difference)}<small>{between}</small>"
    cells = [
        f'<span class="name">{escape(arm.name)}</span><small>{" ".join(tags)}</small>',
        f"<b>{percent(arm.score)}</b><small>{percent(arm.low)} to {percent(arm.high)}</small>",
        difference,
        escape(p_value(arm.p_adjusted)),
        percent(arm.dev_score),
        f"{seconds(arm.latency_p50_s)}<small>{seconds(arm.latency_p95_s)}</small>",
        escape(money(arm.cost_per_1k)),
        seconds(arm.train_s),
        _tokens(arm, comparison.num_test),
    ]
    return row(cells, "use" if is_used else "")


def _tokens(arm: ArmResult, num_test: int) -> str:
    each = {name: count / num_test for name, count in arm.tokens.items()}
    cached = f"<small>{each['cached']:.0f} reused</small>" if each["cached"] else ""
    return f"{each['input']:.0f} → {each['output']:.1f}{cached}"


def _unmeasured(arm: ArmResult, num_columns: int) -> str:
    why = f"stopped: {_stopped(arm)}" if arm.stopped else f"failed: {arm.failed}"
    name = (
        f'<span class="name">{escape(arm.name)}</span> {tag("stopped" if arm.stopped else "failed", "warn")}'
    )
    reason = f'<td class="wrap left" colspan="{num_columns - 1}">{escape(why)}</td>'
    return f'<tr class="off"><th scope="row">{name}</th>{reason}</tr>'


def _stopped(arm: ArmResult) -> str:
    seen = f" It was at {percent(arm.dev_score)} % of {arm.num_dev} dev examples." if arm.num_dev else ""
    return arm.stopped_why + seen


def _data(comparison: Comparison, data_notes: Sequence[str]) -> str:
    data = comparison.data
    lines = [
        (
            f"Examples: {data.get('num_train', 0)} to learn from, {comparison.num_dev} to choose on (dev), "
            f"{comparison.num_test} to confirm on (test)."
        ),
    ]
    repeated = data.get("repeated_in_test", 0)
    if repeated:
        lines.append(
            f"{repeated} test messages also stand, word for word, in train or dev: scores may flatter."
        )
    else:
        lines.append("No test message stands, word for word, in train or dev.")
    if "num_unanswerable" in data:
        lines.append(f"{data['num_unanswerable']} test questions have no answer in the documents.")
    listed = "".join(f"<li>{escape(line)}</li>" for line in [*lines, *data_notes])
    return section("Data", f'<ul class="notes">{listed}</ul>', _labels(data.get("labels", {})))


def _labels(labels: Mapping[str, Sequence[int]]) -> str:
    if not labels:
        return ""
    rows = [row([escape(label), *(str(count) for count in counts)]) for label, counts in labels.items()]
    return details(f"{len(labels)} labels and their counts", table(["label", "train", "dev", "test"], rows))


def _notes(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    mde = comparison.minimum_detectable_difference
    notes = [
        (
            f"With {comparison.num_test} test examples, differences below about {mde * 100:.1f} points will "
            "mostly go unnoticed (80 % power, if two arms differ on a fifth of the examples)."
        ),
        f"Differences within {comparison.margin * 100:g} points count as none.",
        "Cheapest means least compute per answer: fresh tokens times parameters, not measured seconds.",
        (
            f"Cost of local answers: measured seconds at ${comparison.price_per_hour:g} per hour of this "
            "machine; of endpoints with prices: tokens at those prices."
        ),
    ]
    if any(evaluation.groups for evaluation in evaluations.values()):
        notes.append("Examples about one document are not independent: they are resampled together.")
    notes += [note for arm in comparison.arms for note in _arm_notes(arm)]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return section("What to keep in mind", f'<ul class="notes">{listed}</ul>')


def _arm_notes(arm: ArmResult) -> list[str]:
    if arm.stopped:
        return (
            []
            if arm.num_dev
            else [f"{arm.name} was not measured. {arm.stopped_why} It may still be the best."]
        )
    if arm.failed:
        return [f"{arm.name} failed and is not judged: {arm.failed}"]
    notes: list[str] = []
    if arm.invalid_rate:
        notes.append(f"{arm.name} named none of the labels in {arm.invalid_rate * 100:.1f} % of its answers.")
    if arm.mismatches:
        notes.append(
            f"{arm.name}: {len(arm.mismatches)} of the timed answers differ when asked alone "
            "instead of in a batch."
        )
    return notes


def _reproduce(comparison: Comparison) -> str:
    facts = dict(comparison.reproduce)
    command = facts.pop("command", None)
    shown = f"<pre>{escape(command)}</pre>" if command else ""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{_value(value)}</dd>" for name, value in facts.items())
    return section("To reproduce", shown, f"<dl>{listed}</dl>" if listed else "")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(k)} <code>{escape(v)}</code>" for k, v in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return escape(", ".join(map(str, value)))
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
