import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tailorbird.models.causal import TransformersNetwork
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss
from tailorbird.network.sequences import TokenSequence

LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(
    vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
)
IDS = torch.arange(3, 23).view(2, 10)


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    torch.manual_seed(0)
    return (LlamaForCausalLM(LLAMA) if request.param == "llama" else GPT2LMHeadModel(GPT2)).eval()


def test_hidden_and_logits_are_those_of_the_model(model):
    network = TransformersNetwork(model)
    hidden_BTC, past = network.hidden(IDS)
    assert past is None
    assert torch.allclose(
        network.logits(hidden_BTC.flatten(0, 1)).view(2, 10, -1), model(IDS).logits, atol=1e-5
    )


def test_a_past_continues_where_it_ended_and_is_left_as_it_was(model):
    network = TransformersNetwork(model)
    whole_BTC, _ = network.hidden(IDS)
    _, past = network.hidden(IDS[:1, :6], keep_past=True)
    for _ in range(2):
        rest_BTC, longer = network.hidden(IDS[:1, 6:], past=past, keep_past=True)
        assert torch.allclose(rest_BTC, whole_BTC[:1, 6:], atol=1e-5)
        assert (past.get_seq_length(), longer.get_seq_length()) == (6, 10)
    expanded = network.expand_past(past, 3)
    rows_BTC, _ = network.hidden(IDS[:1, 6:].expand(3, -1), past=expanded)
    assert torch.allclose(rows_BTC[2], whole_BTC[0, 6:], atol=1e-5)
    cropped = network.crop_past(past, 4)
    again_BTC, _ = network.hidden(IDS[:1, 4:], past=cropped)
    assert torch.allclose(again_BTC, whole_BTC[:1, 4:], atol=1e-5)
    assert past.get_seq_length() == 6


def test_a_mask_hides_what_it_says(model):
    network = TransformersNetwork(model)
    _, past = network.hidden(IDS[:1, :6], keep_past=True)
    mask_BTS = torch.tensor([[[True, True, True, False, False, False, True]]])
    hidden_BTC, _ = network.hidden(
        IDS[:1, 6:7], past=past, mask_BTS=mask_BTS, positions_BT=torch.tensor([[3]])
    )
    expected_BTC, _ = network.hidden(torch.cat([IDS[:1, :3], IDS[:1, 6:7]], dim=1))
    assert torch.allclose(hidden_BTC[:, 0], expected_BTC[:, -1], atol=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_the_loss_is_the_models_own(model, share):
    prompt, completions = tuple(range(5, 20)), ((3, 4), (9, 8, 7), (2,))
    batch = Batch(tuple(TokenSequence(prompt, c) for c in completions))
    nll, count = completion_loss(TransformersNetwork(model), batch, share=share)
    expected = 0.0
    for completion in completions:
        ids = torch.tensor([[*prompt, *completion]])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        expected += model(ids, labels=labels).loss.item() * len(completion)
    assert (nll.item(), count) == (pytest.approx(expected, rel=1e-5), 6)


def test_lora_gradients_are_the_same_with_and_without_a_shared_prefix(model):
    targets = ["q_proj", "down_proj"] if model.config.model_type == "llama" else ["c_attn"]
    lora = LoraConfig(
        r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=targets == ["c_attn"]
    )
    network = TransformersNetwork(inject_adapter_in_model(lora, model))
    trained = [p for p in model.parameters() if p.requires_grad]
    batch = Batch(tuple(TokenSequence((*range(5, 20), n), (n + 1, 2)) for n in range(4)))
    gradients = []
    for share in (True, False):
        model.zero_grad()
        completion_loss(network, batch, share=share)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


def test_lora_layers_around_the_head_take_part():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LLAMA).eval()
    network, plain = TransformersNetwork(model), copy.deepcopy(model)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False), model)
    hidden_BTC, _ = network.hidden(IDS)
    found = network.logits(hidden_BTC.flatten(0, 1)).view(2, 10, -1)
    assert torch.allclose(found, model(IDS).logits, atol=1e-5)
    assert not torch.allclose(found, plain(IDS).logits, atol=1e-3)
