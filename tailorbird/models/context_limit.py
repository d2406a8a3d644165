"""How many tokens a model takes in, told by its configuration alone."""

from __future__ import annotations

from typing import Any

from tailorbird.errors import Unsupported


def context_of(config: Any, *, stateful: bool = False) -> int:
    """Tokens over which a model of this configuration attends to all that came before.

    Labels and answers are computed with masks over the whole past, so a sliding window ends the context.

    Raises:
        Unsupported: the model is `stateful`, or some of its layers do not attend.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if stateful or not kinds <= {"full_attention", "sliding_attention"}:
        raise Unsupported(
            f"model type {config.model_type!r}: it has layers other than attention "
            f"({', '.join(sorted(kinds))}), which "
            "Tailorbird cannot run exactly. Use an attention-only model, or serve this one elsewhere and "
            "give its URL."
        )
    limit = getattr(config, "max_position_embeddings", None) or 2048
    slides = "sliding_attention" in kinds or not getattr(config, "layer_types", None)
    return min(limit, (getattr(config, "sliding_window", None) or limit) if slides else limit)
