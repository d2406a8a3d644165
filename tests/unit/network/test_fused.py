"""Each fused operation against its formula, values and gradients."""

import pytest
import torch
from torch.nn import functional

from tailorbird.network.fused import lora_linear, rms_norm, swiglu


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def assert_same(fused, formula, inputs):
    found, expected = fused(), formula()
    torch.testing.assert_close(found, expected)
    weight = draw(*expected.shape, seed=9)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_a_lora_linear_is_the_frozen_product_plus_the_scaled_low_rank_one(bias):
    x = draw(2, 5, 12).requires_grad_()
    W, b = draw(7, 12), draw(7) if bias else None
    A, B = draw(3, 12, seed=1).requires_grad_(), draw(7, 3, seed=2).requires_grad_()
    assert_same(
        lambda: lora_linear(x, W, b, A, B, 0.5),
        lambda: functional.linear(x, W, b) + 0.5 * (x @ A.T) @ B.T,
        (x, A, B),
    )


def test_a_lora_linear_in_bfloat16_keeps_its_parameters_gradients_in_float32():
    x = draw(4, 16).requires_grad_()
    W, A, B = draw(8, 16), draw(2, 16, seed=1).requires_grad_(), draw(8, 2, seed=2).requires_grad_()
    y = lora_linear(x, W.bfloat16(), None, A, B, 2.0)
    assert y.dtype == torch.bfloat16
    found = torch.autograd.grad(y.float().sum(), (x, A, B))
    expected = torch.autograd.grad((x @ W.T + 2 * (x @ A.T) @ B.T).sum(), (x, A, B))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm()


def test_a_lora_linear_in_bfloat16_does_not_lose_an_update_smaller_than_a_step_of_its_numbers():
    x, W = draw(1024, 128), draw(96, 128)
    A, B = draw(4, 128, seed=1), 2e-4 * draw(96, 4, seed=2)
    update = (x @ A.T) @ B.T
    assert update.abs().mean() < 0.0005 * (x @ W.T).abs().mean()
    with_update = lora_linear(x, W.bfloat16(), None, A, B, 1.0)
    without = lora_linear(x, W.bfloat16(), None, A, 0 * B, 1.0)
    found = (with_update.float() - without.float()) * update
    assert found.sum().item() == pytest.approx(update.square().sum().item(), rel=0.1)


def test_an_rms_norm_divides_by_the_root_mean_square():
    x, w = draw(3, 4, 16).requires_grad_(), draw(16, seed=1).requires_grad_()
    assert_same(
        lambda: rms_norm(x, w, 1e-5, torch.float32),
        lambda: w * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt(),
        (x, w),
    )


def test_a_swiglu_is_the_gated_product():
    gate, up = draw(5, 8).requires_grad_(), draw(5, 8, seed=1).requires_grad_()
    assert_same(lambda: swiglu(gate, up), lambda: functional.silu(gate) * up, (gate, up))
