"""Answers bound to a JSON schema: at every token only those are allowed that can still become a valid document.

The grammar engine is llguidance. A schema that it can't keep to in every part is refused, never followed in part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tailorbird.data.schemas import check_schema
from tailorbird.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from tailorbird.models.chat_template import ChatTemplate

FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Documents on one line: small models that may indent lose themselves in blanks."""


class SchemaGuides:
    """Makes guides for one tokenizer, which takes a second to prepare: once, when the first is asked for."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._tokenizer: Any = None

    def guide(self, schema: str) -> SchemaGuide:
        """What keeps one answer to a schema.

        Raises:
            InputError: it is no JSON object.
        RequestError: it is no JSON schema, or one that can't be kept to.
        """
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._tokenizer is None:
            ends = sorted(self._template.stop_ids)
            self._tokenizer = from_tokenizer(self._template.tokenizer, eos_token=ends)
        grammar, problem = "", ""
        check_schema(schema)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults=FORM)
            problem = LLMatcher.validate_grammar(grammar, self._tokenizer)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise RequestError(
                f"schema: it can't be kept to ({problem.strip()}). Leave out what is named, or ask without a schema."
            )
        return SchemaGuide(LLMatcher(self._tokenizer, grammar), self._template.stop_ids)


class SchemaGuide:
    """Which tokens may come next in one answer."""

    def __init__(self, matcher: Any, stop_ids: frozenset[int]) -> None:
        self._matcher, self._stop_ids = matcher, stop_ids

    def __call__(self, logits_V: Tensor) -> Tensor:
        """The scores with those of forbidden tokens at minus infinity."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.zeros(len(logits_V), dtype=bool)
        flags = np.unpackbits(bits, bitorder="little")[: len(logits_V)]
        allowed_V[: len(flags)] = flags
        mask_V = torch.from_numpy(allowed_V).to(logits_V.device)
        return logits_V.masked_fill(~mask_V, float("-inf"))

    def take(self, token: int) -> None:
        """Tells it which token came."""
        if token not in self._stop_ids:
            self._matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Whether the document is complete and nothing can follow."""
        return self._matcher.is_stopped()
