"""Who moves which weights: AdamW for all, or Muon for the matrices and AdamW for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

OptimizerName = Literal["adamw", "muon"]

LOOKUP = re.compile(r"embed|wte|wpe|(^|[._])(lm_)?head\b", re.IGNORECASE)
"""Names of embeddings and heads: matrices of rows that are looked up one by one, not of a map."""


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a linear map: not a norm, a bias, an embedding or the head."""
    return parameter.ndim >= 2 and not LOOKUP.search(name)


def make_optimizers(
    parameters: Mapping[str, nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    optimizer: OptimizerName = "adamw",
    betas: tuple[float, float] = (0.9, 0.95),
) -> list[Optimizer]:
    """The optimizers of a run; step them all. Only matrices decay.

    AdamW (arXiv 1711.05101) with g the gradient, η the learning rate and λ the decay:

        m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  w ← w - η(m̂ / (√v̂ + ε) + λw)

    Muon (Jordan et al. 2024) replaces each matrix's momentum by the nearest orthogonal matrix, found by
    Newton-Schulz iterations; its step is scaled to AdamW's typical size, so one learning rate serves both.
    """
    matrices = [parameter for name, parameter in parameters.items() if is_matrix(name, parameter)]
    rest = [parameter for name, parameter in parameters.items() if not is_matrix(name, parameter)]
    flat = [matrix for matrix in matrices if matrix.ndim == 2] if optimizer == "muon" else []
    others = [matrix for matrix in matrices if not flat or matrix.ndim != 2]
    groups = [{"params": others, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    made: list[Optimizer] = []
    if groups:
        on_cuda = all(parameter.is_cuda for parameter in parameters.values())
        # On CUDA devices all moments and weights are moved by few kernels.
        made.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=on_cuda or None))
    if flat:
        muon = torch.optim.Muon(
            flat, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        made.append(muon)
    return made


def set_learning_rate(optimizers: Iterable[Optimizer], learning_rate: float) -> None:
    """Give every group of every optimizer this learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def moved_by(optimizer: Optimizer) -> list[nn.Parameter]:
    """What an optimizer moves, in the order in which its state is numbered."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients together to a Euclidean norm of at most `max_norm`; the norm they had."""
    return float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
