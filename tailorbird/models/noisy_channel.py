"""The noisy channel: how well the message follows from each label, instead of the label from the message.

Min et al. 2022, "Noisy Channel Language Model Prompting for Few-Shot Text Classification" (arXiv 2108.04106): the
conversation is turned round, labels are what is said and messages what is answered, the examples' too. A label must
then explain every word of the message. It costs as many messages as there are labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tailorbird.models.batching import MAX_BATCH_ROWS
from tailorbird.models.prefill import PrefixCache, prefill
from tailorbird.records import Example, Message, Prior, Request, Sampling

if TYPE_CHECKING:
    from tailorbird.models.causal import TransformersNetwork
    from tailorbird.models.chat_template import ChatTemplate

TURNED_INSTRUCTION = "Write a message of the category that is named."


def turned_round(request: Request, choice: str) -> Request:
    """The request that asks for a message of this choice: its examples turned round, too."""
    shown = tuple(Example((Message("user", e.completion),), e.prompt, id=e.id) for e in request.examples)
    turns = (Message("system", TURNED_INSTRUCTION), Message("user", choice))
    return Request(turns, Sampling(max_tokens=1), examples=shown, layout=request.layout)


def channel_log_p(
    network: TransformersNetwork,
    template: ChatTemplate,
    request: Request,
    adapter: str | None,
    device: torch.device,
) -> list[float]:
    """Log p(message | choice) for every choice of the request, in nats.

    Raises:
        ContextTooLong: the conversation turned round doesn't fit.
    """
    cache = PrefixCache()
    message = torch.tensor(template.completion(request.question, request.layout), device=device)
    prompts = [template.prompt(turned_round(request, choice)).ids for choice in request.choices or ()]
    found: list[float] = []
    for start in range(0, len(prompts), MAX_BATCH_ROWS):
        rows = prompts[start : start + MAX_BATCH_ROWS]
        ready = prefill(network, rows, cache, adapter, template.pad_id, device)
        count = len(message) - 1
        seen_BTP = ready.seen_BP.unsqueeze(1).expand(-1, count, -1)
        causal_TT = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        hidden_BTC, _ = network.hidden(
            message[:-1].expand(len(rows), -1),
            past=ready.past,
            mask_BTS=torch.cat([seen_BTP, causal_TT.expand(len(rows), -1, -1)], dim=2),
            positions_BT=ready.lengths_B.unsqueeze(1) + torch.arange(count, device=device),
        )
        for last_C, hidden_TC in zip(ready.last_BC, hidden_BTC, strict=True):
            log_p_TV = network.logits(torch.cat([last_C[None], hidden_TC])).log_softmax(dim=-1)
            found.append(float(log_p_TV[torch.arange(len(message)), message].sum()))
    return found


def with_channel(request: Request, log_p: Sequence[float]) -> Request:
    """The request with what its channel says in its prior, and without the channel."""
    given = request.prior or Prior((0.0,) * len(log_p))
    weights = (weight + request.channel * p for weight, p in zip(given.log_weights, log_p, strict=True))
    return replace(request, prior=Prior(tuple(weights), given.trust), channel=0.0)
