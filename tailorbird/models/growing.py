"""Nodes of a trie of labels grow from many prompts at once: each sees its prompt and the nodes above it.

Where the model's attention can be asked otherwise than by rows, nothing is padded and no prompt's keys are copied
for others; else rows are padded to one width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from tailorbird.models.own_attention import Branches
    from tailorbird.models.trie import Trie
    from tailorbird.network.network import Network, Past

Grow = Callable[[list[list[int]]], "Tensor"]
"""Gets the nodes that grow from each prompt, those above first; gives their hidden states, [N, C], prompt by prompt."""


def growing(network: Network, past: Past, seen_BP: Tensor, lengths_B: Tensor, trie: Trie) -> Grow:
    """What grows nodes from these prompts; arguments as of `label_scoring.score_labels`."""
    lengths = lengths_B.tolist()
    branching = getattr(network, "branches", None)
    branches = branching(past, lengths) if branching else None
    if branches is None:
        return _Padded(network, past, seen_BP, lengths_B, trie)
    return _Branching(network, branches, lengths, trie)


class _Branching:
    def __init__(self, network: Network, branches: Branches, lengths: Sequence[int], trie: Trie) -> None:
        self.network, self.branches, self.lengths, self.trie = network, branches, lengths, trie
        self.known: list[list[int]] = [[] for _ in lengths]
        """The nodes that have grown from each prompt, in the order of their keys."""

    def __call__(self, taken: list[list[int]]) -> Tensor:
        trie, ids, positions = self.trie, list[int](), list[int]()
        sees: dict[int, Tensor] = {}
        for row, nodes in enumerate(taken):
            if not nodes:
                continue
            self.known[row].extend(nodes)
            ids += [trie.tokens[node - 1] for node in nodes]
            # Depth 1 follows the prompt's last token, whose position is its length minus one.
            positions += [self.lengths[row] + trie.depths[node - 1] - 1 for node in nodes]
            grown_TT = trie.above_NN[nodes][:, self.known[row]]
            prompt_TP = grown_TT.new_ones(len(nodes), self.lengths[row])
            sees[row] = torch.cat([prompt_TP, grown_TT], dim=1)
        return self.network.grow(self.branches, ids, positions, sees)  # type: ignore[attr-defined]


class _Padded:
    def __init__(self, network: Network, past: Past, seen_BP: Tensor, lengths_B: Tensor, trie: Trie) -> None:
        self.network, self.past, self.seen_BP, self.lengths_B, self.trie = (
            network,
            past,
            seen_BP,
            lengths_B,
            trie,
        )
        self.known: list[list[int]] = [[] for _ in lengths_B]
        """The node in each column that has been added to a prompt's row."""

    def __call__(self, taken: list[list[int]]) -> Tensor:
        trie, device = self.trie, self.lengths_B.device
        width = max(map(len, taken))
        # Node 0 stands for padding: it sees the prompt alone, and no node sees it.
        rows = [nodes + [0] * (width - len(nodes)) for nodes in taken]
        for known, row in zip(self.known, rows, strict=True):
            known.extend(row)
        tokens_BT = [[trie.tokens[node - 1] if node else 0 for node in row] for row in rows]
        depths_BT = [[trie.depths[node - 1] if node else 1 for node in row] for row in rows]
        grown_BTT = torch.stack(
            [trie.above_NN[row][:, known] for known, row in zip(self.known, rows, strict=True)]
        )
        prompt_BTP = self.seen_BP.unsqueeze(1).expand(-1, width, -1)
        hidden_BTC, self.past = self.network.hidden(
            torch.tensor(tokens_BT, device=device),
            past=self.past,
            mask_BTS=torch.cat([prompt_BTP, grown_BTT.to(device)], dim=2),
            # Depth 1 follows the prompt's last token, whose position is its length minus one.
            positions_BT=self.lengths_B.unsqueeze(1) + torch.tensor(depths_BT, device=device) - 1,
            keep_past=True,
        )
        return torch.cat(
            [hidden_TC[: len(nodes)] for hidden_TC, nodes in zip(hidden_BTC, taken, strict=True)]
        )
