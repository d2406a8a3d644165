"""Functions of tensors, each compiled into few kernels where that is faster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Function = Callable[..., Any]

REPEATED, ROUNDS = 20, 5
"""Calls that are timed together, and how often."""
PAYS = 0.9
"""The compiled one is taken where it needs less than this part of the time."""
MANY_STEPS = 1000
"""Steps of a training from which on compiling may pay: it takes some ten seconds and spares a step a millisecond."""
ROUNDING = 0.03
"""Relative difference between two ways of computing the same that is rounding, in half precision."""


_compiling = [False]


@contextmanager
def compiling(steps: int) -> Generator[None]:
    """While the block runs, which is a training of so many steps, functions are compiled where that pays."""
    before, _compiling[0] = _compiling[0], steps >= MANY_STEPS
    try:
        yield
    finally:
        _compiling[0] = before


class WhereItPays:
    """A function, compiled by torch on CUDA devices where that pays, in a long training (`compiling`).

    At the first call for each combination of types both ways run on the arguments given: their results must
    agree but for rounding, and the compiled one be the faster. Else, and where there is no compiler, the
    function runs as it is written. Sizes may change from call to call.

    Args:
        function: of tensors and constants, gives a tensor or a tuple of them; changes none of its arguments.
        devices: types of devices on which to try.
    """

    def __init__(self, function: Function, devices: tuple[str, ...] = ("cuda",)) -> None:
        self._function = function
        self._devices = devices
        self._chosen: dict[tuple[Any, ...], Function] = {}

    def __call__(self, first: Tensor, *rest: Any) -> Any:
        """The function's result."""
        if not _compiling[0] or first.device.type not in self._devices:
            return self._function(first, *rest)
        arguments = (first, *rest)
        kind = (first.device, *(each.dtype if isinstance(each, Tensor) else each for each in arguments))
        if kind not in self._chosen:
            self._chosen[kind] = self._faster(arguments)
        return self._chosen[kind](*arguments)

    def _faster(self, arguments: tuple[Any, ...]) -> Function:
        name = self._function.__name__
        try:
            compiled = torch.compile(self._function, dynamic=True)
            if not _same(compiled(*arguments), self._function(*arguments)):
                log.warning("%s gives something else when compiled, and is not.", name)
                return self._function
        except Exception as error:  # noqa: BLE001 - a compiler's errors are of many kinds, and none matters
            log.info("%s could not be compiled: %s", name, str(error).partition("\n")[0])
            return self._function
        part = _seconds(compiled, arguments) / _seconds(self._function, arguments)
        log.info("%s takes %.2f of its time when compiled.", name, part)
        return compiled if part < PAYS else self._function


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(_same(*pair) for pair in zip(one, other, strict=True))
    if not isinstance(one, Tensor):
        return one == other
    return bool((one - other).float().norm() <= ROUNDING * other.float().norm())


def _seconds(function: Function, arguments: tuple[Any, ...]) -> float:
    device = arguments[0].device
    found: list[float] = []
    for _ in range(ROUNDS):
        _finish(device)
        started = time.perf_counter()
        for _ in range(REPEATED):
            function(*arguments)
        _finish(device)
        found.append(time.perf_counter() - started)
    return min(found)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
