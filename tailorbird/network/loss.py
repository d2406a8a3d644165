"""The loss of completions, with work that a batch has in common done once.

    log π(completion i) = Σ_{t in completion i} log p(token_t | tokens before t)
    loss = -Σ_i w_i log π(completion i)

Two savings leave the value and its gradients as they are. The head, a fifth of a small model's work, is
computed only where a label is predicted. And the tokens all sequences begin with (a metaprompt, the
template's preamble) go through the network once: the later tokens attend to one expanded past, and
autograd adds the branches' gradients up.

A network that takes packs gets the batch as one stream without padding, a preference's prompt in it once;
others get the prefix and then the rest as a padded rectangle.

Legend: B batch (of sequences), T tokens, L tokens of the shared prefix, C width, V vocabulary, R rows of
hidden states, U distinct positions that predict a label, N labels (N ≥ U: one shared position may predict
a different token for every sequence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tailorbird.network.batches import Batch
from tailorbird.network.network import Network, PackingNetwork
from tailorbird.network.packing import Pieces, pack, pack_pairs

SHORTEST_PREFIX = 8
"""Below this many common tokens a second pass through the network costs more than it saves."""
PADDING_ID = 0
"""Any token will do: padding stands to the right, where causal attention never looks, and has no label."""


def shares(network: Network, *, wanted: bool) -> bool:
    """Whether what sequences begin with in common is computed once."""
    return wanted and bool(getattr(network, "shares_prefix", True))


def shared_prefix(network: Network, batch: Batch) -> int:
    """How many tokens `completion_loss` would compute once for the whole batch; 0 on the plain path."""
    able = getattr(network, "shares_prefix", True) and len(batch) > 1
    return batch.prefix if able and batch.prefix >= SHORTEST_PREFIX else 0


def forks(network: Network, *, share: bool) -> bool:
    """Whether what the completions of a preference begin with can be computed once."""
    return share and bool(getattr(network, "packs", False))


def num_shared(network: Network, batch: Batch) -> int:
    """Input tokens of the batch that are not computed because another's are theirs too."""
    return batch.num_tokens - batch.num_computed(shared_prefix(network, batch))


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
    labels = labels_of(batch)
    nll_N = _label_nll(network, batch, labels, device=device, share=share)
    weights_N = torch.tensor(labels.weights, device=device, dtype=nll_N.dtype)
    return (nll_N * weights_N).sum(), batch.num_labels


def sequence_log_probabilities(
    network: Network, batch: Batch, *, device: torch.device | str = "cpu", share: bool = True
) -> Tensor:
    """Every sequence's log π(completion), [B]: natural logarithm, unweighted; arguments as above.

    A sequence of weight 0 counts as one without a completion: its logarithm is 0.
    """
    if not batch.num_labels:
        return torch.zeros(len(batch), device=device)
    labels = labels_of(batch)
    nll_N = _label_nll(network, batch, labels, device=device, share=share)
    return -pad_sequence(list(nll_N.split(labels.counts))).sum(0)


def _label_nll(
    network: Network, batch: Batch, labels: Labels, *, device: torch.device | str, share: bool
) -> Tensor:
    """-log p of every label, [N]."""
    prefix = shared_prefix(network, batch) if share else 0
    if getattr(network, "packs", False):
        rows_RC, pieces = packed_states(cast("PackingNetwork", network), batch, prefix)
    else:
        rows_RC, pieces = hidden_states(network, batch, prefix, device)
    rows = [row for number, where in enumerate(labels.predicting) for row in rows_of(pieces[number], where)]
    rows_U, which_N = torch.unique(torch.tensor(rows), return_inverse=True)
    logits_UV = network.logits(rows_RC.index_select(0, rows_U.to(device)))
    logits_UV = logits_UV if logits_UV.dtype == torch.float64 else logits_UV.float()
    which_N, tokens_N = which_N.to(device), torch.tensor(labels.tokens, device=device)
    return logits_UV.logsumexp(1)[which_N] - logits_UV[which_N, tokens_N]


def packed_states(network: PackingNetwork, batch: Batch, prefix: int) -> tuple[Tensor, Sequence[Pieces]]:
    """The hidden states of the batch as one stream [R, C], and where each sequence's lie in it."""
    packed = pack_pairs(batch.inputs, prefix) if batch.forked else pack(batch.inputs, prefix)
    return network.packed(packed), packed.pieces


def hidden_states(
    network: Network, batch: Batch, prefix: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Sequence[Pieces]]:
    """The first `prefix` tokens run once, the rest a row each, padded on the right.

    Neither masks nor positions are needed: a real token has only real tokens before it.

    Returns:
        Hidden states [R, C]: first the prefix's, then row after row; and where each sequence's lie.
    """
    past = None
    parts: list[Tensor] = []
    if prefix:
        ids_1L = torch.tensor([batch.inputs[0][:prefix]], device=device)
        prefix_1LC, past = network.hidden(ids_1L, keep_past=True)
        parts.append(prefix_1LC[0])
        if prefix == batch.longest:
            return parts[0], [((0, 0),)] * len(batch)
        past = network.expand_past(past, len(batch))
    suffix_BTC, _ = network.hidden(padded([row[prefix:] for row in batch.inputs], device), past=past)
    parts.append(suffix_BTC.flatten(0, 1))
    width = suffix_BTC.shape[1]
    return torch.cat(parts), [((0, 0), (prefix, prefix + number * width)) for number in range(len(batch))]


def padded(rows: list[tuple[int, ...]], device: torch.device | str = "cpu") -> Tensor:
    """Token ids [B, T], filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *repeat(PADDING_ID, width - len(row))] for row in rows], device=device)


@dataclass(frozen=True)
class Labels:
    """What is to be predicted, sequence after sequence.

    `predicting` are each sequence's positions whose states predict, `tokens` and `weights` what they do and
    how much each label counts.
    """

    predicting: list[range]
    tokens: list[int]
    weights: list[float]

    @property
    def counts(self) -> list[int]:
        """The number of each sequence's labels."""
        return [len(positions) for positions in self.predicting]


def labels_of(batch: Batch) -> Labels:
    """The labels of a batch."""
    labels = Labels([], [], [])
    for sequence in batch.sequences:
        count = sequence.num_labels
        # The state at position t predicts the token at t + 1.
        first = sequence.first_label - 1
        labels.predicting.append(range(first, first + count))
        labels.tokens.extend((sequence.prompt + sequence.completion)[first + 1 : first + 1 + count])
        labels.weights.extend(repeat(sequence.weight, count))
    return labels


def rows_of(pieces: Pieces, positions: range) -> list[int]:
    """The rows of a sequence's tokens at these positions.

    >>> rows_of(((0, 0), (8, 20)), range(6, 10))
    [6, 7, 20, 21]
    """
    ends = [first for first, _ in pieces[1:]] + [positions.stop]
    rows: list[int] = []
    for (first, row), end in zip(pieces, ends, strict=True):
        start, stop = max(first, positions.start), min(end, positions.stop)
        rows.extend(range(row + start - first, row + stop - first))
    return rows
