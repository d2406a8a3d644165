"""Causal attention over a pack: a shared beginning, and branches that see it and themselves.

    branch b:  softmax([q_b K_pᵀ, mask(q_b K_bᵀ)] / √D) · [V_p; V_b]

The prefix's keys meet the queries of all branches in one product; nothing is repeated for each branch. The
mask hides what comes later and, where a branch forks, the first completion from the second.

Legend: N tokens of the stream, L of the prefix, B branches, T tokens of the longest branch, H query
heads, K key/value heads, G = H / K query heads to each of them, D width of one head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tailorbird.network.packing import Pack

WRITTEN_OUT = 8_000_000
"""Attention weights of one layer up to which they are written out: on processors the products are then
faster than the streaming kernel, whose backward pass is slow in bfloat16, and memory allows it."""


def branched_attention(
    query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, packed: Pack, scale: float
) -> Tensor:
    """What every token of the pack gathers, [H, N, D].

    Args:
        query_HND: one query a head and token.
        key_KND: keys; K divides H.
        value_KND: values.
        packed: which token belongs where.
        scale: factor of the products, usually 1 / √D.
    """
    L = packed.prefix
    parts: list[Tensor] = []
    if L:
        parts.append(_causal(query_HND[:, :L], key_KND[:, :L], value_KND[:, :L], scale))
    if packed.longest:
        parts.append(_branches(query_HND, key_KND, value_KND, packed, scale))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _causal(query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, scale: float) -> Tensor:
    heads, count, width = query_HND.shape
    if heads * count * count > WRITTEN_OUT or query_HND.is_cuda:
        return functional.scaled_dot_product_attention(
            query_HND[None], key_KND[None], value_KND[None], is_causal=True, scale=scale, enable_gqa=True
        )[0]
    groups = key_KND.shape[0]
    query_KMD = query_HND.reshape(groups, -1, width)
    weights_KMN = (query_KMD * scale) @ key_KND.transpose(1, 2)
    ahead_NN = _ahead(count, query_HND.device)
    weights_KGNN = weights_KMN.view(groups, -1, count, count).masked_fill(ahead_NN, -torch.inf).softmax(-1)
    return (weights_KGNN.view(groups, -1, count) @ value_KND).view(heads, count, width)


def _branches(query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, packed: Pack, scale: float) -> Tensor:
    rows_M = packed.rectangle.flatten().to(query_HND.device)
    own_M = packed.own_rows.to(query_HND.device)
    B, T, L = len(packed.lengths), packed.width, packed.prefix
    H, _, D = query_HND.shape
    query_HBTD = query_HND.index_select(1, rows_M).view(H, B, T, D)
    key_KBTD = key_KND.index_select(1, rows_M).view(-1, B, T, D)
    value_KBTD = value_KND.index_select(1, rows_M).view(-1, B, T, D)
    large = H * B * T * (L + T) > WRITTEN_OUT or query_HND.is_cuda
    attend = _branches_streamed if large else _branches_written_out
    unseen_TT = _ahead(T, query_HND.device)
    if packed.unseen is not None:
        unseen_TT = unseen_TT | packed.unseen[:, None].to(query_HND.device)  # [B, 1, T, T]
    gathered_HBTD = attend(
        query_HBTD, key_KBTD, value_KBTD, key_KND[:, :L], value_KND[:, :L], unseen_TT, scale
    )
    gathered_HMD = gathered_HBTD.reshape(H, B * T, D)
    return gathered_HMD if len(own_M) == B * T else gathered_HMD.index_select(1, own_M)


def _branches_written_out(  # noqa: PLR0917 - queries, keys and values of the branches and of the prefix
    query_HBTD: Tensor,
    key_KBTD: Tensor,
    value_KBTD: Tensor,
    key_KLD: Tensor,
    value_KLD: Tensor,
    unseen_TT: Tensor,
    scale: float,
) -> Tensor:
    H, B, T, D = query_HBTD.shape
    K, L = key_KLD.shape[:2]
    query_KBMD = (query_HBTD * scale).reshape(K, H // K, B, T, D).transpose(1, 2).reshape(K, B, -1, D)
    own_KBGTT = (query_KBMD @ key_KBTD.transpose(2, 3)).view(K, B, -1, T, T)
    own_KBMT = own_KBGTT.masked_fill(unseen_TT, -torch.inf).reshape(K, B, -1, T)
    if L:
        shared_KBML = (query_KBMD.reshape(K, -1, D) @ key_KLD.transpose(1, 2)).view(K, B, -1, L)
        weights_KBMS = torch.cat([shared_KBML, own_KBMT], dim=-1).softmax(-1)
        shared_KBMD = (weights_KBMS[..., :L].reshape(K, -1, L) @ value_KLD).reshape(K, B, -1, D)
        gathered_KBMD = shared_KBMD + weights_KBMS[..., L:] @ value_KBTD
    else:
        gathered_KBMD = own_KBMT.softmax(-1) @ value_KBTD
    return gathered_KBMD.reshape(K, B, H // K, T, D).transpose(1, 2).reshape(H, B, T, D)


def _branches_streamed(  # noqa: PLR0917 - as above
    query_HBTD: Tensor,
    key_KBTD: Tensor,
    value_KBTD: Tensor,
    key_KLD: Tensor,
    value_KLD: Tensor,
    unseen_TT: Tensor,
    scale: float,
) -> Tensor:
    B = query_HBTD.shape[1]
    L = key_KLD.shape[1]
    key_BKSD, value_BKSD = (
        torch.cat([shared_KLD[:, None].expand(-1, B, -1, -1), own_KBTD], dim=2).transpose(0, 1)
        for shared_KLD, own_KBTD in ((key_KLD, key_KBTD), (value_KLD, value_KBTD))
    )
    sees_TS = functional.pad(~unseen_TT, (L, 0), value=True)
    gathered_BHTD = functional.scaled_dot_product_attention(
        query_HBTD.transpose(0, 1), key_BKSD, value_BKSD, attn_mask=sees_TS, scale=scale, enable_gqa=True
    )
    return gathered_BHTD.transpose(0, 1)


def _ahead(count: int, device: torch.device) -> Tensor:
    """True where a column comes after its row."""
    return torch.ones(count, count, dtype=torch.bool, device=device).triu(1)
