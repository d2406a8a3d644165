"""Which labels are taken for which: a table whose cells are the darker the more often it happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tailorbird.evaluation.markup import escape, scroll, shortened

MOST_LABELS = 8
SHADES = 5
_OTHERS = "others"


@dataclass(frozen=True)
class ConfusionMap:
    """How often each of the most confused labels was expected and each was answered.

    `counts[i][j]` counts examples of `labels[i]` answered with `labels[j]`, and in the last column with any
    label that is not shown.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def confusion_map(
    expected: Sequence[str], answered: Sequence[str], most: int = MOST_LABELS
) -> ConfusionMap | None:
    """The map of the labels that have part in most mistakes; None without a mistake.

    Only labels that were expected stand in it; of equally confused ones, those first in the alphabet.

    >>> confusion_map(["a", "a", "b"], ["a", "b", "b"]).counts
    ((1, 1, 0), (0, 1, 0))
    """
    mistakes: Counter[str] = Counter()
    known = set(expected)
    for right, answer in zip(expected, answered, strict=True):
        if right != answer:
            mistakes.update({right, answer} & known)
    if not mistakes:
        return None
    chosen = sorted(sorted(mistakes, key=lambda label: (-mistakes[label], label))[:most])
    column = {label: number for number, label in enumerate(chosen)}
    counts = [[0] * (len(chosen) + 1) for _ in chosen]
    for right, answer in zip(expected, answered, strict=True):
        if right in column:
            counts[column[right]][column.get(answer, len(chosen))] += 1
    return ConfusionMap(tuple(chosen), tuple(map(tuple, counts)))


def confusion_table(arm: str, found: ConfusionMap) -> str:
    """The map as HTML: rows are expected, columns answered; empty where it never happened."""
    with_others = any(row[-1] for row in found.counts)
    columns = [*found.labels, *([_OTHERS] if with_others else [])]
    head = "".join(f'<th scope="col"><span>{escape(shortened(c, 30))}</span></th>' for c in columns)
    body = "".join(
        f'<tr><th scope="row">{_breakable(label)}</th>{_cells(row, number, with_others=with_others)}</tr>'
        for number, (label, row) in enumerate(zip(found.labels, found.counts, strict=True))
    )
    caption = f"{arm}: expected labels in rows, answers in columns"
    return scroll(
        f'<table class="heat"><caption class="unseen">{escape(caption)}</caption>'
        f'<thead><tr><td class="corner">expected ↓<br>answered →</td>{head}</tr></thead><tbody>{body}</tbody></table>',
        caption,
    )


def _breakable(label: str) -> str:
    """A label that may go on in a new line after an underscore."""
    return escape(shortened(label, 30)).replace("_", "_<wbr>")


def _cells(row: Sequence[int], number: int, *, with_others: bool) -> str:
    shown = row if with_others else row[:-1]
    return "".join(_cell(count, sum(row), right=place == number) for place, count in enumerate(shown))


def _cell(count: int, expected: int, *, right: bool) -> str:
    if count == 0:
        return "<td></td>"
    shade = max(1, round(SHADES * count / expected))
    return f'<td class="{"hit" if right else "miss"}{shade}">{count}</td>'
