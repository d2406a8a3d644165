"""Closed sets are answered by exact label scoring: the probability of each label, never free text.

The labels' tokens form a trie. Its inner nodes are appended to the prompt as one block in which each
node attends to the prompt and to its own ancestors, so a single pass gives every label's exact
log-probability. The stop token joins a label's path only where another label continues it: with it
no label is a prefix of another, the labels are disjoint events, and their probabilities may be
normalised over the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tailorbird.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tailorbird.network.network import Network, Past

HEAD_ROWS = 256
"""Rows of hidden states that pass the head at once: 256 × 49,152 scores are 50 MB."""


@dataclass(frozen=True)
class Trie:
    """Inner nodes without the root, and the edges that make up each label's path.

    Node 0 is the root (the prompt's last token); node n > 0 carries `tokens[n - 1]` and hangs on
    `parents[n - 1]`. `paths[l]` lists label l's edges as indexes into `edge_from`/`edge_token`.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    edge_from: tuple[int, ...]
    edge_token: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]


def build_trie(labels: Sequence[tuple[int, ...]], stop_id: int) -> Trie:
    """The trie of token sequences.

    Raises:
        RequestError: a label has no tokens, or two labels have the same ones.
    """
    distinct = set(labels)
    if len(distinct) < len(labels) or () in distinct:
        raise RequestError(
            f"choices: {len(labels)} labels make {len(distinct - {()})} distinct token sequences; each "
            "label must be non-empty and differ from the others. Rename the labels that look alike."
        )
    prefixes = {label[:n] for label in labels for n in range(1, len(label))}
    closed = [(*label, stop_id) if label in prefixes else label for label in labels]
    nodes: dict[tuple[int, ...], int] = {(): 0}
    edges: dict[tuple[int, int], int] = {}
    parents: list[int] = []
    paths: list[tuple[int, ...]] = []
    for label in closed:
        path: list[int] = []
        for n, token in enumerate(label):
            here = nodes[label[:n]]
            path.append(edges.setdefault((here, token), len(edges)))
            if n + 1 < len(label) and label[: n + 1] not in nodes:
                nodes[label[: n + 1]] = len(nodes)
                parents.append(here)
        paths.append(tuple(path))
    inner = [prefix for prefix in nodes if prefix]
    return Trie(
        tokens=tuple(prefix[-1] for prefix in inner),
        parents=tuple(parents),
        depths=tuple(len(prefix) for prefix in inner),
        edge_from=tuple(here for here, _ in edges),
        edge_token=tuple(token for _, token in edges),
        paths=tuple(paths),
    )


def score_labels(  # noqa: PLR0917 - six things, all of one batch
    network: Network, last_BC: Tensor, past: Past, seen_BP: Tensor, lengths_B: Tensor, trie: Trie
) -> Tensor:
    """Log-probability of every label after every prompt, [B, L].

    Args:
        network: the model.
        last_BC: hidden state of each prompt's last token.
        past: the prompts' keys and values, P columns.
        seen_BP: True where a column of the past is a token of that row's prompt.
        lengths_B: tokens in each prompt.
        trie: of the labels.
    """
    batch = last_BC.shape[0]
    rows = [last_BC.unsqueeze(1)]
    if trie.tokens:
        ids_BT = torch.tensor(trie.tokens, device=last_BC.device).expand(batch, -1)
        # Depth 1 follows the prompt's last token, whose position is its length minus one.
        positions_BT = lengths_B.unsqueeze(1) + torch.tensor(trie.depths, device=last_BC.device) - 1
        ancestors_TT = _ancestors(trie).to(last_BC.device)
        count = len(trie.tokens)
        mask_BTS = torch.cat(
            [seen_BP.unsqueeze(1).expand(-1, count, -1), ancestors_TT.expand(batch, -1, -1)], dim=2
        )
        hidden_BTC, _ = network.hidden(ids_BT, past=past, mask_BTS=mask_BTS, positions_BT=positions_BT)
        rows.append(hidden_BTC)
    edges_BE = _edge_log_probabilities(network, torch.cat(rows, dim=1), trie)
    return torch.stack([edges_BE[:, list(path)].sum(dim=1) for path in trie.paths], dim=1)


def _ancestors(trie: Trie) -> Tensor:
    """[T, T], True where the column is the row's node or one above it."""
    count = len(trie.tokens)
    mask_TT = torch.eye(count, dtype=torch.bool)
    for node, parent in enumerate(trie.parents):
        if parent:
            mask_TT[node] |= mask_TT[parent - 1]
    return mask_TT


def _edge_log_probabilities(network: Network, hidden_BTC: Tensor, trie: Trie) -> Tensor:
    """Log p(edge's token | its node) for each row, [B, E]; the head sees a few rows at a time."""
    batch, count, width = hidden_BTC.shape
    froms = torch.tensor(trie.edge_from)
    tokens = torch.tensor(trie.edge_token, device=hidden_BTC.device)
    edges_BE = torch.empty(batch, len(trie.edge_from), device=hidden_BTC.device)
    step = max(1, HEAD_ROWS // batch)
    for start in range(0, count, step):
        rows_NC = hidden_BTC[:, start : start + step].reshape(-1, width)
        log_p_NV = network.logits(rows_NC).log_softmax(dim=-1)
        log_p_BTV = log_p_NV.view(batch, -1, log_p_NV.shape[-1])
        chosen = ((froms >= start) & (froms < start + step)).nonzero().squeeze(1)
        if len(chosen):
            edges_BE[:, chosen] = log_p_BTV[:, froms[chosen] - start, tokens[chosen]]
    return edges_BE
