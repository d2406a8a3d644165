"""The report's look beyond one comparison: what to know before believing it, and what changed since an earlier run."""

from __future__ import annotations

import re

from tailorbird.evaluation.against import Against, Change
from tailorbird.evaluation.comparison import Comparison, p_value, percent, points
from tailorbird.evaluation.markup import escape, row, section, table, tag
from tailorbird.evaluation.statistics import Interval

_COMMAND = re.compile(r"`(tailor [^`]*)`")
_KINDS = {"better": "clearly better", "worse": "clearly worse", "unclear": "no clear change"}


def warning_box(comparison: Comparison) -> str:
    """What to know before believing the verdict, gravest first; nothing where there is nothing."""
    lines = [(warning["level"], warning["sentence"]) for warning in comparison.warnings]
    lines += [("warning", sentence) for sentence in comparison.openings.get("sentences", ())]
    if not lines:
        return ""
    order = ("severe", "warning", "note")
    lines.sort(key=lambda line: order.index(line[0]))
    listed = "".join(f'<li class="{escape(level)}">{_told(sentence)}</li>' for level, sentence in lines)
    title = (
        "Before you rely on this" if any(level != "note" for level, _ in lines) else "What the scores are of"
    )
    return f'<aside class="warnings"><h2>{title}</h2><ul>{listed}</ul></aside>'


def _told(sentence: str) -> str:
    """A sentence with its commands set as such, and numbers kept with their percent signs."""
    return _COMMAND.sub(r"<code>\1</code>", escape(sentence)).replace(" %", "&nbsp;%")


def since_last_run(comparison: Comparison) -> str:
    """Every arm beside itself in the earlier run, and what was changed between the two."""
    if comparison.against is None:
        return ""
    held = Against.from_json(comparison.against)
    apart = any(c.now_others or c.then_others for c in held.changes)
    columns = ["arm", "change", "p (Holm)", "then, %", "now, %"]
    columns += ["only now, %", "only then, %"] if apart else []
    changes = list(held.changes)
    if held.recommended is not None and held.recommended.arm != held.recommended.arm_then:
        changes.append(held.recommended)
    rows = [_row(change, apart=apart) for change in changes]
    changed = "".join(f"<li>{escape(sentence)}</li>" for sentence in held.what_changed)
    shown = table(columns, rows) if rows else "<p>No arm was measured in both runs.</p>"
    when = f" of {escape(held.date)}" if held.date else ""
    return section(
        "Since the last run",
        f"<p>Held against <b>{escape(held.run)}</b>{when}. {escape(_on_what(held))}</p>",
        shown,
        f"<p><small>{escape(_missing(held))}</small></p>" if held.missing or held.new else "",
        f'<h3>What changed</h3><ul class="notes">{changed}</ul>',
    )


def _on_what(held: Against) -> str:
    if not held.paired:
        return (
            f"{held.why_unpaired} So whole test sets are compared as independent ones: the intervals are wider than "
            "those of the same examples would be, and an easier test looks like a better arm."
        )
    return (
        f"Then and now are on the {held.num_shared:,} test examples that both runs have, paired by example; "
        f"{held.num_added:,} only this run has, {held.num_removed:,} only the earlier, and {held.num_relabelled:,} "
        "expect something else now."
    )


def _missing(held: Against) -> str:
    told: list[str] = []
    if held.missing:
        told.append(f"Not measured this time: {', '.join(held.missing)}.")
    if held.new:
        told.append(f"Not measured then: {', '.join(held.new)}.")
    return " ".join(told)


def _row(change: Change, *, apart: bool) -> str:
    difference = change.difference
    two = change.arm != change.arm_then
    then = f"<small>recommended now; then {escape(change.arm_then)}</small>" if two else ""
    kind = f"<small>{tag(_KINDS[change.kind], change.kind)}</small>"
    between = f"{points(difference.low)} to {points(difference.high)}"
    cells = [
        f'<span class="name">{escape(change.arm)}</span>{then}{kind}',
        f"{points(difference.mean)}<small>{between}</small>",
        # What is recommended is one question of its own, and not adjusted for the arms above it.
        escape(p_value(difference.p_adjusted)) + ("<small>not adjusted</small>" if two else ""),
        _score(change.then),
        _score(change.now),
    ]
    if apart:
        cells += [_score(change.now_others), _score(change.then_others)]
    return row(cells)


def _score(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{percent(interval.mean)}<small>{percent(interval.low)} to {percent(interval.high)}</small>"
