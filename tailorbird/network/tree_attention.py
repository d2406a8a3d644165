"""Causal attention over a pack by kernels for sequences of many lengths: nothing is padded or repeated.

A pack is a tree of pieces of text. A piece sees itself causally and each piece above it whole, so attention
is one call of the kernel for all pieces at once, and one for each depth above; their results are merged by
their softmax denominators (Dao et al. 2022, arXiv 2205.14135, §3.1):

    lse = log Σ_i exp lse_i        out = Σ_i exp(lse_i - lse) · out_i

    dS_ij = exp(S_ij - lse) · (dout_i · v_j - dout_i · out_i)

The gradient of a score (the second line; eq. 4 there) needs of all other keys only lse and out, so every call's
backward kernel, given the merged two, finds its exact part, and the parts add up.

Legend: N tokens of the stream, M those that a call asks for, S those that it looks at, H query heads,
K key/value heads, D width of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from tailorbird.network.packing import Pack

Piece = tuple[int, int]
"""Where a piece of text begins in the stream, and where it ends."""


@dataclass(frozen=True)
class Call:
    """One call of the kernel: pieces of the stream that ask, and to each the piece that it looks at.

    Rows are places in the stream, or None for all of it; bounds are where pieces begin among the rows, and
    where the last ends, [pieces + 1], int32. Where it is `causal`, pieces look at themselves.
    """

    queries: Tensor | None
    keys: Tensor | None
    query_bounds: Tensor
    key_bounds: Tensor
    most_queries: int
    most_keys: int
    causal: bool


class Kernel(Protocol):
    """Attention of many pieces in one call, forward and back."""

    def forward(
        self, query_MHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, call: Call, scale: float
    ) -> tuple[Tensor, Tensor]:
        """What was gathered, [M, H, D], and the softmax denominators' logarithms, [H, M] in float32."""
        ...

    def backward(  # noqa: PLR0917 - what forward was given and gave
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
        """Gradients of queries, keys and values."""
        ...


def tree_attention(
    query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, packed: Pack, scale: float, *, kernel: Kernel
) -> Tensor:
    """What every token of the pack gathers, [H, N, D]; arguments as of `branched_attention`."""
    calls = _calls(packed, query_HND.device)
    streams = (each.transpose(0, 1).contiguous() for each in (query_HND, key_KND, value_KND))
    out_NHD: Any = _TreeAttention.apply(*streams, calls, scale, kernel)
    return out_NHD.transpose(0, 1)


class _TreeAttention(torch.autograd.Function):
    """See the module; the first call asks for the whole stream, the others for parts of it."""

    @staticmethod
    def forward(  # noqa: PLR0917 - queries, keys, values, and how
        ctx: Any,
        query_NHD: Tensor,
        key_NKD: Tensor,
        value_NKD: Tensor,
        calls: Sequence[Call],
        scale: float,
        kernel: Kernel,
    ) -> Tensor:
        out_NHD, lse_HN = kernel.forward(query_NHD, key_NKD, value_NKD, calls[0], scale)
        if len(calls) > 1:
            out_NHD = out_NHD.to(lse_HN.dtype)
        for call in calls[1:]:
            queries, keys = call.queries, call.keys
            out_MHD, lse_HM = kernel.forward(
                _of(query_NHD, queries), _of(key_NKD, keys), _of(value_NKD, keys), call, scale
            )
            before_HM = lse_HN[:, queries]
            both_HM = torch.logaddexp(before_HM, lse_HM)
            lse_HN[:, queries] = both_HM
            out_NHD[queries] = out_NHD[queries] * _share(before_HM, both_HM) + out_MHD * _share(
                lse_HM, both_HM
            )
        out_NHD = out_NHD.to(query_NHD.dtype)
        ctx.save_for_backward(query_NHD, key_NKD, value_NKD, out_NHD, lse_HN)
        ctx.calls, ctx.scale, ctx.kernel = calls, scale, kernel
        return out_NHD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query_NHD, key_NKD, value_NKD, out_NHD, lse_HN = ctx.saved_tensors
        dout_NHD = gradients[0].contiguous()
        found: list[Tensor] = []
        for call in ctx.calls:
            parts = ctx.kernel.backward(
                _of(dout_NHD, call.queries),
                _of(query_NHD, call.queries),
                _of(key_NKD, call.keys),
                _of(value_NKD, call.keys),
                _of(out_NHD, call.queries),
                lse_HN if call.queries is None else lse_HN[:, call.queries].contiguous(),
                call,
                ctx.scale,
            )
            if not found:
                found = list(parts)
                continue
            for whole, part, rows in zip(found, parts, (call.queries, call.keys, call.keys), strict=True):
                assert rows is not None
                whole.index_add_(0, rows, part)
        return (*found, None, None, None)


def _share(of_HM: Tensor, both_HM: Tensor) -> Tensor:
    """The part of the whole softmax that fell to these keys, [M, H, 1]."""
    return (of_HM - both_HM).exp().T[..., None]


def _of(stream: Tensor, rows: Tensor | None) -> Tensor:
    return stream if rows is None else stream.index_select(0, rows)


def _calls(packed: Pack, device: torch.device) -> tuple[Call, ...]:
    """The calls for a pack, prepared once for all layers: every piece by itself, then what lies above."""
    if device not in packed.prepared:
        forks = packed.forks or [(length, length) for length in packed.lengths]
        whole, prefix = (0, len(packed.ids)), (0, packed.prefix)
        pieces, below = [prefix], list[tuple[Piece, Piece]]()
        for start, length, (stem, end) in zip(packed.starts, packed.lengths, forks, strict=True):
            first, second, last = start + stem, start + end, start + length
            pieces += [(start, first), (first, second), (second, last)]
            below.append(((first, last), (start, first)))  # both completions look at the same
        levels = ([((packed.prefix, whole[1]), prefix)], below if packed.forks else [])
        packed.prepared[device] = (
            _call([(piece, piece) for piece in pieces], device, causal=True),
            *(_call(level, device, causal=False) for level in map(_not_empty, levels) if level),
        )
    return packed.prepared[device]


def _not_empty(pairs: Sequence[tuple[Piece, Piece]]) -> list[tuple[Piece, Piece]]:
    return [pair for pair in pairs if all(start < end for start, end in pair)]


def _call(pairs: Sequence[tuple[Piece, Piece]], device: torch.device, *, causal: bool) -> Call:
    asking, answering = zip(*_not_empty(pairs), strict=True)
    return Call(
        None if causal else _rows(asking, device),
        None if causal else _rows(answering, device),
        _bounds(asking, device),
        _bounds(answering, device),
        max(end - start for start, end in asking),
        max(end - start for start, end in answering),
        causal,
    )


def _rows(pieces: Sequence[Piece], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(*piece) for piece in pieces]).to(device)


def _bounds(pieces: Sequence[Piece], device: torch.device) -> Tensor:
    ends = accumulate((end - start for start, end in pieces), initial=0)
    return torch.tensor(list(ends), dtype=torch.int32, device=device)
