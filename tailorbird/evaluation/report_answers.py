"""The report's look at single answers: failures side by side, confusions, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.confusion_map import confusion_map, confusion_table
from tailorbird.evaluation.evaluate import Evaluation, Row
from tailorbird.evaluation.markup import details, escape, row, section, shortened, table
from tailorbird.evaluation.metrics import refusals
from tailorbird.records import Completion, Passage

CASES_EACH = 6
LEADING_ARMS = 3
_LETTERS = 1500


@dataclass(frozen=True, slots=True)
class Case:
    """One test example with every arm's row, in the leaderboard's order."""

    rows: Mapping[str, Row]
    metric: str
    floors: frozenset[str] = frozenset()

    def score(self, arm: str) -> float:
        """What an arm's answer scored, in [0, 1]."""
        return self.rows[arm].scores[self.metric]

    def lead(self, arm: str, others: Sequence[str]) -> float:
        """By how much an arm's answer scored above the mean of the others'; there is one at least."""
        return self.score(arm) - sum(map(self.score, others)) / len(others)


def failures(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    """Where the recommended arm and the others part ways, with what each one was shown."""
    names = [arm.name for arm in comparison.arms if arm.name in evaluations]
    use = comparison.verdict.arm
    if use not in names:
        return ""
    columns = [evaluations[name].rows for name in names]
    floors = frozenset(arm.name for arm in comparison.arms if arm.floor)
    cases = [
        Case(dict(zip(names, rows, strict=True)), comparison.metric, floors)
        for rows in zip(*columns, strict=True)
    ]
    others = [name for name in names if name != use]
    beaten = [c for c in cases if c.score(use) < max(map(c.score, names))]
    beaten.sort(key=lambda c: c.lead(use, others))
    alone = [c for c in cases if c.score(use) == max(map(c.score, names)) > min(map(c.score, names))]
    alone.sort(key=lambda c: -c.lead(use, others))
    # Where an answer can be right in part, none of it is called right: "7 days" has half the words of "45 days".
    partly = any(0 < c.score(name) < 1 for c in cases for name in names)
    hard = [c for c in cases if not any(map(c.score, names))]
    return section(
        "Answers side by side",
        _group(f"{use} did best" if partly else f"{use} was right, others were wrong", alone),
        _group("Another arm did better" if partly else f"{use} was wrong, another arm was right", beaten),
        _group("Every arm was wrong: hard examples, or wrong labels", hard),
    )


def _group(title: str, cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    shown = cases[:CASES_EACH]
    count = f"{len(cases)} test examples" if len(cases) != 1 else "one test example"
    note = f'<p class="quiet">{count}' + (
        f"; {len(shown)} are shown.</p>" if len(shown) < len(cases) else ".</p>"
    )
    return f"<h3>{escape(title)}</h3>{note}" + "".join(_case(case) for case in shown)


def _case(case: Case) -> str:
    first = next(iter(case.rows.values()))
    answers = "".join(
        _answer(name, found, case.score(name), floor=name in case.floors) for name, found in case.rows.items()
    )
    seen = "".join(_seen(name, found.completion) for name, found in case.rows.items())
    return (
        f'<article class="case"><p class="question">{escape(shortened(first.question, _LETTERS))}</p>'
        f"<small>Expected: <b>{escape(shortened(first.expected, _LETTERS))}</b></small>"
        f"<table><tbody>{answers}</tbody></table>{seen}</article>"
    )


def _answer(name: str, found: Row, score: float, *, floor: bool) -> str:
    completion = found.completion
    partly = f"<small>{score * 100:.0f} %</small>"
    mark = {0.0: '<span class="wrong">✗ wrong</span>', 1.0: '<span class="right">✓ right</span>'}.get(
        score, partly
    )
    # A floor's numbers order its labels; they are no probabilities that a reader could rely on.
    chance = None if floor else (completion.probabilities or {}).get(completion.text)
    sure = "" if chance is None else f" <small>{chance * 100:.0f} % sure</small>"
    text = escape(shortened(completion.cited_text, _LETTERS)) or '<span class="quiet">(empty)</span>'
    if completion.withheld is not None:
        sure += f" <small>withheld: {escape(shortened(completion.withheld, _LETTERS))}</small>"
    head = f'<th scope="row" class="name">{escape(name)}</th>'
    return f'<tr>{head}<td class="wrap left">{text}{sure}</td><td>{mark}</td></tr>'


def _seen(name: str, completion: Completion) -> str:
    """The evidence and the turns before the question, as the weights saw them.

    Nothing where an arm saw only the instruction and the question, which stand above.
    """
    asked = completion.asked
    if asked is None or not (
        len(asked.messages) > 2 or asked.examples or asked.evidence or completion.left_out
    ):
        return ""
    parts = [_passage(number, passage) for number, passage in enumerate(asked.evidence, 1)]
    parts += [_turn(message.role, message.content) for message in asked.conversation]
    if asked.lacking:
        parts.append(_turn("sources that failed", "\n".join(asked.lacking)))
    if completion.dropped:
        parts.append(_turn("left out to fit the context", "\n".join(completion.dropped)))
    counts = [
        (len(asked.messages), "message"),
        (len(asked.examples), "example"),
        (len(asked.evidence), "passage"),
    ]
    what = ", ".join(f"{n} {thing}{'s' if n != 1 else ''}" for n, thing in counts if n)
    return details(f"What {name} was shown ({what})", "".join(parts))


def _passage(number: int, passage: Passage) -> str:
    where = " · ".join(filter(None, [passage.source, passage.title, passage.document, *passage.headings]))
    return _turn(f"passage {number} · {where}", passage.text)


def _turn(head: str, text: str) -> str:
    return f'<div class="turn"><b>{escape(head)}</b>{escape(shortened(text, _LETTERS))}</div>'


def confusions(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    """The pairs of labels that the leading arms mix up most."""
    if comparison.task != "classify":
        return ""
    leading = [arm.name for arm in comparison.arms if arm.name in evaluations][:LEADING_ARMS]
    return section("Labels mixed up", *_wrapped([_confused(n, evaluations[n]) for n in leading]))


def _wrapped(cards: Sequence[str]) -> list[str]:
    return ['<div class="cards">', *cards, "</div>"] if cards else []


def _confused(name: str, evaluation: Evaluation) -> str:
    pairs = Counter((e, a) for e, a in zip(evaluation.expected, evaluation.answers, strict=True) if e != a)
    if not pairs:
        return f"<div><h3>{escape(name)}</h3><p>No mistakes.</p></div>"
    # Equal counts are ordered by label so that the report does not depend on the order of answers.
    top = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:8]
    rows = [row([_pair(e, shortened(a, 60) or "(empty)"), str(times)]) for (e, a), times in top]
    found = confusion_map(evaluation.expected, evaluation.answers)
    heat = confusion_table(name, found) if found else ""
    return f"<div><h3>{escape(name)}</h3>{heat}{table(['expected → answered', 'times'], rows)}</div>"


def _pair(expected: str, answered: str) -> str:
    return f"{escape(expected)} → <b>{escape(answered)}</b>"


def refusals_table(comparison: Comparison, evaluations: Mapping[str, Evaluation]) -> str:
    """How often each arm refused, apart for questions with and without an answer, and what it cited."""
    if comparison.task != "answer":
        return ""
    counts = {
        arm.name: refusals(evaluations[arm.name].expected, evaluations[arm.name].answers)
        for arm in comparison.arms
        if arm.name in evaluations
    }
    rows = [
        row(
            [
                f'<span class="name">{escape(name)}</span>',
                f"{found.unanswerable_refused} of {found.unanswerable}",
                f"{found.answerable_refused} of {found.answerable}",
                _cited_rightly(evaluations[name]),
            ]
        )
        for name, found in counts.items()
    ]
    note = '<p class="quiet">A good model refuses what the documents do not answer, and only that.</p>'
    columns = [
        "arm",
        "refused, and no answer existed (right)",
        "refused, though an answer existed (wrong)",
        "citations of the document that holds the answer",
    ]
    return section("Refusals", note, table(columns, rows)) if rows else ""


def _cited_rightly(evaluation: Evaluation) -> str:
    """How many citations are of the document that the example names, of those where it names one."""
    hits = [
        citation.document == found.document
        for found in evaluation.rows
        if found.document is not None
        for citation in found.completion.citations
    ]
    return f"{sum(hits)} of {len(hits)}" if hits else "–"
