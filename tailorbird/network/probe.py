"""Some steps of a planned run, computed and thrown away: what they take tells what all of them will."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch
from torch import Tensor, nn

from tailorbird.network.estimate import PlannedSteps, Sizes, Work, work_of
from tailorbird.network.memory import PeakMemory, available_bytes, used_bytes
from tailorbird.network.network import set_mode
from tailorbird.network.optimizer import clip_gradients, make_optimizers
from tailorbird.network.randomness import own_randomness
from tailorbird.network.replays import MOST, PAYS, WORTH_IT, rounded
from tailorbird.network.run import Run
from tailorbird.network.sequences import Unit

LEAST_S, MOST_S = 2.0, 8.0
"""Steps are probed for about so long: for 3 % of the training, within these bounds."""
CHEAP = 0.05
"""Short trainings are probed for no more than this part of them, but for `TIMED` steps."""
TIMED = 3
MOST_PROBED = 20_000_000
"""Of more trained numbers than these the optimizer is timed on a part."""
PLAUSIBLE = (1.0, 1.6)
"""Bytes that a step really took, over those that it saved for its backward pass."""


@dataclass(frozen=True)
class Probed:
    """What was found: seconds of a mean step, sizes as measured, bytes held between steps.

    `step_s` is 0 where not even a typical step fits.
    """

    step_s: float
    sizes: Sizes
    held_bytes: int


def probe(planned: PlannedSteps) -> Probed:
    """Time typical steps and count what they save. The parameters are as before, without gradients."""
    run, sizes = planned.run, Sizes.of(planned.run.network)
    _, batches = next(_typical(planned, sizes))
    if run.by_first(lambda: max(map(sizes.activation_bytes, batches)) > available_bytes(run.device)):
        return Probed(0.0, sizes, used_bytes(run.device))
    with own_randomness(run.device, run.settings.seed):
        set_mode(run.network, training=True)
        try:
            # Weights come into memory, and libraries choose their ways, when first needed.
            _timed(run, [min(run.sequences, key=len)])
            run.parts.forget_gradients()
            return _probed(planned, sizes, used_bytes(run.device))
        finally:
            set_mode(run.network, training=False)
            run.parts.forget_gradients()


def _probed(planned: PlannedSteps, sizes: Sizes, held_bytes: int) -> Probed:
    started = time.perf_counter()
    seconds = work = 0.0
    recording: list[float] = []
    replays = _will_be_replayed(planned)
    for number, (sequences, batches) in enumerate(_typical(planned, sizes), 1):
        if number == 1:
            took, sizes = _measured(planned.run, sequences, batches, sizes)
        else:
            took = _timed(planned.run, sequences)
        if replays:
            took = _replayed(planned.run, sequences, recording)
        seconds += took
        work += sum(map(sizes.multiply_adds, batches))
        whole_s = seconds / work * sizes.multiply_adds(planned.total)
        spent = time.perf_counter() - started
        enough = number >= TIMED and spent > CHEAP * whole_s
        enough = enough or spent > min(MOST_S, max(LEAST_S, 0.03 * whole_s))
        if planned.run.by_first(lambda enough=enough: enough):
            break
    mean = sizes.multiply_adds(planned.total) / planned.run.total_steps
    step_s = seconds / work * mean + _optimizer_seconds(planned.run)
    if recording:
        step_s += _num_recordings(planned) * max(recording) / planned.run.total_steps
    return Probed(step_s, sizes, held_bytes)


def _will_be_replayed(planned: PlannedSteps) -> bool:
    """Whether sizes of batches come up often enough on average for their work to be recorded."""
    often = planned.run.total_steps / _num_recordings(planned)
    return planned.run.replays is not None and often >= WORTH_IT + PAYS


def _replayed(run: Run, sequences: list[Unit], recording: list[float]) -> float:
    """Seconds of a step whose work is recorded; those that it took until it was are added to the list."""
    run.progress.step = 0  # near a run's end nothing new is recorded
    started = time.perf_counter()
    for _ in range(WORTH_IT):
        _timed(run, sequences)
    recording.append(time.perf_counter() - started)
    return _timed(run, sequences)


def _num_recordings(planned: PlannedSteps) -> int:
    """About how many sizes of batches there are, of which each is recorded."""
    sizes = {(rounded(b.computed), rounded(round(b.labels))) for batches in planned.batches for b in batches}
    return min(MOST, len(sizes))


def _typical(planned: PlannedSteps, sizes: Sizes) -> Iterator[tuple[list[Unit], list[Work]]]:
    """Steps of median size and of the quartiles' in turn, without end."""
    order = sorted(range(len(planned.steps)), key=lambda n: sizes.multiply_adds(planned.steps[n]))
    for share in cycle((0.5, 0.25, 0.75)):
        number = order[int(share * len(order))]
        sequences = planned.sequences(planned.numbers[number])
        yield sequences, work_of(planned.run.network, sequences, planned.run.settings)


def _timed(run: Run, sequences: list[Unit]) -> float:
    started = time.perf_counter()
    run.own_gradients_of(sequences)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
    return time.perf_counter() - started


def _measured(run: Run, sequences: list[Unit], batches: Sequence[Work], sizes: Sizes) -> tuple[float, Sizes]:
    """Seconds of a step, and the sizes with the bytes that one token of it took.

    Where layers are shared out the bytes stay those of the shapes: what is saved then includes gathered weights.
    """
    if run.parts.sharded:
        return _timed(run, sequences), sizes
    saved = _SavedBytes(run)
    before = used_bytes(run.device)
    with PeakMemory(run.device, every_s=0.005) as peak, saved.counting():
        seconds = _timed(run, sequences)
    work = sum(batches, Work())
    token_bytes = max(0.0, saved.bytes - 0.5 * sizes.logit_bytes(work)) / work.computed
    sizes = replace(sizes, token_bytes=token_bytes)
    gradients = sum(p.numel() * p.element_size() for p in run.parameters.values())
    really = (peak.bytes - before - gradients) / max(map(sizes.activation_bytes, batches))
    least, most = PLAUSIBLE
    return seconds, replace(sizes, token_bytes=token_bytes * min(most, max(least, really)))


class _SavedBytes:
    """Counts what is saved for backward passes, each storage once, the network's weights not at all."""

    def __init__(self, run: Run) -> None:
        network = run.network
        module: nn.Module = network if isinstance(network, nn.Module) else getattr(network, "model")  # noqa: B009
        self.bytes = 0
        self._seen = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def counting(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Counts while the block runs."""
        return torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _optimizer_seconds(run: Run) -> float:
    """Of clipping and moving all parameters once, timed on stand-ins: the real ones must not move."""
    stand_ins: dict[str, nn.Parameter] = {}
    probed = total = 0
    for name, parameter in run.parts.own.items():
        total += parameter.numel()
        if probed < MOST_PROBED:
            probed += parameter.numel()
            stand_ins[name] = nn.Parameter(torch.zeros_like(parameter))
            stand_ins[name].grad = torch.zeros_like(parameter)
    settings = run.settings
    optimizers = make_optimizers(
        stand_ins, learning_rate=settings.learning_rate, optimizer=settings.optimizer
    )
    seconds = 0.0
    for _ in range(2):  # the first makes the moments
        started = time.perf_counter()
        clip_gradients(stand_ins.values(), settings.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)
        seconds = time.perf_counter() - started
    return seconds * total / max(1, probed)


def unprobed(planned: PlannedSteps) -> Probed:
    """What is known without computing: no times, and memory by the shapes of the weights."""
    run = planned.run
    return Probed(0.0, Sizes.of(run.network), used_bytes(run.device))
