"""How a training run goes, and what it tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

from tailorbird.errors import RecipeError
from tailorbird.network.optimizer import OptimizerName
from tailorbird.network.schedule import Schedule


@dataclass(frozen=True)
class TrainSettings:
    """How a training run goes.

    Attributes:
        learning_rate: The peak rate. For LoRA about ten times that of full fine-tuning.
        epochs: Passes over the sequences; fractions are allowed.
        max_steps: Overrides `epochs` if given.
        batch_size: Sequences a step, at most.
        max_batch_tokens: Tokens that go through the network at once, padding included; a step of more is
            split and its gradients are added up, which changes memory and not the result.
        warmup_fraction: Part of all steps in which the rate rises from almost 0, in [0, 1).
        schedule: How the rate falls afterwards: "cosine", "linear" or "constant".
        weight_decay: Pull of matrices towards 0; norms, biases and embeddings are not pulled.
        clip_norm: Gradients longer than this are scaled down to it.
        seed: Sets the order of the sequences and dropout.
        evaluations_per_epoch: How often `dev_score` is asked, besides after the last step.
        evaluate_first: Ask `dev_score` before the first step too, so that training never makes worse.
        patience: Stop after this many evaluations in a row without a better score; None never does.
        optimizer: "adamw", or "muon" (for networks trained from scratch).
        checkpoint_every_s: Seconds between checkpoints, at least.
        checkpoint_every_steps: Steps between checkpoints instead of seconds, if given.
        bf16_on_cuda: Compute in bfloat16 (parameters stay as they are) where they lie on a CUDA device.
        share_prefix: Compute the tokens that all sequences of a batch begin with once.
        beta: Learn preferences, by DPO; the larger, the nearer the model stays to what it was. None learns
            completions.
        views: How often every example is among the sequences, seen otherwise each time: all examples, then
            all again in the same order. A pass goes over one view of each, and the next over the next.
    """

    learning_rate: float = 5e-4
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 16
    max_batch_tokens: int = 16_384
    warmup_fraction: float = 0.06
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    seed: int = 0
    evaluations_per_epoch: float = 1.0
    evaluate_first: bool = False
    patience: int | None = None
    optimizer: OptimizerName = "adamw"
    checkpoint_every_s: float = 60.0
    checkpoint_every_steps: int | None = None
    bf16_on_cuda: bool = True
    share_prefix: bool = True
    beta: float | None = None
    views: int = 1

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "clip_norm", "evaluations_per_epoch", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RecipeError(f"{name} must be above 0 and finite. Got {value!r}.")
        for name in (
            "batch_size",
            "max_batch_tokens",
            "max_steps",
            "patience",
            "checkpoint_every_steps",
            "views",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"{name} must be at least 1. Got {value!r}.")
        if not 0 <= self.warmup_fraction < 1:
            raise RecipeError(f"warmup_fraction must lie in [0, 1). Got {self.warmup_fraction!r}.")
        if not self.weight_decay >= 0:
            raise RecipeError(f"weight_decay must be at least 0. Got {self.weight_decay!r}.")
        for name, kind in (("schedule", Schedule), ("optimizer", OptimizerName)):
            if getattr(self, name) not in get_args(kind):
                raise RecipeError(
                    f"{name} {getattr(self, name)!r} is unknown. Choose one of {list(get_args(kind))}."
                )


@dataclass(frozen=True)
class StepReport:
    """One step of training, as told to `on_step`.

    `loss` is the mean negative log-likelihood of a labelled token, in nats, before the step, or the mean loss
    of a preference (see `objectives`); of preferences, `reward_margin` is the mean margin m and
    `reward_accuracy` the share of those with m above 0, both before the step;
    `gradient_norm` is the norm before clipping; `tokens`, those of them that were `shared_tokens` and not
    computed, and `seconds` count from the run's beginning; `score` is set where `dev_score` was asked
    after this step; `epoch` is how many passes over the sequences are done.
    """

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    score: float | None = None
    shared_tokens: int = 0
    epoch: float = 0.0
    reward_margin: float | None = None
    reward_accuracy: float | None = None


@dataclass
class Progress:
    """How far a run has come; JSON-like."""

    step: int = 0
    losses: list[float] = field(default_factory=list[float])
    best_step: int | None = None
    best_score: float | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    tokens: int = 0
    shared_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    `loss` is that of the last step and `losses` are all of them. `best_step` counts steps done (0 is
    untrained); with `best_score` it is None where no `dev_score` was given. `tokens` are input tokens of
    the sequences, and `shared_tokens` those of them that were not computed because their batch shared
    them. `seconds` are wall-clock, over all resumptions.
    """

    steps: int
    loss: float
    losses: tuple[float, ...]
    best_step: int | None
    best_score: float | None
    stopped_early: bool
    tokens: int
    shared_tokens: int
    seconds: float

    @property
    def shared_fraction(self) -> float:
        """The part of the input tokens, in [0, 1), that sharing saved; 0 means the plain path ran."""
        return self.shared_tokens / self.tokens if self.tokens else 0.0
