"""How likely local weights find given texts as answers: -log p of every token, given the request before it.

The prompt is made by the same chat template as for answering, and the text ends with the stop token as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tailorbird.models.batching import MAX_BATCH_TOKENS
from tailorbird.models.model import Likelihood
from tailorbird.network.batches import split
from tailorbird.network.loss import completion_loss, shares
from tailorbird.network.sequences import TokenSequence

if TYPE_CHECKING:
    from tailorbird.models.engine import Engine
    from tailorbird.records import Request


@torch.no_grad()
def likelihood(
    engine: Engine, adapter: str | None, expected: Sequence[tuple[Request, str]]
) -> Likelihood | None:
    """Of all texts together, each given its request; None where none fits. Common beginnings are computed once.

    Args:
        engine: holds the weights.
        adapter: what is switched on; None for the bare base.
        expected: requests as the weights see them, each with a text. One that does not fit the context together with
            its request is left out.
    """
    template = engine.template
    sequences, size_bytes = list[TokenSequence](), 0
    for request, text in expected:
        prompt = template.prompt(request).ids
        sequence = TokenSequence(prompt, template.completion(text, request.layout))
        if len(sequence) <= template.context:
            sequences.append(sequence)
            size_bytes += len(text.encode("utf-8", "replace"))
    if not sequences:
        return None
    nats = 0.0
    with engine.using(adapter):
        share = shares(engine.network, wanted=True)
        for batch in split(sequences, MAX_BATCH_TOKENS, share=share):
            nats += float(completion_loss(engine.network, batch, device=engine.device, share=share)[0])
    return Likelihood(nats, sum(s.num_labels for s in sequences), size_bytes, len(sequences))
