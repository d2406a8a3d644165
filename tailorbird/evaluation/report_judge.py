"""The report's look at a judge: what it prefers, and how far it can be believed."""

from __future__ import annotations

from tailorbird.evaluation.comparison import Comparison, percent
from tailorbird.evaluation.judgement import Match
from tailorbird.evaluation.markup import escape, row, section, table


def judged_answers(comparison: Comparison) -> str:
    """The judge's opinion of the verdict's arm and others; nothing where none was asked."""
    judge = comparison.judge
    if judge is None:
        return ""
    if judge.failed:
        return section("A judge's opinion", *(f"<p>{escape(said)}</p>" for said in judge.sentences()))
    columns = [f"{judge.arm} against", "preferred", "neither", "the other preferred", "score, %"]
    rows = [row(_cells(match)) for match in judge.matches]
    named = (
        f"<p>The model {escape(judge.model)} was shown two answers at a time and asked which is better.</p>"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in judge.reservations())
    return section("A judge's opinion", named, table(columns, rows), f'<ul class="notes">{notes}</ul>')


def _cells(match: Match) -> list[str]:
    same = f"<small>{match.same} of them the same answer</small>" if match.same else ""
    return [
        f'<span class="name">{escape(match.opponent)}</span>',
        str(match.wins),
        f"{match.ties}{same}",
        str(match.losses),
        f"<b>{percent(match.score)}</b><small>{percent(match.low)} to {percent(match.high)}</small>",
    ]
