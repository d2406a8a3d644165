"""What a step lowers: the surprise at completions, or the loss of preferences (DPO).

    completions    Σ_i w_i (-log π(y_i|x_i)) / Σ_i w_i |y_i|
    preferences    Σ_i w_i (-log σ(m_i)) / Σ_i w_i
                   m = β ((log π(y_w|x) - log π_ref(y_w|x)) - (log π(y_l|x) - log π_ref(y_l|x)))

The second is equation 7 of Rafailov et al. 2023, arXiv 2305.18290, with y_w the preferred and y_l the rejected
completion, and π_ref the model as it was before training. Where training begins m is 0 and the loss log 2.

Legend: B sequences of a batch, P preferences of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from tailorbird.errors import RecipeError
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss, sequence_log_probabilities
from tailorbird.network.network import Network
from tailorbird.network.sequences import Preference, Unit
from tailorbird.network.settings import TrainSettings


class Objective(Protocol):
    """How a step's loss is summed up over its batches, and by what the sum is divided."""

    @property
    def tells(self) -> tuple[str, ...]:
        """Names of what is told of a step beside its loss, as in `StepReport`."""
        ...

    def divisor(self, units: Sequence[Unit]) -> float:
        """What makes the sums over all of a step's units means."""
        ...

    def sums(
        self, network: Network, batch: Batch, *, device: torch.device, share: bool
    ) -> tuple[Tensor, tuple[float, ...]]:
        """The batch's summed loss, a scalar, and its sums of what is told."""
        ...


@dataclass(frozen=True)
class Completions:
    """The negative log-likelihood of a labelled token, in nats."""

    @property
    def tells(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def divisor(self, units: Sequence[Unit]) -> float:
        """Labels, each with its sequence's weight."""
        return sum(unit.weight * unit.num_labels for unit in units)

    def sums(
        self, network: Network, batch: Batch, *, device: torch.device, share: bool
    ) -> tuple[Tensor, tuple[float, ...]]:
        """See `completion_loss`."""
        return completion_loss(network, batch, device=device, share=share)[0], ()


@dataclass(frozen=True)
class Preferences:
    """Direct preference optimization.

    Args:
        beta: above 0; the larger, the nearer the model stays to the reference.
    """

    beta: float

    @property
    def tells(self) -> tuple[str, ...]:
        """The mean margin, and the share of margins above 0."""
        return "reward_margin", "reward_accuracy"

    def divisor(self, units: Sequence[Unit]) -> float:
        """Preferences, each with its weight."""
        return sum(unit.weight for unit in units)

    def sums(
        self, network: Network, batch: Batch, *, device: torch.device, share: bool
    ) -> tuple[Tensor, tuple[float, ...]]:
        """The loss; the margins m, and how many are above 0.

        A reference that isn't known is taken to be what the model says now.
        """
        log_p_B = sequence_log_probabilities(network, batch, device=device, share=share)
        gap_P = gaps(log_p_B)
        units = cast("tuple[Preference, ...]", batch.units)
        known = zip(units, gap_P.tolist(), strict=True)
        references = [gap if unit.reference is None else unit.reference for unit, gap in known]
        margin_P = self.beta * (gap_P - gap_P.new_tensor(references))
        weight_P = gap_P.new_tensor([unit.weight for unit in units])
        with torch.no_grad():
            told = float((weight_P * margin_P).sum()), float((weight_P * (margin_P > 0)).sum())
        return (weight_P * functional.softplus(-margin_P)).sum(), told


def gaps(log_p_B: Tensor) -> Tensor:
    """Every preference's log π(preferred) - log π(rejected), [P], from both one after the other."""
    preferred_P, rejected_P = log_p_B.view(-1, 2).unbind(1)
    return preferred_P - rejected_P


def objective_of(units: Sequence[Unit], settings: TrainSettings) -> Objective:
    """The objective that the settings ask for: preferences where they have a `beta`.

    Raises:
        RecipeError: the units are of the other kind.
    """
    if settings.beta is None:
        if units and isinstance(units[0], Preference):  # a long text's blocks are not all looked at
            raise RecipeError(
                "beta is None, and there are preferences to learn from. Give a beta, such as 0.1."
            )
        return Completions()
    if others := sum(not isinstance(unit, Preference) for unit in units):
        raise RecipeError(
            f"beta is {settings.beta}, which asks for preferences, and {others} of {len(units)} sequences are none. "
            "Give each a rejected completion, or no beta."
        )
    return Preferences(settings.beta)
