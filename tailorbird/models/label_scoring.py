"""Closed sets are answered by exact label scoring: the probability of each label, never free text.

The labels' tokens form a trie. Nodes are appended to the prompt in which each attends to the prompt and
to its own ancestors, so that one pass through the network follows many labels at once. The stop token
joins a label's path only where another label continues it: with it no label is a prefix of another, the
labels are disjoint events, and their probabilities may be normalised over the set.

A small trie takes a single pass. In a large one the likely nodes go first: what hangs on a node is never
likelier than the node itself, so nodes that together hold less than `NEGLIGIBLE` of what the labels found
so far hold need no pass at all. The most likely label is exact, and so is every probability to within
`NEGLIGIBLE`. A request's prior joins in: what hangs on a node is then bounded by the node and by the
greatest weight below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tailorbird.models.growing import growing
from tailorbird.models.trie import Trie

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tailorbird.network.network import Network, Past
    from tailorbird.records import Prior

HEAD_ROWS = 256
"""Rows of hidden states that pass the head at once: 256 × 49,152 scores are 50 MB."""
NEGLIGIBLE = 1e-3
"""Probability, among the labels, that all nodes left out may have together."""
SMALL_TRIE = 24
"""Inner nodes up to which one pass over all of them is faster than rounds."""
LEAST_ROUND = 48
"""Nodes of a round of all prompts together up to which more take hardly longer."""
FOLLOWED = 0.02
"""Nodes of at least this part of the likeliest one's probability take their only follower along."""
FIRST_DIVE = 0.05
"""While no label is complete, nodes of at least this part of the likeliest one's probability go on."""


@dataclass(frozen=True)
class LabelScores:
    """Log-probability of every label after every prompt, [B, L], and the nodes each row's scoring took.

    Where a row has a prior, it is multiplied in, and the row is right up to a constant.
    """

    log_p_BL: Tensor  # noqa: N815
    num_nodes: tuple[int, ...]


def score_labels(  # noqa: PLR0917 - seven things, all of one batch
    network: Network,
    last_BC: Tensor,
    past: Past,
    seen_BP: Tensor,
    lengths_B: Tensor,
    trie: Trie,
    priors: Sequence[Prior | None] | None = None,
) -> LabelScores:
    """Log-probability of every label after every prompt.

    Args:
        network: the model.
        last_BC: hidden state of each prompt's last token.
        past: the prompts' keys and values, P columns.
        seen_BP: True where a column of the past is a token of that row's prompt.
        lengths_B: tokens in each prompt.
        trie: of the labels.
        priors: each row's, of the labels in their order.
    """
    priors = [None] * len(last_BC) if priors is None else priors
    if len(trie.tokens) > SMALL_TRIE:
        searches = [Search(trie, prior) for prior in priors]
        return _in_rounds(network, last_BC, past, seen_BP, lengths_B, searches)
    log_p_BL = _in_one_pass(network, last_BC, past, seen_BP, lengths_B, trie)
    for row, prior in enumerate(priors):
        if prior is not None:
            log_p_BL[row] = prior.trust * log_p_BL[row] + log_p_BL.new_tensor(prior.log_weights)
    return LabelScores(log_p_BL, (len(trie.tokens),) * len(last_BC))


class Search:
    """One prompt's way through the trie: which nodes are reached, how likely they are, what comes next."""

    def __init__(self, trie: Trie, prior: Prior | None = None) -> None:
        self.trie, self.prior = trie, prior
        self.frontier: dict[int, float] = {0: 0.0}
        """Nodes reached and not followed, with their log-probability."""
        self.bounds: dict[int, float] = {0: 0.0}
        """For each of them, what the labels below it can have together at most; a logarithm."""
        self.labels: dict[int, float] = {}
        self.total = -math.inf
        self.num_nodes = -1  # the root is the prompt's

    def expand(self, node: int, edges_log_p: list[float]) -> None:
        """Takes in the log-probabilities of the tokens after a node."""
        log_p = self.frontier.pop(node)
        self.bounds.pop(node)
        self.num_nodes += 1
        for edge, edge_log_p in zip(self.trie.edges[node], edges_log_p, strict=True):
            reached = log_p + edge_log_p
            if (label := self.trie.label_after.get(edge)) is not None:
                self.labels[label] = self._weighed(label, reached)
                self.total = _log_add(self.total, self.labels[label])
            else:
                after = self.trie.node_after[edge]
                self.frontier[after] = reached
                self.bounds[after] = self._bound(after, reached)

    def _weighed(self, label: int, log_p: float) -> float:
        return log_p if self.prior is None else self.prior.trust * log_p + self.prior.log_weights[label]

    def _bound(self, node: int, log_p: float) -> float:
        """Of the sum of pᵗ·eʷ over the labels below: their p add up to the node's at most.

        For t < 1 and n labels, the sum of pᵗ is greatest where all are alike: n·(p/n)ᵗ.
        """
        if self.prior is None:
            return log_p
        below, trust = self.trie.labels_below[node], self.prior.trust
        greatest = max(self.prior.log_weights[label] for label in below)
        return trust * log_p + max(0.0, 1 - trust) * math.log(len(below)) + greatest

    def next_nodes(self) -> list[int]:
        """The nodes to follow, likeliest first; none when what is left is negligible."""
        bounds = self.bounds
        ordered = sorted(bounds, key=lambda node: (-bounds[node], node))
        if not self.labels:
            likeliest = bounds[ordered[0]]
            return [node for node in ordered if bounds[node] >= likeliest + math.log(FIRST_DIVE)]
        best = max(self.labels.values())
        spare = NEGLIGIBLE * math.exp(self.total - best)  # in parts of the best label's probability
        while ordered and bounds[ordered[-1]] < best:
            spare -= math.exp(bounds[ordered[-1]] - best)
            if spare < 0:
                break
            ordered.pop()
        return ordered

    def scores(self) -> list[float]:
        """Every label's log-probability; the labels below a node left out share its own evenly."""
        found = dict(self.labels)
        for node, log_p in self.frontier.items():
            below = self.trie.labels_below[node]
            found |= {label: self._weighed(label, log_p - math.log(len(below))) for label in below}
        return [found[label] for label in range(len(self.trie.paths))]


def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _in_rounds(  # noqa: PLR0917 - as score_labels
    network: Network,
    last_BC: Tensor,
    past: Past,
    seen_BP: Tensor,
    lengths_B: Tensor,
    searches: list[Search],
) -> LabelScores:
    """Follow the likely nodes of all prompts together; the rounds are few, and each takes many nodes."""
    trie = searches[0].trie
    _take_in(network, last_BC, searches, [[0] for _ in searches])
    grow = growing(network, past, seen_BP, lengths_B, trie)
    while any(taken := _with_what_follows(searches)):
        _take_in(network, grow(taken), searches, taken)
    log_p_BL = torch.tensor([search.scores() for search in searches], dtype=torch.float64)
    return LabelScores(log_p_BL, tuple(search.num_nodes for search in searches))


def _with_what_follows(searches: list[Search]) -> list[list[int]]:
    """The nodes that every prompt waits for, and those that go with them at little cost.

    Where one token alone can follow a likely node, that goes along. And a round reads all weights, however few its
    nodes are: it is filled up to `LEAST_ROUND` with what hangs on them.
    """
    trie, taken = searches[0].trie, list[list[int]]()
    for search in searches:
        nodes = search.next_nodes()
        likely = max((search.bounds[node] for node in nodes), default=0.0) + math.log(FOLLOWED)
        chains = (trie.chains[node] if search.bounds[node] >= likely else [node] for node in nodes)
        taken.append([node for chain in chains for node in chain])
    room = (LEAST_ROUND - sum(map(len, taken))) // max(1, sum(map(bool, taken)))
    return [_filled(trie, nodes, room) for nodes in taken] if room > 0 else taken


def _filled(trie: Trie, nodes: list[int], room: int) -> list[int]:
    """The nodes and up to so many of those below them, the likeliest ones' first; none before the one above it."""
    found = dict.fromkeys(nodes)
    for node in nodes:
        for after in trie.below[node]:
            if len(found) >= len(nodes) + room:
                return list(found)
            found.setdefault(after)
    return list(found)


def _take_in(network: Network, hidden_NC: Tensor, searches: list[Search], taken: list[list[int]]) -> None:
    """Tells every search how likely the tokens after its nodes are; their hidden states stand prompt by prompt."""
    places = [(row, node) for row, nodes in enumerate(taken) for node in nodes]
    trie = searches[0].trie
    for start in range(0, len(places), HEAD_ROWS):
        part = places[start : start + HEAD_ROWS]
        log_p_NV = network.logits(hidden_NC[start : start + len(part)]).log_softmax(dim=-1)
        tokens = [trie.tokens_after(node) for _, node in part]
        from_N = [n for n, after in enumerate(tokens) for _ in after]
        found = iter(log_p_NV[from_N, [token for after in tokens for token in after]].tolist())
        for (row, node), after in zip(part, tokens, strict=True):
            searches[row].expand(node, [next(found) for _ in after])


def _in_one_pass(  # noqa: PLR0917 - as score_labels
    network: Network, last_BC: Tensor, past: Past, seen_BP: Tensor, lengths_B: Tensor, trie: Trie
) -> Tensor:
    """All inner nodes as one block, [B, L]."""
    batch = last_BC.shape[0]
    rows = [last_BC.unsqueeze(1)]
    if trie.tokens:
        ids_BT = torch.tensor(trie.tokens, device=last_BC.device).expand(batch, -1)
        # Depth 1 follows the prompt's last token, whose position is its length minus one.
        positions_BT = lengths_B.unsqueeze(1) + torch.tensor(trie.depths, device=last_BC.device) - 1
        ancestors_TT = trie.above_NN[1:, 1:].to(last_BC.device)
        count = len(trie.tokens)
        mask_BTS = torch.cat(
            [seen_BP.unsqueeze(1).expand(-1, count, -1), ancestors_TT.expand(batch, -1, -1)], dim=2
        )
        hidden_BTC, _ = network.hidden(ids_BT, past=past, mask_BTS=mask_BTS, positions_BT=positions_BT)
        rows.append(hidden_BTC)
    edges_BE = _edge_log_probabilities(network, torch.cat(rows, dim=1), trie)
    return torch.stack([edges_BE[:, list(path)].sum(dim=1) for path in trie.paths], dim=1)


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
