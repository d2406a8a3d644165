"""How the learning rate changes over a run: pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def schedule_factor(
    step: int, total_steps: int, *, warmup_fraction: float = 0.0, schedule: Schedule = "cosine"
) -> float:
    """The factor in (0, 1] on the peak learning rate at `step`, counted from 0 to `total_steps` - 1.

    With W = ⌊warmup_fraction · total⌋ steps of warm-up and u = (step - W) / (total - W):

        step < W:   (step + 1) / (W + 1)
        cosine:     (1 + cos πu) / 2        (Loshchilov & Hutter, arXiv 1608.03983)
        linear:     1 - u
        constant:   1

    >>> [schedule_factor(step, 4, schedule="linear") for step in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    warmup = math.floor(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total_steps - warmup)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress if schedule == "linear" else 1.0
