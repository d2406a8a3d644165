"""What a model is made of, as hashes: what was measured with one is not said of another."""

from __future__ import annotations

from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, weights_of
from tailorbird.records import content_hash


def identity_of(model: Model) -> dict[str, str]:
    """The weights beneath all wrappers: name, hashes of the base, its tokenizer and an adapter on it."""
    weights = weights_of(model)
    if not isinstance(weights, LocalWeights):
        return {"model": weights.name}
    tokenizer = weights.engine.tokenizer.backend_tokenizer.to_str()
    found = {
        "model": weights.name,
        "weights": weights.engine.fingerprint(),
        "tokenizer": content_hash(tokenizer),
    }
    return (
        found
        if weights.adapter is None
        else {**found, "adapter": weights.engine.fingerprint(weights.adapter)}
    )
