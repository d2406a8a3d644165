"""The shared prefix gives a transformers model with LoRA the gradients that the plain path gives."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tailorbird.models.causal import TransformersNetwork
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss, shared_prefix
from tailorbird.network.sequences import TokenSequence

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
COMMON = tuple(range(5, 30))
BATCHES = {
    "prompts_differ": Batch(tuple(TokenSequence((*COMMON, *[n] * n), (n + 1, 2)) for n in range(1, 5))),
    "prompts_are_all_shared": Batch(tuple(TokenSequence(COMMON, (n + 1, 2)[: 1 + n % 2]) for n in range(4))),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_lora_gradients_are_those_of_the_plain_path(architecture, batch):
    torch.manual_seed(0)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SIZES))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    network = TransformersNetwork(inject_adapter_in_model(lora, model))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert shared_prefix(network, batch) == len(COMMON)
    found = []
    for share in (True, False):
        for parameter in trained:
            parameter.grad = None
        loss, _ = completion_loss(network, batch, share=share)
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in trained])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert (found[0][1] - found[1][1]).norm() / found[1][1].norm() < 1e-5
