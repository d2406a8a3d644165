"""One answer being written, token by token: how a token is drawn and when the answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tailorbird.records import Completion, FinishReason, Layout, Request, Usage

if TYPE_CHECKING:
    from tailorbird.models.chat_template import ChatTemplate, Prompt
    from tailorbird.models.schema_guide import SchemaGuide


class Row:
    """The answer to one prompt, as far as it is written.

    It ends at a stop token, at a stop text, after `max_tokens`, where the context is full, or where a document of
    the schema that it is bound to is complete.
    """

    def __init__(self, prompt: Prompt, template: ChatTemplate, guide: SchemaGuide | None = None) -> None:
        sampling = prompt.request.sampling
        self._guide = guide
        self.prompt = prompt
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._template = template
        self._stops = sampling.stop
        self._sampler = Sampler(prompt.request)
        self._layout: Layout = prompt.request.layout
        self._ends = template.stops_of(self._layout)
        self._most = min(sampling.max_tokens, template.context - len(prompt.ids))

    def take(self, logits_V: torch.Tensor) -> None:
        """Draws the next token."""
        token = self._sampler(self._guide(logits_V) if self._guide else logits_V)
        if token in self._ends:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        if self._guide:
            self._guide.take(token)
            if self._guide.complete:
                self.finish_reason = "stop"
                return
        if self._stops and cut_at_stop(self._written, self._stops)[1]:
            self.finish_reason = "stop"
        elif len(self.ids) >= self._most:
            self.finish_reason = "length"

    @property
    def text(self) -> str:
        """The answer so far, without its stop text."""
        return cut_at_stop(self._written, self._stops)[0]

    @property
    def _written(self) -> str:
        return self._template.read_answer(self.ids, self._layout)

    def completion(self, shared_tokens: int) -> Completion:
        """The finished answer; `shared_tokens` of its prompt were computed once for several."""
        return Completion(
            self.text,
            self.finish_reason or "stop",
            Usage(len(self.prompt.ids), len(self.ids), shared_tokens),
            asked=self.prompt.request,
            dropped=self.prompt.dropped,
        )

    @property
    def settled(self) -> str:
        """The part of the text that later tokens can't change any more.

        Held back are half a character, and what may be the beginning of a stop text.
        """
        if self.finish_reason is not None:
            return self.text
        text = self.text
        hold = max(map(len, self._stops), default=0)
        return text[: max(0, len(text) - hold)].rstrip("\ufffd")


@dataclass
class Writing:
    """Answers that are written together; `shared_tokens` of each prompt were computed once.

    `shared_by_all` is what `prefill` takes: None for a prompt that was asked by itself.
    """

    rows: list[Row]
    shared_by_all: int | None = None
    shared_tokens: int = 0


class Sampler:
    """Draws tokens for one request with a generator of its own, so that batching changes nothing."""

    def __init__(self, request: Request) -> None:
        self.sampling = request.sampling
        self.generator = torch.Generator()
        if request.sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(request.sampling.seed)

    def __call__(self, logits_V: torch.Tensor) -> int:
        """The next token: the most likely at temperature 0, else nucleus sampling (Holtzman et al. 2020)."""
        if self.sampling.temperature == 0:
            return int(logits_V.argmax())
        p_V = (logits_V.float().cpu() / self.sampling.temperature).softmax(dim=-1)
        sorted_p_V, order_V = p_V.sort(descending=True, stable=True)
        outside_V = sorted_p_V.cumsum(dim=-1) - sorted_p_V >= self.sampling.top_p
        kept_V = sorted_p_V.masked_fill(outside_V, 0.0)
        return int(order_V[torch.multinomial(kept_V, 1, generator=self.generator)])


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the stop text that is complete first, and whether one was found.

    Of those that end together the longest counts. What comes later changes nothing, so a text may be cut while
    it is written.

    >>> cut_at_stop("one, two", ["one, two", ","])
    ('one', True)
    """
    found = [(at + len(stop), at) for stop in stops if stop and (at := text.find(stop)) >= 0]
    return (text[: min(found)[1]], True) if found else (text, False)
