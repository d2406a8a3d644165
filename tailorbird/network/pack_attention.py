"""Attention over packs by the fastest way that this machine has and that gives what attention gives."""

from __future__ import annotations

import logging
from functools import lru_cache, partial

import torch
from torch import Tensor

from tailorbird.network.branched_attention import branched_attention
from tailorbird.network.packing import Pack, pack, pack_pairs
from tailorbird.network.tree_attention import Call, Kernel, Stream, calls_of, tree_attention

log = logging.getLogger(__name__)

MOST_WIDTH = 256
"""The widest head that FlashAttention takes; its width is a multiple of 8."""
LEAST_CAPABILITY = (8, 0)
"""FlashAttention needs CUDA devices of this generation (Ampere) or later."""
ROUNDING = 0.03
"""Relative difference between two ways of computing attention in half precision that is rounding."""


def pack_attention(
    query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, packed: Pack | Stream, scale: float
) -> Tensor:
    """What every token of the pack gathers, [H, N, D]; arguments as of `branched_attention`.

    A stream needs `flash_kernel`.
    """
    heads, _, width = query_HND.shape
    kernel = flash_kernel(query_HND.device, query_HND.dtype, heads, len(key_KND), width)
    if isinstance(packed, Stream):
        assert kernel
        return tree_attention(query_HND, key_KND, value_KND, packed.calls, scale, kernel=kernel)
    if kernel is None:
        return branched_attention(query_HND, key_KND, value_KND, packed, scale)
    return _by_calls(query_HND, key_KND, value_KND, packed, scale, kernel=kernel)


def _by_calls(
    query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, packed: Pack, scale: float, *, kernel: Kernel
) -> Tensor:
    calls = calls_of(packed, query_HND.device)
    return tree_attention(query_HND, key_KND, value_KND, calls, scale, kernel=kernel)


class Flash:
    """FlashAttention 2 as it comes with torch; on CUDA, in float16 or bfloat16."""

    def forward(
        self, query_MHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, call: Call, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See `Kernel.forward`."""
        out_MHD, lse_HM, *_ = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - varlen_attn keeps the rest
            query_MHD,
            key_SKD,
            value_SKD,
            call.query_bounds,
            call.key_bounds,
            # One query a piece would be computed in another layout.
            max(2, call.most_queries),
            call.most_keys,
            0.0,
            call.causal,
            return_debug_mask=False,
            scale=scale,
        )
        return out_MHD, lse_HM

    def backward(  # noqa: PLR0917 - see `Kernel`
        self,
        dout_MHD: Tensor,
        query_MHD: Tensor,
        key_SKD: Tensor,
        value_SKD: Tensor,
        out_MHD: Tensor,
        lse_HM: Tensor,
        call: Call,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernel.backward`."""
        device = query_MHD.device
        return torch.ops.aten._flash_attention_backward(  # noqa: SLF001
            dout_MHD,
            query_MHD,
            key_SKD,
            value_SKD,
            out_MHD,
            lse_HM,
            call.query_bounds,
            call.key_bounds,
            max(2, call.most_queries),
            call.most_keys,
            0.0,
            call.causal,
            torch.zeros(2, dtype=torch.uint64, device=device),  # dropout's, of which there is none
            torch.empty(0, device=device),
            scale=scale,
        )


@lru_cache
def flash_kernel(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, width: int
) -> Flash | None:
    """FlashAttention where it can be used, tried out against `branched_attention`; None where it can't.

    Args:
        device: where attention runs.
        dtype: of queries, keys and values.
        heads: H.
        kv_heads: K.
        width: D.
    """
    if device.type != "cuda" or dtype not in {torch.float16, torch.bfloat16}:
        return None
    if width % 8 or width > MOST_WIDTH or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return None
    shapes = ([heads, kv_heads, kv_heads], width)
    try:
        wrong = [name for name, packed in _TRIED.items() if not _agree(packed, shapes, dtype, device)]
    except RuntimeError as error:  # a build of torch without it, or with another signature
        wrong = [str(error)]
    if wrong:
        log.warning(
            "FlashAttention's kernels of many lengths don't give what attention gives here (%s): packs are "
            "padded instead.",
            "; ".join(wrong),
        )
    return None if wrong else Flash()


_TRIED = {
    "with a prefix": pack([(1, 2, 3, 4), (1, 2, 5), (1, 2, 6, 7, 8)], 2),
    "without a prefix": pack([(1, 2, 3), (4,)], 0),
    "with forks": pack_pairs([(1, 2, 3, 4, 5), (1, 2, 3, 6), (1, 2, 7, 8), (1, 2, 7)], 2),
}


def _agree(packed: Pack, shapes: tuple[list[int], int], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether both give the same, and the same gradients, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    heads, width = shapes
    query, key, value = streams = [
        torch.randn(count, len(packed.ids), width, generator=generator).to(device, dtype).requires_grad_()
        for count in heads
    ]
    found: list[list[Tensor]] = []
    with torch.enable_grad():
        for attend in (branched_attention, partial(_by_calls, kernel=Flash())):
            out_HND = attend(query, key, value, packed, width**-0.5)
            found.append([out_HND, *torch.autograd.grad(out_HND.float().square().sum(), streams)])
    return all(
        bool((one - other).float().norm() <= ROUNDING * other.float().norm())
        for one, other in zip(*found, strict=True)
    )
