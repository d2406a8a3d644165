"""Prompts into keys and values, with what they share computed once.

A batch's longest common prefix is forwarded for one row and expanded; prefixes seen lately are kept,
so a long metaprompt costs its tokens once, not once a request.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tailorbird.models.causal import TransformersNetwork
    from tailorbird.network.network import Past

SHORTEST_PREFIX = 16
"""Fewer shared tokens than this are not worth a pass of their own."""
KEPT_TOKENS = 16_384
"""Tokens of past kept in all; for SmolLM2-135M about 0.75 GB at 46 kB each in fp32."""


def common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """Number of leading tokens that all sequences share."""
    first, last = min(sequences), max(sequences)  # lexicographic extremes differ earliest
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


@dataclass(frozen=True)
class Prefilled:
    """A batch of prompts ready to be continued. `seen_BP` marks the columns that are tokens, not padding."""

    last_BC: Tensor  # noqa: N815
    past: Past
    seen_BP: Tensor  # noqa: N815
    lengths_B: Tensor  # noqa: N815
    shared_tokens: int


class PrefixCache:
    """The pasts of the prefixes used last, per adapter; the least recently used go first."""

    def __init__(self, kept_tokens: int = KEPT_TOKENS) -> None:
        self.kept_tokens = kept_tokens
        self._entries: OrderedDict[tuple[str | None, tuple[int, ...]], Past] = OrderedDict()

    def find(self, adapter: str | None, ids: tuple[int, ...]) -> tuple[int, Past | None]:
        """The longest kept start of `ids` and its past (not cropped), else (0, None)."""
        best: tuple[int, Past | None] = (0, None)
        used: tuple[int, ...] | None = None
        for (name, kept), past in self._entries.items():
            shared = common_prefix([kept, ids]) if name == adapter else 0
            if shared > best[0]:
                best, used = (shared, past), kept
        if used is not None:
            self._entries.move_to_end((adapter, used))
        return best

    def keep(self, adapter: str | None, ids: tuple[int, ...], past: Past) -> None:
        """Remembers a past of one row."""
        self._entries[adapter, ids] = past
        self._entries.move_to_end((adapter, ids))
        while sum(len(kept) for _, kept in self._entries) > self.kept_tokens and len(self._entries) > 1:
            self._entries.popitem(last=False)

    def forget(self, adapter: str | None) -> None:
        """Drops everything computed with an adapter, as when its weights have changed."""
        for key in [key for key in self._entries if key[0] == adapter]:
            del self._entries[key]


def prefill(  # noqa: PLR0917 - six things, all of one batch
    network: TransformersNetwork,
    prompts: Sequence[tuple[int, ...]],
    cache: PrefixCache,
    adapter: str | None,
    pad_id: int,
    device: torch.device,
) -> Prefilled:
    """Forwards prompts (each at least one token) and returns them ready to be continued.

    The last token of every prompt is always forwarded anew, so that its hidden state is at hand.
    """
    shared, past = _shared_past(network, prompts, cache, adapter, device)
    suffixes = [prompt[shared:] for prompt in prompts]
    width = max(map(len, suffixes))
    ids_BT = torch.tensor([[*s, *[pad_id] * (width - len(s))] for s in suffixes], device=device)
    counts_B = torch.tensor([len(s) for s in suffixes], device=device)
    real_BT = torch.arange(width, device=device) < counts_B.unsqueeze(1)
    seen_BP = torch.cat([real_BT.new_ones(len(prompts), shared), real_BT], dim=1)
    # Padding stands on the right, after every real token, so causality alone hides it here.
    hidden_BTC, past = network.hidden(ids_BT, past=past, keep_past=True)
    last_BC = hidden_BTC[torch.arange(len(prompts), device=device), counts_B - 1]
    if len(prompts) == 1 and network.shares_prefix:
        cache.keep(adapter, tuple(prompts[0]), past)
    return Prefilled(last_BC, past, seen_BP, counts_B + shared, shared)


def _shared_past(
    network: TransformersNetwork,
    prompts: Sequence[tuple[int, ...]],
    cache: PrefixCache,
    adapter: str | None,
    device: torch.device,
) -> tuple[int, Past | None]:
    """How many leading tokens are computed once for all rows or are kept from before, and their past."""
    longest = min(common_prefix(prompts), min(map(len, prompts)) - 1)
    if not network.shares_prefix or longest < SHORTEST_PREFIX:
        return 0, None
    if len(prompts) > 1:
        past = prefix_past(network, prompts[0][:longest], cache, adapter, device)
        return longest, network.expand_past(past, len(prompts))
    known, past = cache.find(adapter, prompts[0][:longest])
    if past is None or known < SHORTEST_PREFIX:
        return 0, None
    return known, network.crop_past(past, known)


def prefix_past(
    network: TransformersNetwork,
    ids: tuple[int, ...],
    cache: PrefixCache,
    adapter: str | None,
    device: torch.device,
) -> Past:
    """The past of these tokens, one row; what is kept of it is not computed again, and it is kept."""
    known, past = cache.find(adapter, ids)
    if past is not None:
        past = network.crop_past(past, known)
    if known < len(ids):
        rest_BT = torch.tensor([ids[known:]], device=device)
        _, past = network.hidden(rest_BT, past=past, keep_past=True)
        cache.keep(adapter, ids, past)
    return past
