import pytest
import torch
from torch import nn

from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.optimizer import clip_gradients, is_matrix, make_optimizers, set_learning_rate

DECODER = Decoder(DecoderShape(23, 16, 1, 2, 1, 24, 64, tied_embeddings=False))


def named(*names):
    return {name: nn.Parameter(torch.ones(4, 4)) for name in names}


def test_only_matrices_decay():
    (adamw,) = make_optimizers(dict(DECODER.named_parameters()), learning_rate=0.1, weight_decay=0.3)
    decays = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    for name, parameter in DECODER.named_parameters():
        inner = name.startswith("blocks") and "norm" not in name
        assert decays[id(parameter)] == (0.3 if inner else 0.0), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", True),
        ("transformer.h.0.mlp.c_fc.weight", True),
        ("model.embed_tokens.weight", False),
        ("transformer.wpe.weight", False),
        ("lm_head.weight", False),
        ("head.weight", False),
        ("blocks.0.attention.heads_mixer.weight", True),
    ],
)
def test_embeddings_and_heads_are_told_from_matrices_by_name(name, expected):
    assert is_matrix(name, nn.Parameter(torch.ones(2, 2))) is expected


def test_a_vector_is_no_matrix():
    assert not is_matrix("blocks.0.norm.weight", nn.Parameter(torch.ones(2)))


def test_muon_moves_the_matrices_and_adamw_the_rest():
    parameters = dict(DECODER.named_parameters())
    adamw, muon = make_optimizers(parameters, learning_rate=0.1, optimizer="muon")
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, torch.optim.Muon)
    moved = [p for optimizer in (adamw, muon) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, moved)) == sorted(map(id, parameters.values()))
    assert all(p.ndim == 2 for group in muon.param_groups for p in group["params"])


def test_muon_without_any_matrix_is_adamw_alone():
    (only,) = make_optimizers(named("embedding.weight"), learning_rate=0.1, optimizer="muon")
    assert isinstance(only, torch.optim.AdamW)


def test_a_muon_step_has_the_size_of_an_adamw_step():
    sizes = []
    for optimizer in ("adamw", "muon"):
        weight = nn.Parameter(torch.zeros(32, 64))
        (made,) = make_optimizers({"w": weight}, learning_rate=0.01, optimizer=optimizer)
        weight.grad = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
        made.step()
        sizes.append(weight.detach().square().mean().sqrt().item())
    assert sizes[1] == pytest.approx(0.2 * sizes[0], rel=0.3)


def test_the_learning_rate_is_set_everywhere():
    optimizers = make_optimizers(dict(DECODER.named_parameters()), learning_rate=0.1, optimizer="muon")
    set_learning_rate(optimizers, 0.5)
    assert {group["lr"] for optimizer in optimizers for group in optimizer.param_groups} == {0.5}


def test_gradients_are_clipped_together_and_their_norm_told():
    parameters = list(named("a", "b").values())
    for parameter in parameters:
        parameter.grad = torch.full((4, 4), 3.0)
    norm = clip_gradients(parameters, 1.0)
    assert norm == pytest.approx((2 * 16 * 9) ** 0.5)
    left = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
    assert left.item() == pytest.approx(1.0, rel=1e-4)
