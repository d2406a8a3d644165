"""The textbook's view of a language model: tokens in, hidden states and a cache out.

Legend of the shape suffixes used in this folder:
B batch, T tokens of this call, P tokens of the past, S = P + T, C model width, V vocabulary,
N any number of rows, H query heads, K key/value heads, D width of one head.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tailorbird.network.packing import Pack
from tailorbird.network.tree_attention import Stream

Past = Any
"""Keys and values of tokens already seen; opaque outside the network that made it."""


class Network(Protocol):
    """A causal language model. Our own decoder is one, and a transformers model behind an adapter."""

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        past: Past | None = None,
        mask_BTS: Tensor | None = None,
        positions_BT: Tensor | None = None,
        keep_past: bool = False,
    ) -> tuple[Tensor, Past | None]:
        """Final hidden states [B, T, C] (after the last norm) and, if `keep_past`, the cache of S tokens.

        `mask_BTS` is boolean, True where a token may attend; without it each token attends to the
        whole past and to itself and those before it. `positions_BT` defaults to P, P+1, ….
        Gradients flow through `past`.
        """
        ...

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Scores over the vocabulary, [N, V], for any rows of hidden states."""
        ...

    def expand_past(self, past: Past, batch: int) -> Past:
        """The past of one row repeated for `batch` rows, without touching the given one."""
        ...


class PackingNetwork(Network, Protocol):
    """A network that also takes packs, where its `packs` is True."""

    packs: bool

    def packed(self, packed: Pack | Stream) -> Tensor:
        """Final hidden states of a pack's tokens, [N, C]; a stream where `takes_streams` is True."""
        ...

    def takes_streams(self) -> bool:
        """Whether a pack may come as tensors."""
        ...


def set_mode(network: Network, *, training: bool) -> None:
    """Switch dropout and the like on or off, where the network has a method `train` as modules do."""
    switch = getattr(network, "train", None)
    if callable(switch):
        switch(training)
