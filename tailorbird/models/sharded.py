"""Local weights whose layers are shared out between the processes that train them together.

What is trained is a twin of the engine (see `network/sharding.py`); when it is over the engine itself has what
was learnt, whole, and answers, is saved and is exported like any other. Frozen weights stay in the engine as
well, in main memory while the twin is on a CUDA device; opened and answering, it must fit that device by itself.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.engine import Engine
from tailorbird.models.local import LocalWeights
from tailorbird.network.sharding import handed_over, require_others, shard, sharded, twin_of

if TYPE_CHECKING:
    from tailorbird.models.training_network import TrainingNetwork


@contextmanager
def sharded_training(
    weights: LocalWeights, dtype: torch.dtype, base: Engine
) -> Generator[tuple[LocalWeights, TrainingNetwork]]:
    """While the block runs, a sharded twin of weights that are trained, and its network.

    Args:
        weights: what is trained; of a copy that is trained whole, on the processor.
        dtype: what matrix products are computed in.
        base: the engine that they were made from; the twin is trained on its device.

    Raises:
        RecipeError: this process is alone.
        Unsupported: the model's layers were not found.
    """
    require_others()
    device, twin = base.device, weights.engine.twin(weights.adapter)
    training = twin.training(weights.adapter, dtype, to_shard=True)
    with handed_over(weights.engine.model, twin.model), training as network, _aside(base):
        network.shard(device)
        twin.device = device
        yield replace(weights, engine=twin), network
    weights.engine.weights_changed(weights.adapter)


@contextmanager
def _aside(engine: Engine) -> Generator[None]:
    """While the block runs, an engine is not on the CUDA device."""
    device = engine.device
    if device.type != "cuda":
        yield
        return
    engine.move_to(torch.device("cpu"))
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        engine.move_to(device)


@contextmanager
def sharded_weights(weights: LocalWeights) -> Generator[LocalWeights]:
    """While the block runs, a sharded twin of weights without an adapter, as they are.

    Raises:
        RecipeError: this process is alone.
        Unsupported: the model's layers were not found.
    """
    require_others()
    twin = weights.engine.twin(None)
    with handed_over(weights.engine.model, twin.model):
        twin.network = _sharded_network(twin.model, twin.device)
        yield replace(weights, engine=twin)
    weights.engine.weights_changed(None)


@contextmanager
def sharded_network(network: Any) -> Generator[Any]:
    """While the block runs, a sharded twin of a network: of our decoder, or of a transformers model in one.

    Raises:
        RecipeError: this process is alone.
        Unsupported: the network's layers were not found.
    """
    if isinstance(network, nn.Module):
        with sharded(network) as twin:
            yield twin
        return
    require_others()
    model = twin_of(network.model)
    with handed_over(network.model, model):
        yield _sharded_network(model, model.device)


def _sharded_network(model: Any, device: torch.device) -> TransformersNetwork:
    network = TransformersNetwork(model)
    network.shares_prefix = False  # one more pass through layers is for those alone that hold them whole
    shard(model, device, root=network.body)
    return network
