"""In which type matrices are multiplied fastest here: measured, since processors differ both ways."""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache
from typing import Any, Literal, get_args

import torch

from tailorbird.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
"""What products are computed in; "auto" is bfloat16 where it is faster. Parameters stay in float32."""

WORTH_IT = 1.25
"""Times faster that bfloat16 must be: below it, its rounding isn't worth the gain."""
NARROW = 256
ROWS = 384
PROBE_S = 0.15
"""Seconds given to each type."""


def check_precision(precision: str) -> None:
    """Raises RecipeError for a name that is none."""
    if precision not in get_args(Precision):
        raise RecipeError(f"precision is {precision!r}; expected one of {list(get_args(Precision))}.")


def compute_type(precision: Precision, width: int, *, device: str = "cpu") -> torch.dtype:
    """The type for matrix products of a network `width` wide.

    On a CUDA device "auto" is bfloat16, which all that are still sold multiply faster. A narrow network
    stays in float32: its products are not where its time goes.
    """
    check_precision(precision)
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device != "cpu":
        return torch.bfloat16
    faster = width >= NARROW and bfloat16_gain(width) >= WORTH_IT
    return torch.bfloat16 if faster else torch.float32


def bfloat16_products(
    device: torch.device, *, wanted: bool, remember: bool = True
) -> contextlib.AbstractContextManager[Any]:
    """Inside, products on a CUDA device are in bfloat16 if that is wanted; elsewhere nothing changes.

    With `remember` a weight that is used twice is converted once.
    """
    if wanted and device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=remember)
    return contextlib.nullcontext()


@lru_cache(maxsize=8)
def bfloat16_gain(width: int) -> float:
    """How many times faster than float32 this machine multiplies in bfloat16; takes a third of a second."""
    return _rate(width, torch.bfloat16) / _rate(width, torch.float32)


def _rate(width: int, dtype: torch.dtype) -> float:
    """Products a second, by the fastest one: what else runs on the machine only slows others down."""
    x_MC = torch.ones(ROWS, width, dtype=dtype)
    W_OC = torch.ones(4 * width, width, dtype=dtype)
    best_s, began = float("inf"), time.perf_counter()
    with torch.inference_mode():
        torch.nn.functional.linear(x_MC, W_OC)
        # At least once: a process may be kept waiting for longer than the probe lasts.
        while best_s == float("inf") or time.perf_counter() - began < PROBE_S:
            start = time.perf_counter()
            torch.nn.functional.linear(x_MC, W_OC)
            best_s = min(best_s, time.perf_counter() - start)
    return 1 / best_s
