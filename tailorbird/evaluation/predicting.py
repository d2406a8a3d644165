"""How surprised a model's weights are at the completions that should come: perplexity and bits per byte.

    perplexity     exp(-Σ log p(token | request, tokens before it) / number of tokens)
    bits per byte  -Σ log₂ p(…) / bytes of the completions

The end of a completion is predicted too: its token counts among the tokens, and adds no byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from tailorbird.evaluation.evaluate import Row, spread
from tailorbird.models.model import Likelihood, Model, Predicting, weights_of

MOST = 32
"""Examples that are looked at, evenly spread: each costs about what answering it with one token does."""


def measure_surprise(model: Model, rows: Sequence[Row], most: int = MOST) -> Likelihood | None:
    """How likely the weights beneath a model find the completions that should have come.

    They see what they saw when they answered, examples and evidence included. None where the weights don't tell
    (endpoints, floors), or none of the rows can be asked: an answer that was no choice of the weights is left out.
    """
    weights = weights_of(model)
    if not isinstance(weights, Predicting):
        return None
    expected = [
        (row.completion.asked, row.expected)
        for row in (rows[index] for index in spread(len(rows), most))
        if row.completion.asked and row.expected and not _had_no_choice(row)
    ]
    return weights.likelihood(expected) if expected else None


def _had_no_choice(row: Row) -> bool:
    """Whether a gate left one answer only, so that the weights were not asked."""
    asked = row.completion.asked
    return asked is not None and asked.choices is not None and len(asked.choices) == 1
