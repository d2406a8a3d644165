"""LoRA layers that start elsewhere than at random: at the weights' own directions, or at their inputs'.

Legend: I inputs, O outputs of a layer, R rank, N tokens looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tailorbird.network.sharding import part_of

if TYPE_CHECKING:
    from tailorbird.models.engine import Engine

ITERATIONS = 16
"""Rounds in which the principal directions are sharpened (Halko et al. 2011, arXiv 0909.4061)."""
SEQUENCES = 32
"""Sequences whose inputs are looked at."""
TOKENS = 256
"""Tokens of them that are looked at, at least; four times the rank where that is more."""


@torch.no_grad()
def start_at_weights(engine: Engine, adapter: str, seed: int) -> None:
    """PiSSA (Meng et al. 2024, arXiv 2404.02948) over base weights that stay as they are.

    W + s·B·A − s·B₀·A₀ is trained, where s·B₀·A₀ is W along its R greatest singular directions and B, A
    start there. The base is shared, so what PiSSA takes out of W stands in the layers: they have rank 2R,
    [B, −B₀] and [A; A₀], which is plain LoRA; `second_half_kept` keeps the second half.

    Args:
        engine: holds the adapter.
        adapter: fresh, of rank 2R.
        seed: of the directions that the search begins with.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in _layers(engine, adapter):
            stored = module.get_base_layer().weight.detach().float().cpu()
            W_OI = stored.T if module.fan_in_fan_out else stored
            a_2RI, b_O2R = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            rank = len(a_2RI) // 2
            U_OK, s_K, V_IK = torch.svd_lowrank(W_OI, q=min(2 * rank, *W_OI.shape), niter=ITERATIONS)
            root_R = (s_K[:rank] / module.scaling[adapter]).sqrt()
            known = len(root_R)  # a narrow layer has fewer directions; the others stay as in LoRA
            a_2RI[:known] = (root_R[:, None] * V_IK[:, :known].T).to(a_2RI)
            b_O2R[:, :known] = (U_OK[:, :known] * root_R).to(b_O2R)
            a_2RI[rank:] = a_2RI[:rank]
            b_O2R[:, rank:] = -b_O2R[:, :rank]


@contextmanager
def second_half_kept(parameters: Mapping[str, nn.Parameter]) -> Generator[None]:
    """Inside, no gradient reaches the second half of the layers' ranks, so that training leaves it as it is."""
    with ExitStack() as hooks:
        for name, parameter in parameters.items():
            axis = 0 if ".lora_A." in name else 1
            handle = parameter.register_post_accumulate_grad_hook(_only_first_half(axis))
            hooks.callback(handle.remove)
        yield


def _only_first_half(axis: int) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def forget_second(parameter: Tensor) -> None:
        if parameter.grad is not None:
            half = parameter.shape[axis] // 2
            gradient, first_row = part_of(parameter.grad)
            second = gradient[max(0, half - first_row) :] if axis == 0 else gradient[:, half:]
            second.zero_()

    return forget_second


@torch.no_grad()
def start_at_inputs(engine: Engine, adapter: str, sequences: Sequence[Sequence[int]], seed: int) -> None:
    """EVA (Paischer et al. 2024, arXiv 2410.07170): A's rows are the right singular vectors of the inputs.

    Every layer keeps the rank that was asked for. Directions beyond the number of tokens stay random.

    Args:
        engine: holds the adapter.
        adapter: fresh.
        sequences: token ids of the training set; some are chosen.
        seed: of which sequences, and which of their tokens, are looked at.
    """
    layers = _layers(engine, adapter)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(sequences), generator=random)[:SEQUENCES].tolist()
    most = max(TOKENS, *(4 * len(module.lora_A[adapter].weight) for module in layers))
    seen: list[list[Tensor]] = [[] for _ in layers]
    for number in order:
        ids = torch.tensor([list(sequences[number])], device=engine.device)
        chosen_N = torch.randperm(ids.shape[1], generator=random)[: -(-most // len(order))]
        with ExitStack() as hooks:
            for module, inputs_n in zip(layers, seen, strict=True):
                handle = module.register_forward_pre_hook(_keeper(inputs_n, chosen_N.to(engine.device)))
                hooks.callback(handle.remove)
            engine.network.hidden(ids)
    for module, inputs_n in zip(layers, seen, strict=True):
        a_RI = module.lora_A[adapter].weight
        directions_KI = torch.linalg.svd(torch.cat(inputs_n), full_matrices=False).Vh[: len(a_RI)]
        a_RI[: len(directions_KI)] = directions_KI.to(a_RI)


def _keeper(inputs_n: list[Tensor], chosen_N: Tensor) -> Any:
    return lambda _, given: inputs_n.append(given[0][0, chosen_N].float())


def _layers(engine: Engine, adapter: str) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    found = [module for module in engine.model.modules() if isinstance(module, LoraLayer)]
    return [module for module in found if adapter in module.lora_A]
