"""Random numbers of a run: they start from its seed, go into its checkpoints, and leave torch's own alone."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor


def seed_of(*numbers: int) -> int:
    """A seed that follows from these numbers and from nothing else."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest())


@contextlib.contextmanager
def own_randomness(device: torch.device, seed: int) -> Generator[None]:
    """Random numbers that start from `seed`; torch's global state is afterwards as it was before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's random generators that training on `device` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Undo what was drawn since `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
