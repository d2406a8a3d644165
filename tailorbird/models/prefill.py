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

Key = tuple[str | None, tuple[int, ...]]
"""An adapter and token ids."""
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
    """The pasts of the prefixes used last, per adapter; the least recently used go first.

    Some are `settled`: their keys and values depend on their tokens alone, not on what was computed before, for a
    past that was continued from another one is rounded otherwise than one that was computed in one pass.
    """

    def __init__(self, kept_tokens: int = KEPT_TOKENS) -> None:
        self.kept_tokens = kept_tokens
        self._entries: OrderedDict[Key, Past] = OrderedDict()
        self._settled: set[Key] = set()
        self._given: set[Key] = set()

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

    def find_settled(self, adapter: str | None, ids: tuple[int, ...]) -> Past | None:
        """The settled past of just these tokens."""
        if (adapter, ids) not in self._settled:
            return None
        self._entries.move_to_end((adapter, ids))
        return self._entries[adapter, ids]

    def find_given(self, adapter: str | None, ids: tuple[int, ...]) -> tuple[int, Past | None]:
        """The longest past that was given and is a start of `ids` as a whole, else (0, None)."""
        lengths = [len(kept) for name, kept in self._given if name == adapter and ids[: len(kept)] == kept]
        longest = max(lengths, default=0)
        return longest, self.find_settled(adapter, ids[:longest]) if longest else None

    def keep(self, adapter: str | None, ids: tuple[int, ...], past: Past, *, settled: bool = False) -> None:
        """Remembers a past of one row. A settled one stays as it is."""
        key = (adapter, ids)
        if settled or key not in self._settled:
            self._entries[key] = past
        if settled:
            self._settled.add(key)
        self._entries.move_to_end(key)
        while sum(len(kept) for _, kept in self._entries) > self.kept_tokens and len(self._entries) > 1:
            self._drop(next((k for k in self._entries if k not in self._given), next(iter(self._entries))))

    def give(self, adapter: str | None, ids: tuple[int, ...], past: Past) -> None:
        """Remembers a past of one row that was computed in one pass elsewhere; it goes last."""
        self._given.add((adapter, ids))
        self.keep(adapter, ids, past, settled=True)
        # What was computed in one pass over these tokens, too, would from now on be computed on from them.
        self._settled = {
            key for key in self._settled if key in self._given or not _goes_on(key, (adapter, ids))
        }

    def forget(self, adapter: str | None) -> None:
        """Drops everything computed with an adapter, as when its weights have changed."""
        for key in [key for key in self._entries if key[0] == adapter]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        del self._entries[key]
        self._settled.discard(key)
        self._given.discard(key)


def _goes_on(key: Key, start: Key) -> bool:
    return key[0] == start[0] and key[1][: len(start[1])] == start[1]


def prefill(  # noqa: PLR0917 - six things, all of one batch
    network: TransformersNetwork,
    prompts: Sequence[tuple[int, ...]],
    cache: PrefixCache,
    adapter: str | None,
    pad_id: int,
    device: torch.device,
    *,
    shared_by_all: int | None = 0,
) -> Prefilled:
    """Forwards prompts (each at least one token) and returns them ready to be continued.

    The last token of every prompt is always forwarded anew, so that its hidden state is at hand.

    Args:
        network: What forwards them.
        prompts: Token ids.
        cache: Where pasts are kept.
        adapter: Which one is switched on.
        pad_id: What fills the rows up.
        device: Where the network is.
        shared_by_all: Leading tokens that are shared by everything that was asked at once, of which this may be a
            part. What comes out depends then on what was asked at once alone, to the last bit. None for a prompt that
            was asked by itself: it goes on from the longest past that is kept, whoever it was computed for.
    """
    shared, past = _shared_past(network, prompts, cache, adapter, device, shared_by_all)
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


def _shared_past(  # noqa: PLR0917 - as above
    network: TransformersNetwork,
    prompts: Sequence[tuple[int, ...]],
    cache: PrefixCache,
    adapter: str | None,
    device: torch.device,
    shared_by_all: int | None,
) -> tuple[int, Past | None]:
    """How many leading tokens are computed once for all rows or are kept from before, and their past."""
    longest = min(map(len, prompts)) - 1
    if not network.shares_prefix:
        return 0, None
    if shared_by_all is None:
        known, past = cache.find(adapter, prompts[0][:longest])
        if past is None or known < SHORTEST_PREFIX:
            return 0, None
        return known, network.crop_past(past, known)
    own = min(common_prefix(prompts), longest) if len(prompts) > 1 else 0
    shared = min(shared_by_all, longest)
    if own >= shared + SHORTEST_PREFIX:
        shared = own
    given, past = cache.find_given(adapter, prompts[0][:shared])
    if past is not None and shared < given + SHORTEST_PREFIX:
        shared = given
    if shared < SHORTEST_PREFIX:
        return 0, None
    past = prefix_past(network, prompts[0][:shared], cache, adapter, device)
    return shared, network.expand_past(past, len(prompts))


def prefix_past(
    network: TransformersNetwork,
    ids: tuple[int, ...],
    cache: PrefixCache,
    adapter: str | None,
    device: torch.device,
) -> Past:
    """The past of these tokens, one row: in one pass, or in a second one after the part that was given; kept."""
    if (past := cache.find_settled(adapter, ids)) is not None:
        return past
    given, past = cache.find_given(adapter, ids)
    _, past = network.hidden(torch.tensor([ids[given:]], device=device), past=past, keep_past=True)
    cache.keep(adapter, ids, past, settled=True)
    return past
