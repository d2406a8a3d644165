"""Attention as transformers calls it, over what transformers has no words for: packs, and branches of many prompts.

`pack` travels from a model's call down to here through transformers' layers, which hand on what they don't know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tailorbird.network.pack_attention import pack_attention
from tailorbird.network.packing import Pack
from tailorbird.network.tree_attention import Stream

ATTENTION = "tailorbird_packs"
"""The name under which transformers finds it."""


@dataclass
class Branches:
    """What has grown from a batch of prompts, each token seeing its own prompt and some of what grew from that.

    `keys` and `values` hold, for every layer and prompt, what its tokens are attended by, [K, S, D]: first the
    prompt's, then those grown, in their order. `sees` holds, for every prompt that grows now, which of these its
    new tokens attend to, [T, S + T]; the new tokens stand prompt by prompt.
    """

    keys: list[list[Tensor]]
    values: list[list[Tensor]]
    sees: dict[int, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """New tokens of all prompts."""
        return sum(len(mask_TS) for mask_TS in self.sees.values())

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, scale: float
    ) -> Tensor:
        """What every new token gathers, [H, N, D]; its keys and values are kept."""
        heads, _, width = query_HND.shape
        kv_heads = len(key_KND)
        group, start, gathered = heads // kv_heads, 0, list[Tensor]()
        for row, mask_TS in self.sees.items():
            count = len(mask_TS)
            new = slice(start, start + count)
            keys = torch.cat([self.keys[layer][row], key_KND[:, new]], dim=1)
            values = torch.cat([self.values[layer][row], value_KND[:, new]], dim=1)
            self.keys[layer][row], self.values[layer][row] = keys, values
            # The heads that share keys and values stand in one another's rows, so that these are not repeated.
            query = query_HND[:, new].reshape(kv_heads, group * count, width)
            out = functional.scaled_dot_product_attention(
                query[None], keys[None], values[None], mask_TS.repeat(group, 1), scale=scale
            )
            gathered.append(out[0].reshape(heads, count, width))
            start += count
        return torch.cat(gathered, dim=1)


class Sealed:
    """A pack or branches on their way through the layers, closed to torch, which looks for tensors in what it gets."""

    def __init__(self, content: Pack | Stream | Branches) -> None:
        self.content = content
        self.count = _count(content)


def _count(content: Pack | Stream | Branches) -> int:
    if isinstance(content, Branches):
        return content.count
    return content.ids_1N.shape[1] if isinstance(content, Stream) else len(content.ids)


def takes_attention(model: Any) -> bool:
    """Whether a transformers model asks for its attention by name."""
    return bool(getattr(model, "_supports_attention_backend", False))


def branches_of(layers: Sequence[Any], lengths: Sequence[int]) -> Branches:
    """Branches of prompts whose keys and values, [B, K, P, D] a layer, are there; those of padding are left out."""
    keys = [[layer.keys[row, :, :count] for row, count in enumerate(lengths)] for layer in layers]
    values = [[layer.values[row, :, :count] for row, count in enumerate(lengths)] for layer in layers]
    return Branches(keys, values)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    pack: Sealed | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: over a pack or branches where they are given, else the usual one."""
    # Rotary positions leave queries and keys in float32 where values are in bfloat16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if pack is None:
        mask = _after_a_past(query, key) if attention_mask is None else attention_mask.to(value.dtype)
        out, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **rest)
        return out, None
    if rest.get("softcap") is not None or rest.get("s_aux") is not None:
        raise NotImplementedError("This attention does more than a softmax over what came before.")
    scale = scaling or query.shape[-1] ** -0.5
    content, count = pack.content, pack.count
    streams = query[0, :, :count], key[0, :, :count], value[0, :, :count]
    if isinstance(content, Branches):  # a context ends where a window would, see `context_of`
        return content.attend(module.layer_idx, *streams, scale).transpose(0, 1)[None], None
    if rest.get("sliding_window"):
        raise NotImplementedError("This attention looks back only so far.")
    gathered_HND = pack_attention(*streams, content, scale)
    filled = query.shape[2] - count
    return functional.pad(gathered_HND.transpose(0, 1), (0, 0, 0, 0, 0, filled))[None], None


def _after_a_past(query: Tensor, key: Tensor) -> Tensor | None:
    """The causal mask where keys of a past come first, which attention by itself takes to begin together."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    if not 1 < num_queries < num_keys:
        return None
    mask_TS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
    return mask_TS.tril(num_keys - num_queries)


AttentionInterface.register(ATTENTION, _attention)
