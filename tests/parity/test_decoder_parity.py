"""Our decoder computes what transformers' LlamaForCausalLM computes."""

import pytest
import torch

from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.llama_folder import from_llama_folder, save_llama

SHAPES = {
    "grouped_untied": DecoderShape(97, 64, 3, 4, 2, 160, 64, tied_embeddings=False),
    "full_tied": DecoderShape(97, 48, 2, 3, 3, 96, 64, rope_theta=500_000.0, norm_eps=1e-6),
    "one_kv_head": DecoderShape(97, 64, 2, 4, 1, 96, 64),
}


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def pair(request, tmp_path_factory):
    from transformers import LlamaForCausalLM

    decoder = Decoder(request.param, seed=7)
    with torch.no_grad():
        # Larger than at the start of training, so that attention is far from uniform.
        for parameter in decoder.parameters():
            parameter.mul_(1.1 if parameter.ndim == 1 else 5.0)
    folder = tmp_path_factory.mktemp("llama")
    save_llama(decoder, folder, bos_id=1, eos_id=2)
    return decoder.eval(), LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder


def ids(batch, tokens):
    return torch.randint(0, 97, (batch, tokens), generator=torch.Generator().manual_seed(tokens))


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_are_those_of_transformers(pair):
    decoder, llama, _ = pair
    assert_same(decoder(ids(3, 20)), llama(ids(3, 20)).logits)


@torch.no_grad()
def test_logits_after_a_past_are_those_of_transformers(pair):
    decoder, llama, _ = pair
    whole = ids(2, 20)
    _, past = decoder.hidden(whole[:, :12], keep_past=True)
    theirs = llama(whole[:, :12], use_cache=True)
    for piece in (whole[:, 12:19], whole[:, 19:]):
        hidden, past = decoder.hidden(piece, past=past, keep_past=True)
        theirs = llama(piece, past_key_values=theirs.past_key_values, use_cache=True)
        assert_same(decoder.logits(hidden), theirs.logits)


@torch.no_grad()
def test_logits_under_a_custom_mask_and_positions_are_those_of_transformers(pair):
    decoder, llama, _ = pair
    # Two texts packed into one row, neither seeing the other.
    owner = torch.tensor([0] * 7 + [1] * 5)
    mask = torch.ones(12, 12, dtype=torch.bool).tril() & (owner[:, None] == owner[None])
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
    hidden, _ = decoder.hidden(ids(1, 12), mask_BTS=mask[None], positions_BT=positions)
    additive = torch.zeros(12, 12).masked_fill(~mask, torch.finfo(torch.float32).min)[None, None]
    theirs = llama(ids(1, 12), attention_mask=additive, position_ids=positions).logits
    assert_same(decoder.logits(hidden), theirs)
    assert_same(theirs[:, 7:], llama(ids(1, 12)[:, 7:]).logits)


def test_gradients_are_those_of_transformers(pair):
    decoder, llama, _ = pair
    for model in (decoder, llama):
        model.zero_grad()
    decoder(ids(2, 10)).logsumexp(-1).sum().backward()
    llama(ids(2, 10)).logits.logsumexp(-1).sum().backward()
    ours = decoder.blocks[0].attention.key.weight.grad
    torch.testing.assert_close(ours, llama.model.layers[0].self_attn.k_proj.weight.grad, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_folder_that_transformers_wrote_is_read(pair, tmp_path):
    decoder, llama, _ = pair
    llama.save_pretrained(tmp_path, max_shard_size="50kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(from_llama_folder(tmp_path)(ids(1, 8)), decoder(ids(1, 8)))
