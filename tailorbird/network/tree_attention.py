"""Causal attention over a pack by kernels for sequences of many lengths: nothing is padded or repeated.

A pack is a tree of pieces of text. A piece sees itself causally and each piece above it whole, so attention
is one call of the kernel for all pieces at once, and one for each depth above; their results are merged by
their softmax denominators (Dao et al. 2022, arXiv 2205.14135, §3.1):

    lse = log Σ_i exp lse_i        out = Σ_i exp(lse_i - lse) · out_i

    dS_ij = exp(S_ij - lse) · (dout_i · v_j - dout_i · out_i)

The gradient of a score (the second line; eq. 4 there) needs of all other keys only lse and out, so every call's
backward kernel, given the merged two, finds its exact part, and the parts add up.

What all pieces look at, the prefix, lies in one place, as do those that look at it: that call is given the stream
as it is, and leaves the tokens between its bounds' ends alone, whose results then are anything. Of other pieces
above, rows are gathered.

Legend: N tokens of the stream, M those that a call asks for, S those that it looks at, H query heads,
K key/value heads, D width of one head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from tailorbird.network.packing import Pack
from tailorbird.network.where_it_pays import WhereItPays

Piece = tuple[int, int]
"""Where a piece of text begins in the stream, and where it ends."""


@dataclass(frozen=True)
class Call:
    """One call of the kernel: pieces of the stream that ask, and to each the piece that it looks at.

    Rows are places in the stream, or None for all of it; bounds are where pieces begin among the rows, and
    where the last ends, [pieces + 1], int32. Where it is `causal`, pieces look at themselves.

    A call of the whole stream may have bounds that leave some of it out: `asking` and `answering` then say which
    tokens lie within them, [N]. No piece has more queries or keys than `most_queries` and `most_keys`.
    """

    queries: Tensor | None
    keys: Tensor | None
    query_bounds: Tensor
    key_bounds: Tensor
    most_queries: int
    most_keys: int
    causal: bool
    asking: Tensor | None = None
    answering: Tensor | None = None


@dataclass(frozen=True)
class Stream:
    """A pack as tensors on the device: token ids and positions, [1, N], and who looks at what."""

    ids_1N: Tensor  # noqa: N815
    positions_1N: Tensor  # noqa: N815
    calls: tuple[Call, ...]


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
    query_HND: Tensor,
    key_KND: Tensor,
    value_KND: Tensor,
    calls: Sequence[Call],
    scale: float,
    *,
    kernel: Kernel,
) -> Tensor:
    """What every token of a pack gathers, [H, N, D].

    Args:
        query_HND: one query a head and token.
        key_KND: keys; K divides H.
        value_KND: values.
        calls: who looks at what; of the first, everybody at their own piece, then those of `calls_of`.
        scale: factor of the products, usually 1 / √D.
        kernel: what runs them.
    """
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
        for call in calls[1:]:
            queries, keys = call.queries, call.keys
            out_MHD, lse_HM = kernel.forward(
                _of(query_NHD, queries), _of(key_NKD, keys), _of(value_NKD, keys), call, scale
            )
            if queries is None:
                out_NHD, lse_HN = _MERGED(out_NHD, lse_HN, out_MHD, lse_HM, call.asking)
                continue
            out_NHD = out_NHD.to(lse_HN.dtype)
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
            if call.queries is None:
                found = list(_ADDED(*found, *parts, call.asking, call.answering))
                continue
            for whole, part, rows in zip(found, parts, (call.queries, call.keys, call.keys), strict=True):
                assert rows is not None
                whole.index_add_(0, rows, part)
        return (*found, None, None, None)


def _merged(
    out_NHD: Tensor, lse_HN: Tensor, more_NHD: Tensor, more_HN: Tensor, asking_N: Tensor
) -> tuple[Tensor, Tensor]:
    more_HN = more_HN.masked_fill(~asking_N, -torch.inf)
    both_HN = torch.logaddexp(lse_HN, more_HN)
    more_NHD = more_NHD.to(lse_HN.dtype).masked_fill(~asking_N[:, None, None], 0.0)
    out_NHD = out_NHD.to(lse_HN.dtype) * _share(lse_HN, both_HN) + more_NHD * _share(more_HN, both_HN)
    return out_NHD, both_HN


def _added(  # noqa: PLR0917 - three sums, and which rows of them have a second summand
    query: Tensor,
    key: Tensor,
    value: Tensor,
    more_query: Tensor,
    more_key: Tensor,
    more_value: Tensor,
    asking_N: Tensor,
    answering_N: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    others_N11, unseen_N11 = ~asking_N[:, None, None], ~answering_N[:, None, None]
    return (
        query + more_query.masked_fill(others_N11, 0.0),
        key + more_key.masked_fill(unseen_N11, 0.0),
        value + more_value.masked_fill(unseen_N11, 0.0),
    )


_MERGED, _ADDED = WhereItPays(_merged), WhereItPays(_added)


def _share(of_HM: Tensor, both_HM: Tensor) -> Tensor:
    """The part of the whole softmax that fell to these keys, [M, H, 1]."""
    return (of_HM - both_HM).exp().T[..., None]


def _of(stream: Tensor, rows: Tensor | None) -> Tensor:
    return stream if rows is None else stream.index_select(0, rows)


def calls_of(packed: Pack, device: torch.device) -> tuple[Call, ...]:
    """The calls for a pack, prepared once for all layers: every piece by itself, then what lies above."""
    if device not in packed.prepared:
        packed.prepared[device] = tuple(_calls(packed, device))
    return packed.prepared[device]


def _calls(packed: Pack, device: torch.device) -> Iterator[Call]:
    count, prefix = len(packed.ids), packed.prefix
    forks = packed.forks or [(length, length) for length in packed.lengths]
    pieces, below = [(0, prefix)], list[tuple[Piece, Piece]]()
    for start, length, (stem, end) in zip(packed.starts, packed.lengths, forks, strict=True):
        first, second, last = start + stem, start + end, start + length
        pieces += [(start, first), (first, second), (second, last)]
        below.append(((first, last), (start, first)))  # both completions look at the same
    bounds = _bounds(_not_empty(pieces), device)
    longest = max(end - start for start, end in pieces)
    yield Call(None, None, bounds, bounds, longest, longest, causal=True)
    if 0 < prefix < count:
        ends = torch.tensor([0, prefix, count], dtype=torch.int32, device=device)
        yield call_of_prefix(ends, torch.arange(count, device=device), count - prefix, prefix)
    if level := [pair for pair in below if all(start < end for start, end in pair)] if packed.forks else []:
        yield _gathering(level, device)


def call_of_prefix(ends: Tensor, places_N: Tensor, most_queries: int, most_keys: int) -> Call:
    """The call in which all tokens behind the prefix look at it.

    Args:
        ends: 0, where the prefix ends, and where the stream does, [3], int32.
        places_N: every token's place in the stream.
        most_queries: tokens behind the prefix, at most.
        most_keys: tokens of the prefix, at most.
    """
    answering_N = places_N < ends[1]
    asking_N = ~answering_N & (places_N < ends[2])
    return Call(None, None, ends[1:], ends[:2], most_queries, most_keys, False, asking_N, answering_N)


def _not_empty(pieces: Sequence[Piece]) -> list[Piece]:
    return [(start, end) for start, end in pieces if start < end]


def _gathering(pairs: Sequence[tuple[Piece, Piece]], device: torch.device) -> Call:
    asking, answering = zip(*pairs, strict=True)
    return Call(
        _rows(asking, device),
        _rows(answering, device),
        _bounds(asking, device),
        _bounds(answering, device),
        max(end - start for start, end in asking),
        max(end - start for start, end in answering),
        causal=False,
    )


def _rows(pieces: Sequence[Piece], device: torch.device) -> Tensor:
    return torch.cat([torch.arange(*piece) for piece in pieces]).to(device)


def _bounds(pieces: Sequence[Piece], device: torch.device) -> Tensor:
    ends = accumulate((end - start for start, end in pieces), initial=0)
    return torch.tensor(list(ends), dtype=torch.int32, device=device)
