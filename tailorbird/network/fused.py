"""The operations that training spends its time in, each as one step forward and one back.

What an operation keeps for its backward pass is chosen by hand: matrix products run in the type of the
weights' copy (float32 or bfloat16), sums over a row run in float32, and what is cheap is computed again
instead of kept. Operations on elements are compiled where that pays.

Legend: M tokens, I inputs, O outputs of a matrix, R rank, F width inside a feed-forward, C model
width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tailorbird.network.where_it_pays import WhereItPays


class _LoraLinear(torch.autograd.Function):
    """y = x Wᵀ + b + s (x Aᵀ) Bᵀ, with W and b frozen (Hu et al. 2021, arXiv 2106.09685, eq. 3)."""

    @staticmethod
    def forward(  # noqa: PLR0917 - the formula's letters
        ctx: Any, x_MI: Tensor, W_OI: Tensor, b_O: Tensor | None, A_RI: Tensor, B_OR: Tensor, scale: float
    ) -> Tensor:
        x_MI = x_MI.to(W_OI.dtype)
        a_RI, b_OR = A_RI.to(W_OI.dtype), B_OR.to(W_OI.dtype)
        low_MR = (x_MI @ a_RI.T).mul_(scale)
        # The small part first, so that the large one is added to it before it is rounded: in half precision the
        # low-rank part is often less than a step between two numbers, and the other way round it would be lost.
        y_MO = (low_MR @ b_OR.T).addmm_(x_MI, W_OI.T)
        if b_O is not None:
            y_MO.add_(b_O)
        ctx.save_for_backward(x_MI, W_OI, low_MR, a_RI, b_OR)
        ctx.scale, ctx.trained = scale, A_RI.dtype
        return y_MO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x_MI, W_OI, low_MR, a_RI, b_OR = ctx.saved_tensors
        dy_MO = gradients[0].to(W_OI.dtype)
        dlow_MR = (dy_MO @ b_OR).mul_(ctx.scale)
        dB_OR = (dy_MO.T @ low_MR).to(ctx.trained)
        dA_RI = (dlow_MR.T @ x_MI).to(ctx.trained)
        dx_MI = (dlow_MR @ a_RI).addmm_(dy_MO, W_OI) if ctx.needs_input_grad[0] else None
        return dx_MI, None, None, dA_RI, dB_OR, None


def lora_linear(  # noqa: PLR0917 - the formula's letters
    x: Tensor, W_OI: Tensor, b_O: Tensor | None, A_RI: Tensor, B_OR: Tensor, scale: float
) -> Tensor:
    """The product x Wᵀ + b + scale · (x Aᵀ) Bᵀ in W's type; gradients reach x, A and B.

    Args:
        x: [..., I] of any type.
        W_OI: frozen, in the type to compute in.
        b_O: frozen bias of the same type, or None.
        A_RI: trained, in float32.
        B_OR: trained, in float32.
        scale: α / R.
    """
    y_MO: Any = _LoraLinear.apply(x.reshape(-1, x.shape[-1]), W_OI, b_O, A_RI, B_OR, scale)
    return y_MO.view(*x.shape[:-1], -1)


def _norm(x_MC: Tensor, w_C: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x32_MC = x_MC.float()
    inverse_M1 = torch.linalg.vector_norm(x32_MC, dim=-1, keepdim=True)
    inverse_M1 = inverse_M1.square_().div_(x_MC.shape[-1]).add_(eps).rsqrt_()
    return (x32_MC * inverse_M1).mul_(w_C).to(dtype), inverse_M1


def _norm_gradients(
    dy_MC: Tensor, x_MC: Tensor, w_C: Tensor, inverse_M1: Tensor, trained: bool
) -> tuple[Tensor, Tensor | None]:
    dy_MC = dy_MC.float()
    normed_MC = x_MC.float() * inverse_M1
    dw_C = (dy_MC * normed_MC).sum(dim=0).to(w_C.dtype) if trained else None
    dnormed_MC = dy_MC * w_C
    along_M1 = torch.linalg.vecdot(dnormed_MC, normed_MC).unsqueeze(-1).div_(x_MC.shape[-1])
    return dnormed_MC.sub_(normed_MC.mul_(along_M1)).mul_(inverse_M1).to(x_MC.dtype), dw_C


_NORM, _NORM_GRADIENTS = WhereItPays(_norm), WhereItPays(_norm_gradients)


class _RmsNorm(torch.autograd.Function):
    """y = w · x / √(mean(x²) + ε) (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x_MC: Tensor, w_C: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y_MC, inverse_M1 = _NORM(x_MC, w_C, eps, dtype)
        ctx.save_for_backward(x_MC, w_C, inverse_M1)
        return y_MC

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return *_NORM_GRADIENTS(gradients[0], *ctx.saved_tensors, ctx.needs_input_grad[1]), None, None


def rms_norm(x: Tensor, w_C: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """The row w · x / √(mean(x²) + eps) over the last dimension, computed in float32, given in `dtype`."""
    y_MC: Any = _RmsNorm.apply(x.reshape(-1, x.shape[-1]), w_C, eps, dtype)
    return y_MC.view(x.shape)


def _gated(gate_MF: Tensor, up_MF: Tensor) -> Tensor:
    return functional.silu(gate_MF).mul_(up_MF)


def _gated_gradients(dy_MF: Tensor, gate_MF: Tensor, up_MF: Tensor) -> tuple[Tensor, Tensor]:
    dup_MF = functional.silu(gate_MF).mul_(dy_MF)
    return torch.ops.aten.silu_backward(dy_MF * up_MF, gate_MF), dup_MF


_GATED, _GATED_GRADIENTS = WhereItPays(_gated), WhereItPays(_gated_gradients)


class _SwiGlu(torch.autograd.Function):
    """y = silu(g) · u (Shazeer 2020, arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate_MF: Tensor, up_MF: Tensor) -> Tensor:
        ctx.save_for_backward(gate_MF, up_MF)
        return _GATED(gate_MF, up_MF)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _GATED_GRADIENTS(gradients[0], *ctx.saved_tensors)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, element by element; keeps its two inputs and nothing else."""
    y: Any = _SwiGlu.apply(gate, up)
    return y
