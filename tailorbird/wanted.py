"""What may be wanted beside a comparison's verdict: further measurements, and a judge's opinion."""

from __future__ import annotations

from dataclasses import dataclass

JUDGED = 40
"""Test examples on which a judge is asked, at most, by default."""
SHARES = (0.25, 0.5)
"""Of the labels, beside all of them."""
DRAWS = 3
MOST_PARTS = 4
"""An arm can do without so many parts, each alone, at most: few_shot's."""


@dataclass(frozen=True)
class JudgeChoice:
    """Which MODEL is asked what it thinks of the answers, on how many test examples, and its key's variable."""

    reference: str
    limit: int = JUDGED
    key_env: str | None = None


@dataclass(frozen=True)
class Extras:
    """What is measured beside the comparison, on its leading arms: see `tailorbird.extras`.

    `curve`: models of fewer labels; `ablate`: arms without one of their parts; `seeds`: how many seeds, of
    training and of which labels are drawn, 1 or more, of which 1 measures nothing further.
    """

    curve: bool = False
    ablate: bool = False
    seeds: int = 1

    def __bool__(self) -> bool:
        return self.curve or self.ablate or self.seeds > 1

    @property
    def told(self) -> str:
        """In words, such as `learning curve, 3 seeds`; empty for nothing."""
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else ""
        return ", ".join(filter(None, ["learning curve" * self.curve, "ablation" * self.ablate, seeds]))

    @property
    def most(self) -> int:
        """So many models are made and measured for it, at most: of two arms, each once where two questions share it."""
        each = len(SHARES) * DRAWS * self.curve + MOST_PARTS * self.ablate
        if self.seeds > 1:
            drawn = self.seeds - min(self.seeds, DRAWS) if self.curve else self.seeds
            each += self.seeds - 1 + drawn
        return 2 * each


NOTHING_BESIDE = Extras()
