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
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from tailorbird.errors import RequestError

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
FIRST_DIVE = 0.05
"""While no label is complete, nodes of at least this part of the likeliest one's probability go on."""


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

    @cached_property
    def edges(self) -> dict[int, list[int]]:
        """The edges that leave each node."""
        leaving: dict[int, list[int]] = defaultdict(list)
        for edge, node in enumerate(self.edge_from):
            leaving[node].append(edge)
        return dict(leaving)

    def tokens_after(self, node: int) -> list[int]:
        """The tokens of the edges that leave a node, in their order."""
        return [self.edge_token[edge] for edge in self.edges[node]]

    @cached_property
    def node_after(self) -> dict[int, int]:
        """The inner node that an edge leads to; an edge that ends a label leads to none."""
        places = {
            (parent, token): n
            for n, (parent, token) in enumerate(zip(self.parents, self.tokens, strict=True), 1)
        }
        pairs = zip(self.edge_from, self.edge_token, strict=True)
        return {edge: places[pair] for edge, pair in enumerate(pairs) if pair in places}

    @cached_property
    def label_after(self) -> dict[int, int]:
        """The label that an edge ends."""
        return {path[-1]: label for label, path in enumerate(self.paths)}

    @cached_property
    def labels_below(self) -> dict[int, list[int]]:
        """The labels that hang on each inner node."""
        below: dict[int, list[int]] = defaultdict(list)
        for label, path in enumerate(self.paths):
            for edge in path[1:]:
                below[self.edge_from[edge]].append(label)
        return dict(below)

    @cached_property
    def ancestors(self) -> tuple[frozenset[int], ...]:
        """For node n, itself and the inner nodes above it; empty for the root."""
        above: list[frozenset[int]] = [frozenset()]
        for node, parent in enumerate(self.parents, 1):
            above.append(above[parent] | {node})
        return tuple(above)


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
    """Follow the likely nodes of all prompts together, in each round as many as a prompt has on average."""
    trie = searches[0].trie
    columns: list[list[int]] = [[] for _ in searches]  # the node in each column that a round has added
    _take_in(network, last_BC.unsqueeze(1), searches, [[0]] * len(searches))
    while True:
        waiting = [search.next_nodes() for search in searches]
        busy = sum(map(bool, waiting))
        if not busy:
            break
        # Rows are padded to one width: the few with many nodes wait for another round.
        width = math.ceil(sum(map(len, waiting)) / busy)
        taken = [nodes[:width] for nodes in waiting]
        hidden_BTC, past = _forward(network, taken, columns, past, seen_BP, lengths_B, trie)
        _take_in(network, hidden_BTC, searches, taken)
    log_p_BL = torch.tensor([search.scores() for search in searches], dtype=torch.float64)
    return LabelScores(log_p_BL, tuple(search.num_nodes for search in searches))


def _forward(  # noqa: PLR0917 - as score_labels
    network: Network,
    taken: list[list[int]],
    columns: list[list[int]],
    past: Past,
    seen_BP: Tensor,
    lengths_B: Tensor,
    trie: Trie,
) -> tuple[Tensor, Past]:
    """Hidden states of the nodes taken, [B, T, C], and the past with them; `columns` learns where they are."""
    width = max(map(len, taken))
    # Node 0 stands for padding: it sees the prompt alone, and no node sees it.
    rows = [nodes + [0] * (width - len(nodes)) for nodes in taken]
    for known, row in zip(columns, rows, strict=True):
        known.extend(row)
    tokens_BT = [[trie.tokens[node - 1] if node else 0 for node in row] for row in rows]
    depths_BT = [[trie.depths[node - 1] if node else 1 for node in row] for row in rows]
    sees_BTS = [
        [[column in trie.ancestors[node] for column in known] for node in row]
        for known, row in zip(columns, rows, strict=True)
    ]
    device = lengths_B.device
    prompt_BTP = seen_BP.unsqueeze(1).expand(-1, width, -1)
    return network.hidden(
        torch.tensor(tokens_BT, device=device),
        past=past,
        mask_BTS=torch.cat([prompt_BTP, torch.tensor(sees_BTS, device=device)], dim=2),
        # Depth 1 follows the prompt's last token, whose position is its length minus one.
        positions_BT=lengths_B.unsqueeze(1) + torch.tensor(depths_BT, device=device) - 1,
        keep_past=True,
    )


def _take_in(network: Network, hidden_BTC: Tensor, searches: list[Search], taken: list[list[int]]) -> None:
    """Tells every search how likely the tokens after its nodes are."""
    places = [(row, column) for row, nodes in enumerate(taken) for column in range(len(nodes))]
    for start in range(0, len(places), HEAD_ROWS):
        rows, columns = (list(numbers) for numbers in zip(*places[start : start + HEAD_ROWS], strict=True))
        log_p_NV = network.logits(hidden_BTC[rows, columns]).log_softmax(dim=-1)
        nodes = [taken[row][column] for row, column in zip(rows, columns, strict=True)]
        tokens = [searches[0].trie.tokens_after(node) for node in nodes]
        from_N = [n for n, after in enumerate(tokens) for _ in after]
        found = iter(log_p_NV[from_N, [token for after in tokens for token in after]].tolist())
        for row, node, after in zip(rows, nodes, tokens, strict=True):
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
