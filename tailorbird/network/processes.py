"""Many processes that train one model: all compute, and what they found is added up.

Every process walks the same plan; a step's sequences are shared out, gradients are summed, and so every
process moves its parameters alike. Each holds the whole model, or a part of every layer (`sharding`). The first
one alone writes and tells. What stands here does nothing where a process is alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import pickle
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tailorbird.errors import InputError, ProcessLost, RecipeError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long the others wait while the first evaluates or saves; a process that ends is noticed at once."""


@contextlib.contextmanager
def joined(num_processes: int, local_rank: int = 0) -> Generator[None]:
    """While the block runs, this process is one of a group; where they meet, torch reads in the environment.

    Nothing happens where it is alone, or where a group was made already.

    Args:
        num_processes: how many there are, on all machines.
        local_rank: which one of this machine's processes it is; it works on the CUDA device of that number.

    Raises:
        InputError: this machine has fewer CUDA devices than processes.
        ProcessLost: the others didn't come.
    """
    if num_processes == 1 or together():
        yield
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"This machine has {torch.cuda.device_count()} CUDA devices, which is too few for process "
                f"{local_rank + 1} on it. Start as many processes as there are devices."
            )
        torch.cuda.set_device(local_rank)
    importlib.import_module("torch._dynamo")  # imported later, it would hold on to the group for good
    with lost_if_it_fails():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        gc.collect()  # sharded layers hold the group, and are held by one another
        # Once nothing holds the group, its threads are waited for. One that outlives the interpreter aborts the
        # process: it frees a tensor that Python knows, and for that takes a lock that is no more.
        dist.destroy_process_group()


def _forget_locals(error: BaseException | None) -> None:
    """Let go of what the functions that `error` ended were holding."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def together() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def num_processes() -> int:
    """How many there are."""
    return dist.get_world_size() if together() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if together() else 0


def is_first() -> bool:
    """Whether this is the process that writes and tells."""
    return rank() == 0


def from_first(make: Callable[[], T], *, everywhere: bool = False) -> T:
    """What the first process makes, in all of them; an error of it is raised in all of them.

    With `everywhere` all make it, since they must compute together, and the first one's counts. An error is
    then raised where it happens: others fail alike, or lose the process that it ends.
    """
    if not together():
        return make()
    made: Any = None
    failed: Exception | None = None
    if everywhere:
        with lost_if_group_fails():
            made = make()
    elif is_first():
        try:
            made = make()
        except Exception as error:  # noqa: BLE001 - it is raised again, everywhere
            failed = error
    sent: list[Any] = [made, _sendable(failed)]
    with lost_if_it_fails():
        dist.broadcast_object_list(sent, src=0)
    if failed := failed or sent[1]:
        raise failed
    return made if is_first() else sent[0]


def _sendable(error: Exception | None) -> Exception | None:
    try:
        return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever an error's own class raises
        return RuntimeError(f"{type(error).__name__}: {error}")


def each_from_first(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The first process's tensors by name, one after the other, in all processes; they lie on the processor.

    What the others give is not looked at.
    """
    if not together():
        yield from tensors.items()
        return
    told = from_first(lambda: [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()])
    for name, dtype, shape in told:
        tensor = tensors[name].contiguous() if is_first() else torch.empty(shape, dtype=dtype)
        if tensor.numel():
            with lost_if_it_fails():  # as bytes, which every backend can send
                dist.broadcast(tensor.reshape(-1).view(torch.uint8), src=0)
        yield name, tensor


def require_alike(fingerprint: str) -> None:
    """All processes must be about to do the same.

    Raises:
        RecipeError: one is not.
    """
    if not together():
        return
    found: list[str] = [""] * num_processes()
    with lost_if_it_fails():
        dist.all_gather_object(found, fingerprint)
    if different := [number for number, other in enumerate(found) if other != found[0]]:
        raise RecipeError(
            f"Of {len(found)} processes, {', '.join(map(str, different))} would train something else than process "
            "0: the examples, the base, the settings or the versions differ. Give every machine the same."
        )


def summed(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value's sum over all processes; `device` is where this one works."""
    if not together():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    with lost_if_it_fails():
        dist.all_reduce(total)
    return total.tolist()


def any_of(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers: a signal that one of them got is above 0."""
    if not together():
        return number
    largest = torch.tensor(int(number), device=device)
    with lost_if_it_fails():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the sum of all gradients; a process without one adds nothing."""
    if not together():
        return
    groups: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    for group in groups.values():
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in group]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with lost_if_it_fails():
            dist.all_reduce(flat)
        parts: tuple[Tensor, ...] = flat.split([p.numel() for p in group])
        for parameter, part in zip(group, parts, strict=True):
            parameter.grad = part.view_as(parameter)


@contextlib.contextmanager
def lost_if_it_fails() -> Generator[None]:
    """Around what processes tell one another: it fails where one of them is gone.

    Raises:
        ProcessLost: the block failed.
    """
    try:
        yield
    except RuntimeError as error:
        raise _lost() from error


@contextlib.contextmanager
def lost_if_group_fails() -> Generator[None]:
    """Around work in which processes tell one another something; what else fails in it stays what it is.

    Raises:
        ProcessLost: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise _lost() from error
        raise


def _lost() -> ProcessLost:
    return ProcessLost(
        f"Process {rank()} lost the others of this training: one of them ended, and its own message says why, "
        "or can't be reached. Mend that and run the same command again; it continues."
    )
