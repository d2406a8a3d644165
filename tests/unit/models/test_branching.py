"""Nodes that grow from prompts without padding: what they give is what rows with masks give."""

import pytest
import torch

from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.label_scoring import score_labels
from tailorbird.models.prefill import PrefixCache, prefill
from tailorbird.models.trie import build_trie
from tailorbird.testing.tiny import tiny_model

LABELS = [(1, 2, 3), (1, 2, 4), (1, 5), (6,), (6, 7), (2, 2, 2, 2, 2), (2, 2, 2, 3)]
PROMPTS = [(9, 8, 7, 6), (9, 8, 7, 6, 5, 4, 3), (2, 3)]


def scores(network):
    with torch.inference_mode():
        ready = prefill(network, PROMPTS, PrefixCache(), None, 0, torch.device("cpu"))
        trie = build_trie(LABELS, 0)
        return score_labels(network, ready.last_BC, ready.past, ready.seen_BP, ready.lengths_B, trie)


@pytest.fixture
def rounds(monkeypatch):
    monkeypatch.setattr("tailorbird.models.label_scoring.SMALL_TRIE", 0)
    monkeypatch.setattr("tailorbird.models.label_scoring.NEGLIGIBLE", 0.0)


def other(kind):
    """A model of another architecture, or None where it must be refused."""
    from transformers import Gemma2Config, GPT2Config, Qwen2Config
    from transformers.models.auto import AutoModelForCausalLM

    small = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    configs = {
        "gpt2": lambda: GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4),
        "qwen2": lambda: Qwen2Config(**small, num_attention_heads=4, num_key_value_heads=2),
        "gemma2": lambda: Gemma2Config(**small, **heads),
    }
    torch.manual_seed(0)
    return TransformersNetwork(AutoModelForCausalLM.from_config(configs[kind]()).eval())


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_architectures_branch_alike(kind, rounds):
    network = other(kind)
    assert network.can_branch
    branched = scores(network)
    network.can_branch = False
    padded = scores(network)
    assert branched.num_nodes == padded.num_nodes
    assert torch.allclose(branched.log_p_BL, padded.log_p_BL, atol=1e-4)


def test_attention_that_does_more_than_a_softmax_is_computed_by_rows(rounds, caplog):
    caplog.set_level("INFO")
    network = other("gemma2")
    before = network.model.config._attn_implementation
    assert not network.can_branch
    assert "Labels are scored with padding for this model" in caplog.text
    assert network.model.config._attn_implementation == before
    assert scores(network).log_p_BL.isfinite().all()


def test_a_result_that_differs_is_not_used(monkeypatch):
    network = tiny_model().engine.network
    grow = network.grow
    monkeypatch.setattr(network, "grow", lambda *given: 1.1 * grow(*given))
    assert not network.can_branch


def test_a_prompts_keys_are_left_as_they_were():
    network = tiny_model().engine.network
    with torch.inference_mode():
        _, past = network.hidden(torch.tensor([[5, 3, 7]]), keep_past=True)
        before = past.layers[0].keys.clone()
        branches = network.branches(past, [3])
        sees = {0: torch.ones(2, 5, dtype=torch.bool).tril(3)}
        network.grow(branches, [4, 1], [3, 4], sees)
        assert torch.equal(past.layers[0].keys, before)
        assert branches.keys[0][0].shape[1] == 5
