"""The loss of completions, with work that a batch has in common done once.

    loss = -Σ_i w_i Σ_{t in completion i} log p(token_t | tokens before t)

Two savings leave the value and its gradients as they are. The head, a fifth of a small model's work, is
computed only where a label is predicted. And the tokens all sequences begin with (a metaprompt, the
template's preamble) go through the network once: the later tokens attend to one expanded past, and
autograd adds the branches' gradients up.

A network that takes packs gets the batch as one stream without padding; others get the prefix and then
the rest as a padded rectangle.

Legend: B batch, T tokens, L tokens of the shared prefix, C width, V vocabulary, R rows of hidden states,
U distinct positions that predict a label, N labels (N ≥ U: one shared position may predict a different
token for every sequence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import cast

import torch
from torch import Tensor

from tailorbird.network.batches import Batch
from tailorbird.network.network import Network, PackingNetwork
from tailorbird.network.packing import pack

SHORTEST_PREFIX = 8
"""Below this many common tokens a second pass through the network costs more than it saves."""
PADDING_ID = 0
"""Any token will do: padding stands to the right, where causal attention never looks, and has no label."""


def shared_prefix(network: Network, batch: Batch) -> int:
    """How many tokens `completion_loss` would compute once for the whole batch; 0 on the plain path."""
    able = getattr(network, "shares_prefix", True) and len(batch) > 1
    return batch.prefix if able and batch.prefix >= SHORTEST_PREFIX else 0


def completion_loss(
    network: Network, batch: Batch, *, device: torch.device | str = "cpu", share: bool = True
) -> tuple[Tensor, float]:
    """The summed negative log-likelihood (natural log, weighted) and the number of labels (weighted).

    Args:
        network: any causal network; its attribute `shares_prefix`, if False, rules sharing out.
        batch: at least one sequence.
        device: where the network's weights are.
        share: compute a common prefix once; without it each sequence goes through whole.

    Returns:
        A scalar in float32 (float64 for such a network), and the divisor that makes it a mean.
    """
    if not batch.num_labels:
        return torch.zeros((), device=device), 0.0
    prefix = shared_prefix(network, batch) if share else 0
    if getattr(network, "packs", False):
        rows_RC, starts = packed_states(cast("PackingNetwork", network), batch, prefix)
    else:
        rows_RC, starts = hidden_states(network, batch, prefix, device)
    labels = labels_of(batch, prefix, starts)
    rows_U, which_N = torch.unique(torch.tensor(labels.rows), return_inverse=True)
    logits_UV = network.logits(rows_RC.index_select(0, rows_U.to(device)))
    logits_UV = logits_UV if logits_UV.dtype == torch.float64 else logits_UV.float()
    which_N, tokens_N = which_N.to(device), torch.tensor(labels.tokens, device=device)
    nll_N = logits_UV.logsumexp(1)[which_N] - logits_UV[which_N, tokens_N]
    weights_N = torch.tensor(labels.weights, device=device, dtype=nll_N.dtype)
    return (nll_N * weights_N).sum(), batch.num_labels


def packed_states(network: PackingNetwork, batch: Batch, prefix: int) -> tuple[Tensor, Sequence[int]]:
    """The hidden states of the batch as one stream [N, C], and where each sequence's own tokens begin."""
    packed = pack(batch.inputs, prefix)
    return network.packed(packed), packed.starts


def hidden_states(
    network: Network, batch: Batch, prefix: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Sequence[int]]:
    """The first `prefix` tokens run once, the rest a row each, padded on the right.

    Neither masks nor positions are needed: a real token has only real tokens before it.

    Returns:
        Hidden states [R, C]: first the prefix's, then row after row; and where each row begins.
    """
    past = None
    parts: list[Tensor] = []
    if prefix:
        ids_1L = torch.tensor([batch.inputs[0][:prefix]], device=device)
        prefix_1LC, past = network.hidden(ids_1L, keep_past=True)
        parts.append(prefix_1LC[0])
        if prefix == batch.longest:
            return parts[0], [prefix] * len(batch)
        past = network.expand_past(past, len(batch))
    suffix_BTC, _ = network.hidden(padded([row[prefix:] for row in batch.inputs], device), past=past)
    parts.append(suffix_BTC.flatten(0, 1))
    width = suffix_BTC.shape[1]
    return torch.cat(parts), [prefix + number * width for number in range(len(batch))]


def padded(rows: list[tuple[int, ...]], device: torch.device | str = "cpu") -> Tensor:
    """Token ids [B, T], filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *repeat(PADDING_ID, width - len(row))] for row in rows], device=device)


@dataclass(frozen=True)
class Labels:
    """What is to be predicted: for each label its hidden state's row, its token, its weight."""

    rows: list[int]
    tokens: list[int]
    weights: list[float]


def labels_of(batch: Batch, prefix: int, starts: Sequence[int]) -> Labels:
    """The labels of a batch whose sequences' own hidden states begin at the rows `starts`."""
    labels = Labels([], [], [])
    for number, sequence in enumerate(batch.sequences):
        if not sequence.num_labels:
            continue
        tokens = sequence.prompt + sequence.completion
        # The state at position t predicts the token at t + 1.
        for position in range(sequence.first_label - 1, len(tokens) - 1):
            shared = position < prefix
            labels.rows.append(position if shared else position - prefix + starts[number])
            labels.tokens.append(tokens[position + 1])
            labels.weights.append(sequence.weight)
    return labels
