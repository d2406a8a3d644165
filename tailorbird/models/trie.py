"""The labels' tokens as a trie: what labels begin with alike is one path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tailorbird.errors import RequestError


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
    def below(self) -> list[list[int]]:
        """For node n the inner nodes below it, those nearer to it first."""
        found: list[list[int]] = [[] for _ in range(len(self.parents) + 1)]
        for node in sorted(range(1, len(found)), key=lambda n: self.depths[n - 1]):
            for above in self.ancestors[node] - {node}:
                found[above].append(node)
        return found

    @cached_property
    def chains(self) -> list[list[int]]:
        """For node n itself and those that follow it with nothing else beside them."""
        found: list[list[int]] = []
        for node in range(len(self.parents) + 1):
            chain = [node]
            while len(edges := self.edges[chain[-1]]) == 1 and edges[0] in self.node_after:
                chain.append(self.node_after[edges[0]])
            found.append(chain)
        return found

    @cached_property
    def above_NN(self) -> Tensor:  # noqa: N802
        """True where the column is the row's node or one above it; of node 0, which stands for padding, nothing."""
        mask_NN = torch.zeros(len(self.parents) + 1, len(self.parents) + 1, dtype=torch.bool)
        for node, above in enumerate(self.ancestors):
            mask_NN[node, list(above)] = True
        return mask_NN

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
