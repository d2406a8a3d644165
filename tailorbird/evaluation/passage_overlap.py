"""How closely passages enclose the answers: the share of the answer that they hold, and of them that is answer.

Smith & Troynikov 2024, "Evaluating chunking strategies for retrieval" (Chroma technical report). With t_e the
places of a question's answers and t_r those of the passages found for it, a place that stands in two passages
counted twice among t_r:

    recall = |t_e ∩ t_r| / |t_e|     precision = |t_e ∩ t_r| / |t_r|
    IoU = |t_e ∩ t_r| / (|t_e| + |t_r| - |t_e ∩ t_r|)

Places are characters, which no tokenizer's choice changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[str, int, int]
"""A document's id, and the first character and the one behind the last."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """How passages and answers overlap; each in [0, 1]."""

    recall: float
    precision: float
    iou: float


def overlap(passages: Sequence[Span], answers: Sequence[Span]) -> Overlap:
    """How the passages found for a question overlap its answers.

    Raises:
        ValueError: There is no answer, or one without characters.

    >>> overlap([("a.md", 0, 40)], [("a.md", 20, 60)]).recall
    0.5
    """
    wanted = _joined(answers)
    size = sum(end - start for _, start, end in wanted)
    if not size:
        raise ValueError(f"An overlap needs an answer with characters; got {list(answers)}.")
    found = _joined(passages)
    shared = sum(
        max(0, min(end, last) - max(start, first))
        for name, start, end in wanted
        for other, first, last in found
        if name == other
    )
    read = sum(end - start for _, start, end in passages)
    return Overlap(shared / size, shared / read if read else 0.0, shared / (size + read - shared))


def _joined(spans: Sequence[Span]) -> list[Span]:
    """The same places, none in two spans."""
    joined: list[Span] = []
    for name, start, end in sorted(spans):
        if joined and joined[-1][0] == name and start <= joined[-1][2]:
            joined[-1] = name, joined[-1][1], max(end, joined[-1][2])
        else:
            joined.append((name, start, end))
    return joined
