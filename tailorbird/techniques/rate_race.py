"""Which learning rate: a short race on dev, by successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943).

    round 1   every rate trains an eighth of the steps, warm-up and decay included, but 30 or more; the better
              half goes on
    round 2   those train a quarter, from the start again; and so on, until one is left

Of two that score alike the lower rate is the better one. What was trained already is taken up from the
race's own checkpoints, one folder a trial.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.data.storage import write_atomic
from tailorbird.errors import TrainingDiverged

if TYPE_CHECKING:
    from tailorbird.network.network import Network
    from tailorbird.network.sequences import Unit
    from tailorbird.network.settings import TrainSettings

log = logging.getLogger(__name__)

RATE = 1e-3
"""The default; for full fine-tuning a tenth."""
SHORT, SHORT_SHARE = 100, 2.0
"""In fewer steps LoRA layers, which start at nothing, take so many times that rate."""
RATES = (3e-4, 1e-3, 3e-3)
"""What "auto" tries; for full fine-tuning a tenth of each."""
WIDTH = 576
"""Of the model for which default rates and those of "auto" were found; wider ones take lower rates."""
FIRST_SHARE = 1 / 8
"""The part of the full training's steps that each rate trains in the first round."""
FEWEST_STEPS = 30
"""Steps of the first round, at least: in fewer nothing is learnt, and the lowest rate would win."""
RACE = "learning_rate.json"

TryRate = Callable[[float, int], float]
"""Trains with a rate for so many steps from the start; gives the score on dev, higher is better."""


@dataclass(frozen=True)
class Trial:
    """One rate in one round; `score` is None where training diverged."""

    learning_rate: float
    steps: int
    score: float | None


def at_width(rates: Iterable[float], width: int) -> tuple[float, ...]:
    """Rates found at `WIDTH` for a model of this width: Adam's best one falls as one over the width.

    So Yang et al. 2022 (arXiv 2203.03466, table 3) for hidden layers. A width of 4,096 takes a seventh.

    >>> at_width((1e-3, 2e-3), 1152)
    (0.0005, 0.001)
    """
    return tuple(rate * min(1.0, WIDTH / width) for rate in rates)


def rounds(num_rates: int, total_steps: int) -> list[tuple[int, int]]:
    """How many rates train how many steps, by round.

    >>> rounds(3, 400)
    [(3, 50), (2, 100)]
    """
    found: list[tuple[int, int]] = []
    steps = max(FEWEST_STEPS, round(FIRST_SHARE * total_steps))
    while num_rates > 1:
        found.append((num_rates, min(steps, total_steps)))
        num_rates, steps = math.ceil(num_rates / 2), steps * 2
    return found


def race(rates: Sequence[float], total_steps: int, try_rate: TryRate, record: Path | None) -> float:
    """The rate that scored best, told and written to `record` with every trial.

    Raises:
        TrainingDiverged: with every rate.
    """
    left, trials = sorted(rates), list[Trial]()
    for num_rates, steps in rounds(len(rates), total_steps):
        tried = [_trial(rate, steps, try_rate) for rate in left]
        trials += tried
        ranked = sorted((trial for trial in tried if trial.score is not None), key=_order)
        if not ranked:
            raise TrainingDiverged(
                f"learning_rate: training diverged within {steps} steps with each of {left}. Give lower rates."
            )
        left = sorted(trial.learning_rate for trial in ranked[: math.ceil(num_rates / 2)])
        if len(left) == 1:
            break
    spent = sum(trial.steps for trial in trials)
    log.info("Learning rate %g, found in %d steps: %s.", left[0], spent, "; ".join(map(_told, trials)))
    if record:
        content = {"learning_rate": left[0], "steps": spent, "trials": [asdict(trial) for trial in trials]}
        write_atomic(record, json.dumps(content, indent=1).encode())
    return left[0]


def _trial(rate: float, steps: int, try_rate: TryRate) -> Trial:
    try:
        return Trial(rate, steps, try_rate(rate, steps))
    except TrainingDiverged:
        return Trial(rate, steps, None)


def _order(trial: Trial) -> tuple[float, float]:
    return -(trial.score or 0.0), trial.learning_rate


def _told(trial: Trial) -> str:
    score = "diverged" if trial.score is None else f"{trial.score:.4f} on dev"
    return f"{trial.learning_rate:g} for {trial.steps} steps: {score}"


class Trials:
    """Short trainings from one start, with other learning rates."""

    def __init__(  # noqa: PLR0917 - what a training takes
        self,
        network: Network,
        parameters: dict[str, Any],
        sequences: Sequence[Unit],
        settings: TrainSettings,
        dev_score: Callable[[], float],
        checkpoint: Path | None,
        identity: str,
    ) -> None:
        self.network, self.parameters, self.sequences = network, parameters, sequences
        self.settings, self.dev_score = settings, dev_score
        self.checkpoint, self.identity = checkpoint, identity
        self.start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def score(self, rate: float, steps: int) -> float:
        """Trains from the start for so many steps; the score on dev after the last of them."""
        from tailorbird.network.training import train

        self.put_back()
        # So few evaluations an epoch that only the one after the last step is left.
        settings = replace(
            self.settings, learning_rate=rate, max_steps=steps, evaluations_per_epoch=1e-6, patience=None
        )
        result = train(
            self.network,
            self.parameters,
            self.sequences,
            settings,
            dev_score=self.dev_score,
            checkpoint=self.checkpoint / "race" / f"{rate:g} for {steps}" if self.checkpoint else None,
            identity=self.identity,
        )
        return result.best_score or 0.0

    def put_back(self) -> None:
        """Gives the parameters the values that they started with."""
        for name, tensor in self.start.items():
            self.parameters[name].detach().copy_(tensor)
