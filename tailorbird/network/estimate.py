"""What a training will take, told before it starts: tokens counted, time and memory probed.

    tokens   counted in the very batches that will be made, with what they share
    time     a few real steps are computed and thrown away: seconds per multiply-add, times all of them
    memory   held now + gradients, moments and best weights + the largest batch's activations, whose
             bytes a token are counted in the same steps

Multiply-adds of a forward pass are (weights of the body) · tokens + (weights of the head) · labels; the
backward pass costs as much again, and once more where the weights themselves are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tailorbird.network import processes
from tailorbird.network.batches import Batch, split
from tailorbird.network.loss import forks, num_shared, shared_prefix, shares
from tailorbird.network.memory import available_bytes, used_bytes
from tailorbird.network.network import Network
from tailorbird.network.optimizer import is_matrix
from tailorbird.network.run import Run
from tailorbird.network.sequences import Preference, Unit
from tailorbird.network.settings import TrainSettings
from tailorbird.network.sharding import layer_bytes

MOST_STEPS = 2_000
"""Longer runs are counted by so many of their steps, evenly spread."""
LOW_RANK = 8
"""Matrices so many times longer than wide are updates of others, whose inputs and outputs count already."""

BETWEEN = 1.8
"""Bytes that a training step takes a token, over those of the linear layers' inputs and outputs."""
BETWEEN_FUSED = 1.25
"""The same where operations are fused in float32; in half precision some of what stands between stays in float32."""


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take, if it does not stop early.

    `tokens` are those of the sequences; `shared_tokens` of them are not computed. `flops` are floating
    point operations of all steps. `held_bytes` were held before, `state_bytes` are gradients, moments
    and best weights, `activation_bytes` what the largest batch needs; `available_bytes` may be taken
    besides what is held. `longest` is the number of tokens of the longest sequence, `num_trained` that
    of the numbers that change. `search_steps` and `search_evaluations` are spent before, on choosing the
    learning rate. Where layers are shared out among `shared_among` processes, bytes are one process's, its
    part of the layers' gradients, moments and best weights among them.
    """

    stage: str
    device: str
    steps: int
    evaluations: int
    tokens: int
    shared_tokens: int
    flops: float
    step_s: float
    evaluation_s: float
    held_bytes: int
    state_bytes: int
    activation_bytes: int
    available_bytes: int
    largest_batch_tokens: int
    longest: int
    num_trained: int
    search_steps: int = 0
    search_evaluations: int = 0
    shared_among: int = 1
    reference_s: float = 0.0

    @property
    def search_s(self) -> float:
        """Wall-clock seconds that are spent before, on choosing the learning rate."""
        return self.seconds_for(self.search_steps, self.search_evaluations)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all steps and evaluations."""
        return self.seconds_for(self.steps, self.evaluations)

    @property
    def peak_bytes(self) -> int:
        """The most that the process, or the device, will hold."""
        return self.held_bytes + self.more_bytes

    @property
    def more_bytes(self) -> int:
        """What must be free for it."""
        return self.state_bytes + self.activation_bytes

    @property
    def fits(self) -> bool:
        """Whether that much is free."""
        return self.more_bytes <= self.available_bytes

    def seconds_for(self, steps: int, evaluations: int) -> float:
        """Seconds of a part of it."""
        return steps * self.step_s + evaluations * self.evaluation_s

    def to_json(self) -> dict[str, Any]:
        """For `training.json`, with the sums."""
        return {**asdict(self), "seconds": self.seconds, "peak_bytes": self.peak_bytes}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TrainingEstimate:
        """The estimate that `to_json` wrote."""
        return cls(**{key: value for key, value in record.items() if key not in ("seconds", "peak_bytes")})


@dataclass(frozen=True)
class Work:
    """What goes through the network: `computed` counts what is shared once, and padding where there is any."""

    tokens: int = 0
    shared: int = 0
    computed: int = 0
    labels: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.tokens + other.tokens,
            self.shared + other.shared,
            self.computed + other.computed,
            self.labels + other.labels,
        )


def work_of(network: Network, sequences: Sequence[Unit], settings: TrainSettings) -> list[Work]:
    """The work of every batch of a step."""
    share = shares(network, wanted=settings.share_prefix)
    forked = forks(network, share=share)
    batches = split(sequences, settings.max_batch_tokens, share=share, forked=forked)
    return [_work(network, batch, share=share) for batch in batches]


def _work(network: Network, batch: Batch, *, share: bool) -> Work:
    prefix, shared = (shared_prefix(network, batch), num_shared(network, batch)) if share else (0, 0)
    labels = sum(sequence.num_labels for sequence in batch.sequences)
    count = batch.num_computed if getattr(network, "packs", False) else batch.num_padded
    return Work(batch.num_tokens, shared, count(prefix), labels)


@dataclass(frozen=True)
class Sizes:
    """What a network's costs follow from: weights of body and head, vocabulary, bytes saved a token."""

    body: int
    head: int
    vocabulary: int
    token_bytes: float

    @classmethod
    def of(cls, network: Network) -> Sizes:
        """Read from the shapes of the weights.

        Every linear layer's input and output is taken to be saved for the backward pass, and about as much
        again for what stands between them; of the type that is computed in where operations are fused.
        """
        module: nn.Module = network if isinstance(network, nn.Module) else getattr(network, "model")  # noqa: B009
        named = list(module.named_parameters())
        matrices = [parameter for name, parameter in named if is_matrix(name, parameter)]
        lookups = [p for name, p in named if p.ndim == 2 and not is_matrix(name, p)]
        head = max(lookups, key=Tensor.numel, default=None)
        fused = getattr(network, "fused", False)
        size = torch.finfo(getattr(network, "dtype")).bits / 8 if fused else 4  # noqa: B009
        each = size * (BETWEEN_FUSED if fused and size == 4 else BETWEEN)
        saved = each * sum(
            p.shape[0] + p.shape[1] for p in matrices if LOW_RANK * min(p.shape) > max(p.shape)
        )
        return cls(
            sum(map(Tensor.numel, matrices)),
            head.numel() if head is not None else 0,
            len(head) if head is not None else 0,
            saved,
        )

    def multiply_adds(self, work: Work) -> float:
        """Of one forward pass."""
        return self.body * work.computed + self.head * work.labels

    def activation_bytes(self, batch: Work) -> float:
        """What one batch holds until its backward pass is done."""
        return self.token_bytes * batch.computed + self.logit_bytes(batch)

    def logit_bytes(self, batch: Work) -> float:
        """Of the scores over the vocabulary and their gradient, in float32."""
        return 8.0 * self.vocabulary * batch.labels


class PlannedSteps:
    """The steps that a run will take, evenly spread ones where they are many."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.numbers = range(0, run.total_steps, -(-run.total_steps // MOST_STEPS))
        self.batches = [work_of(run.network, self.sequences(n), run.settings) for n in self.numbers]

    def sequences(self, step: int) -> list[Unit]:
        """What one step learns from."""
        self.run.progress.step = step
        return self.run.next_sequences()

    def largest(self, sizes: Sizes) -> Work:
        """The batch that needs the most memory."""
        return max((batch for batches in self.batches for batch in batches), key=sizes.activation_bytes)

    @cached_property
    def steps(self) -> list[Work]:
        """The work of every counted step."""
        return [sum(batches, Work()) for batches in self.batches]

    @cached_property
    def total(self) -> Work:
        """The work of the whole run."""
        counted, factor = sum(self.steps, Work()), self.run.total_steps / len(self.numbers)
        return Work(
            round(counted.tokens * factor),
            round(counted.shared * factor),
            round(counted.computed * factor),
            counted.labels * factor,
        )


def estimate_of(
    planned: PlannedSteps,
    sizes: Sizes,
    *,
    stage: str = "",
    step_s: float = 0.0,
    evaluation_s: float | None = None,
    held_bytes: int | None = None,
    checkpoints: bool = False,
) -> TrainingEstimate:
    """The estimate that follows from what was counted and probed.

    Args:
        planned: the steps of the run.
        sizes: of the network.
        stage: what this training is called.
        step_s: seconds of a mean step.
        evaluation_s: seconds of one `dev_score`; None where there is none.
        held_bytes: what is held between steps; None takes what is held now.
        checkpoints: whether checkpoints will be written, which takes memory too.
    """
    run, total = planned.run, planned.total
    saving = _saved_bytes(run) if checkpoints else 0
    gathered = _gathered_bytes(run)
    largest = planned.largest(sizes)
    num_trained = sum(parameter.numel() for parameter in run.parameters.values())
    trained_share = min(1.0, num_trained / max(1, sizes.body + sizes.head))
    return TrainingEstimate(
        stage=stage,
        device=run.device.type,
        steps=run.total_steps,
        evaluations=0 if evaluation_s is None else evaluations_in(run.total_steps, run),
        tokens=total.tokens,
        shared_tokens=total.shared,
        flops=2 * sizes.multiply_adds(total) * (2 + trained_share),
        step_s=step_s,
        evaluation_s=evaluation_s or 0.0,
        held_bytes=used_bytes(run.device) if held_bytes is None else held_bytes,
        state_bytes=_state_bytes(run, gradients=1),
        activation_bytes=round(max(sizes.activation_bytes(largest) + gathered, saving)),
        available_bytes=available_bytes(run.device),
        largest_batch_tokens=largest.computed,
        longest=max(run.lengths),
        num_trained=num_trained,
        shared_among=processes.num_processes() if run.parts.sharded else 1,
        # A forward pass without its backward pass, over every preference once.
        reference_s=step_s * run.steps_per_epoch / (2 + trained_share) if _lack_references(run) else 0.0,
    )


def _lack_references(run: Run) -> bool:
    first = run.sequences[0]
    return isinstance(first, Preference) and first.reference is None


def evaluations_in(steps: int, run: Run) -> int:
    """How often dev is asked within the first so many steps."""
    every = max(1, round(run.steps_per_epoch / run.settings.evaluations_per_epoch))
    last = steps == run.total_steps and steps % every != 0
    return steps // every + last + run.settings.evaluate_first


def _state_bytes(run: Run, *, gradients: int) -> int:
    """Of gradients, moments, and a copy of the best parameters, as far as this process holds them."""
    return (gradients + _moments(run) + 1) * sum(p.numel() * p.element_size() for p in run.parts.own.values())


def _saved_bytes(run: Run) -> int:
    """What a checkpoint takes while it is written; one that parts are gathered for is put together whole."""
    if not run.parts.sharded:
        return _state_bytes(run, gradients=0)
    whole = sum(p.numel() * p.element_size() for p in run.parameters.values())
    return (_moments(run) + 2) * whole if run.device.type == "cpu" else 0


def _moments(run: Run) -> int:
    return 2 if run.settings.optimizer == "adamw" else 1


def _gathered_bytes(run: Run) -> int:
    """Of whole layers while they run: two at a time, and one's gradients twice where they are added up."""
    network = run.network
    module: nn.Module = network if isinstance(network, nn.Module) else getattr(network, "model")  # noqa: B009
    return 4 * layer_bytes(module)
