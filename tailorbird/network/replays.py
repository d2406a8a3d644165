"""Gradients of completions by recorded work: a CUDA graph instead of thousands of single launches.

A small model's step on a GPU takes as long as it takes Python to launch its kernels. Recorded once, the same
work is launched as one; but a recording is of fixed sizes and fixed places in memory. So a batch is laid out as
a few arrays of numbers, whose sizes are rounded up, which are copied to where the recording reads them:

    ids         tokens of the stream, filled up          | N
    positions   each one's place in its sequence         | N
    bounds      where pieces of text begin and end       | pieces + 1: none is longer than `longest`
    ends        0, of the prefix, of the stream          | 3
    rows        tokens whose states predict something    | labels, filled up
    which       each label's place among those           | labels
    tokens      the labels                               | labels
    weights     how much each counts; of no label 0      | labels

What the stream is filled up with is a piece of its own; empty pieces fill up the bounds.

Sizes are recorded when they have come up before, and are likely to come up often enough again. The first recording
of a run is held against the gradients computed step by step. Where something can't be recorded the run goes on step
by step, and says so.

What a recording computes with is kept for all recordings together, beside what batches computed step by step take: the
device's memory for one batch is taken twice.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import cast

import torch
from torch import Tensor, nn

from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss, labels_of, rows_of
from tailorbird.network.network import Network, PackingNetwork
from tailorbird.network.packing import pack
from tailorbird.network.precision import bfloat16_products
from tailorbird.network.tree_attention import Call, Stream, call_of_prefix

log = logging.getLogger(__name__)

WORTH_IT = 2
"""Batches of the same sizes from which on they may be recorded."""
PAYS = 6
"""They are if so many more are likely to come: recording takes as long as three or four of them step by step."""
MOST = 64
"""Recordings that are kept, at most; they share their memory but for what they read."""
LEAST = 256
"""No array is smaller, and up to some times this sizes are coarse (`rounded`): what takes a GPU's time is then how many
kernels there are, not how large they are."""
LEAST_PIECES, LEAST_LONGEST = 64, 1024
"""The same for the number of pieces and the longest of them, of which kernels are told no more than a bound."""
ROUNDING = 0.03
"""Relative difference between two ways of computing gradients in half precision that is rounding."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a recording: of the arrays above, and what no piece and no prefix is longer than."""

    stream: int
    pieces: int
    labels: int
    longest: int
    prefix: int

    @property
    def lengths(self) -> list[int]:
        """Of ids, positions, bounds, ends, rows, which and tokens, one after the other."""
        return [self.stream, self.stream, self.pieces + 1, 3, *[self.labels] * 3]


@dataclass(frozen=True)
class LaidOut:
    """A batch as arrays of rounded sizes: all whole numbers one after the other, and the weights."""

    sizes: Sizes
    numbers: Tensor
    weights_N: Tensor  # noqa: N815


def lay_out(batch: Batch, prefix: int, divisor: float) -> LaidOut:
    """The arrays of a batch, of which no unit forks.

    Args:
        batch: what is learnt.
        prefix: tokens that all its sequences begin with and that are computed once.
        divisor: by which the weights are divided.
    """
    packed, labels = pack(batch.inputs, prefix), labels_of(batch)
    rows = [
        row
        for own, where in zip(packed.pieces, labels.predicting, strict=True)
        for row in rows_of(own, where)
    ]
    rows_U, which_N = torch.unique(torch.tensor(rows), return_inverse=True)
    own = [length for length in (prefix, *packed.lengths) if length]
    count, num_labels = len(packed.ids), len(labels.tokens)
    stream = rounded(count)
    filled = [stream - count] if stream > count else []
    sizes = Sizes(
        stream,
        max(LEAST_PIECES, _power(len(own) + 1)),
        rounded(num_labels),
        max(LEAST_LONGEST, _power(max((*own, *filled)))),
        max(LEAST_LONGEST, _power(prefix)) if 0 < prefix < count else 0,
    )
    ends = list(accumulate((*own, *filled), initial=0))
    numbers = [
        *_filled(packed.ids, stream),
        *_filled(packed.positions, stream),
        *_filled(ends, sizes.pieces + 1, stream),
        *(0, prefix, count),
        *_filled(rows_U.tolist(), sizes.labels),
        *_filled(which_N.tolist(), sizes.labels),
        *_filled(labels.tokens, sizes.labels),
    ]
    weights_N = torch.zeros(sizes.labels)
    weights_N[:num_labels] = torch.tensor(labels.weights) / divisor
    return LaidOut(sizes, torch.tensor(numbers), weights_N)


def rounded(count: int) -> int:
    """A count rounded up, so that there are few of them: small ones to powers of two, large ones by an eighth at most.

    >>> rounded(5), rounded(600), rounded(1100), rounded(4100)
    (256, 1024, 1280, 4608)
    """
    if count <= 4 * LEAST:
        return max(LEAST, _power(count))
    parts = 4 if count <= 16 * LEAST else 8
    unit = _power(count) // 2 // parts
    return -(-count // unit) * unit


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _filled(numbers: Sequence[int], count: int, rest: int = 0) -> list[int]:
    return [*numbers, *repeat(rest, count - len(numbers))]


def summed_loss(network: PackingNetwork, sizes: Sizes, numbers: Tensor, weights_N: Tensor) -> Tensor:
    """The weighted negative log-likelihood of a batch that is laid out; see `completion_loss`."""
    ids_N, positions_N, bounds, ends, rows_U, which_N, tokens_N = numbers.split(sizes.lengths)
    bounds, ends = bounds.int(), ends.int()
    calls = [Call(None, None, bounds, bounds, sizes.longest, sizes.longest, causal=True)]
    if sizes.prefix:
        places_N = torch.arange(sizes.stream, device=numbers.device)
        calls.append(call_of_prefix(ends, places_N, sizes.stream, sizes.prefix))
    states_NC = network.packed(Stream(ids_N[None], positions_N[None], tuple(calls)))
    logits_UV = network.logits(states_NC.index_select(0, rows_U)).float()
    nll_N = logits_UV.logsumexp(1)[which_N] - logits_UV[which_N, tokens_N]
    return (nll_N * weights_N).sum()


Work = Callable[[], Tensor]
"""Reads and writes the same places in memory each time; gives a number that is one of them."""


class Replays:
    """Adds the gradients of batches to parameters, by recordings where their sizes come up again.

    Args:
        network: takes streams.
        parameters: what is trained, by name, all on one device.
        bf16: whether products are in bfloat16, as `bfloat16_products` has them.
        record: records some work, and gives what does it again.
    """

    def __init__(
        self,
        network: PackingNetwork,
        parameters: Mapping[str, nn.Parameter],
        *,
        bf16: bool,
        record: Callable[[Work], Work] | None = None,
    ) -> None:
        self._network = network
        self._parameters = list(parameters.values())
        self._device = self._parameters[0].device
        self._bf16 = bf16
        self._record = record or Recorder(self._device)
        self._sums: list[Tensor] = []
        self._met: Counter[Sizes] = Counter()
        self._recorded: dict[Sizes, _Recorded] = {}
        self._works = True

    def add_gradients(self, batch: Batch, prefix: int, divisor: float, part_left: float) -> float | None:
        """Add the gradients of the batch's loss over `divisor`; that quotient, or None where nothing was added.

        Args:
            batch: what is learnt.
            prefix: tokens that all its sequences begin with and that are computed once.
            divisor: makes the sum over a step's batches a mean.
            part_left: part of the training that is still to come.
        """
        if not self._works or batch.forked or not batch.num_labels:
            return None
        laid = lay_out(batch, prefix, divisor)
        recorded = self._recorded.get(laid.sizes)
        if recorded is None:
            self._met[laid.sizes] += 1
            to_come = self._met[laid.sizes] * part_left / max(1e-9, 1 - part_left)
            if self._met[laid.sizes] < WORTH_IT or to_come < PAYS or len(self._recorded) >= MOST:
                return None
            recorded = self._recording(laid, batch, divisor)
            if recorded is None:
                return None
            self._recorded[laid.sizes] = recorded
        self._gather()
        return recorded.run(laid)

    def _recording(self, laid: LaidOut, batch: Batch, divisor: float) -> _Recorded | None:
        """Work of these sizes, recorded; None, and never again, where that doesn't succeed."""
        if not self._sums:
            self._sums = [torch.zeros_like(parameter) for parameter in self._parameters]
        first = not self._recorded
        self._gather()
        before = [total.clone() for total in self._sums]
        recorded = _Recorded(laid, self._device)
        try:
            recorded.replay = self._record(lambda: self._work(recorded))
            problem = self._difference(recorded, laid, batch, divisor) if first else ""
        except RuntimeError as error:  # torch's word for all that CUDA and its kernels refuse
            problem = f"could not be recorded: {str(_first(error)).partition(chr(10))[0]}"
        for total, value in zip(self._sums, before, strict=True):
            total.copy_(value)
        if problem:
            self._works = False
            log.warning("Steps of the training run one operation at a time: their work %s.", problem)
        return None if problem else recorded

    def _work(self, recorded: _Recorded) -> Tensor:
        """Adds the gradients of what is laid out there to the sums; the loss."""
        with bfloat16_products(self._device, wanted=self._bf16, remember=False):
            loss = summed_loss(self._network, recorded.sizes, recorded.numbers, recorded.weights_N)
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            torch.ops.aten._foreach_add_.List(self._sums, [gradient.detach() for gradient in found])
        return loss.detach()

    def _difference(self, recorded: _Recorded, laid: LaidOut, batch: Batch, divisor: float) -> str:
        """What is wrong with the gradients of a batch by its recording; "" where nothing is."""
        self._set_to_zero()
        recorded.run(laid)
        with bfloat16_products(self._device, wanted=self._bf16):
            loss = completion_loss(self._network, batch, device=self._device)[0] / divisor
        by_steps = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        expected = torch.cat([gradient.flatten().float() for gradient in by_steps])
        found = torch.cat([total.flatten().float() for total in self._sums])
        part = float((found - expected).norm() / expected.norm())
        return "" if part <= ROUNDING else f"gives other gradients when it is recorded (by {part:.2g})"

    def _set_to_zero(self) -> None:
        torch.ops.aten._foreach_zero_.default(self._sums)

    @torch.no_grad()
    def _gather(self) -> None:
        """Every parameter's gradient is where recordings add to it, with what it is so far."""
        if all(p.grad is total for p, total in zip(self._parameters, self._sums, strict=True)):
            return
        if all(parameter.grad is None for parameter in self._parameters):
            self._set_to_zero()
            for parameter, total in zip(self._parameters, self._sums, strict=True):
                parameter.grad = total
            return
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            if parameter.grad is None:
                total.zero_()
            elif parameter.grad is not total:
                total.copy_(parameter.grad)
            parameter.grad = total


def _first(error: BaseException) -> BaseException:
    """What went wrong before a recording was ended, which fails as well."""
    while error.__context__ is not None:
        error = error.__context__
    return error


class _Recorded:
    """Where a recording reads what is laid out, and what does its work."""

    def __init__(self, laid: LaidOut, device: torch.device) -> None:
        self.sizes = laid.sizes
        self.numbers, self.weights_N = laid.numbers.to(device), laid.weights_N.to(device)
        self.replay: Work = lambda: self.weights_N

    def run(self, laid: LaidOut) -> float:
        """The work on something else of the same sizes; its loss."""
        for place, content in ((self.numbers, laid.numbers), (self.weights_N, laid.weights_N)):
            pinned = content.pin_memory() if place.is_cuda else content
            place.copy_(pinned, non_blocking=True)
        return float(self.replay())


class Recorder:
    """Records work as CUDA graphs, which share their memory: none runs while another does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Work) -> Work:
        """What does the work once more; it has been done at least once by then."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()  # libraries choose their ways, and compile, when first called
        current.wait_stream(self._stream)
        gc.collect()  # parts of an old step belong to its stream, which a recording may not touch
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                result = work()
        except RuntimeError:
            self._end(current)
            raise

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    def _end(self, current: torch.cuda.Stream) -> None:
        """Ends a recording that failed, which torch leaves on its stream, its pool and its random numbers."""
        torch.cuda.set_stream(current)
        number = torch.cuda.current_device()
        generator = torch.cuda.default_generators[number]
        generator.graphsafe_set_state(generator.clone_state())
        with suppress(RuntimeError):  # it had been ended
            torch._C._cuda_endAllocateToPool(number, self._pool)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def replays_for(network: Network, parameters: Mapping[str, nn.Parameter], *, bf16: bool) -> Replays | None:
    """What records the work on a network, where it can be recorded: on CUDA, where it takes streams."""
    device = next(iter(parameters.values())).device
    if device.type != "cuda" or not getattr(network, "packs", False):
        return None
    packing = cast("PackingNetwork", network)
    with bfloat16_products(device, wanted=bf16):
        able = packing.takes_streams()
    return Replays(packing, parameters, bf16=bf16) if able else None
