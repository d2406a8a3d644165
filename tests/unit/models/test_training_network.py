"""The faster way that a model runs while it is trained: what it replaces, what it leaves, what it puts back."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.pytorch_utils import Conv1D
from written_kernel import Written

from tailorbird.models import own_attention
from tailorbird.models import training_network as module
from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.gguf_file import converted, starter_file
from tailorbird.models.training_network import STREAM, TrainingNetwork
from tailorbird.network import pack_attention as attention
from tailorbird.network import replays
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss
from tailorbird.network.packing import pack
from tailorbird.network.sequences import TokenSequence
from tailorbird.testing.tiny import tiny_model

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
BATCH = Batch(tuple(TokenSequence((*COMMON, *[n] * n), (n + 1, 2)) for n in range(1, 5)))
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama_with_biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES)),
}


def with_lora(model, **settings):
    torch.manual_seed(1)
    linear = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)]
    config = LoraConfig(
        r=4,
        target_modules=[name for name in linear if "lm_head" not in name],
        init_lora_weights=False,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
        **settings,
    )
    inject_adapter_in_model(config, model, adapter_name="a")
    model.eval()  # no dropout


def gradients(network, model):
    trained = [p for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    loss, _ = completion_loss(network, BATCH)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in trained if p.grad is not None])


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


def test_loss_and_gradients_are_those_of_the_plain_model(model):
    with_lora(model)
    loss, expected = gradients(TransformersNetwork(model), model)
    with TrainingNetwork(model, "a", torch.float32).running() as network:
        fast_loss, found = gradients(network, model)
    assert fast_loss == pytest.approx(loss, rel=1e-5)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["llama", "llama_with_biases", "qwen3"])
def test_recorded_work_gives_the_gradients_of_the_plain_model(name, monkeypatch):
    for place in (attention, module):
        monkeypatch.setattr(place, "flash_kernel", lambda *_: Written())
    monkeypatch.setattr(replays, "WORTH_IT", 1)
    model = MODELS[name]()
    with_lora(model)
    loss, expected = gradients(TransformersNetwork(model), model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    with TrainingNetwork(model, "a", torch.float32).running() as network:
        assert network.path == "packed, FlashAttention, fused, float32"
        replaying = replays.Replays(network, trained, bf16=False, record=lambda work: work)
        assert replaying.add_gradients(BATCH, len(COMMON), 1.0, 0.99) == pytest.approx(loss, rel=1e-5)
    assert relative(torch.cat([p.grad.flatten() for p in trained.values()]), expected) < 1e-5


def test_packs_of_any_size_meet_few_numbers_of_rows_and_are_computed_the_same():
    model = MODELS["llama"]()
    with_lora(model)
    sizes = []
    with TrainingNetwork(model, "a", torch.float32).running() as network:
        hook = network.body.register_forward_pre_hook(
            lambda module, given, named: sizes.append(named["input_ids"].shape[1]), with_kwargs=True
        )
        for count in (25, 29, 30, 45):  # and three more tokens in two branches
            ids = tuple(n % 60 for n in range(count))
            found = network.packed(pack([(*ids, 1), (*ids, 2, 3)], count))
            assert len(found) == count + 3
            with torch.no_grad():
                expected = network.hidden(torch.tensor([[*ids, 2, 3]]))[0][0]
            torch.testing.assert_close(found[[*range(count), -2, -1]], expected, rtol=1e-4, atol=1e-5)
        hook.remove()
    assert sizes[::2] == [STREAM, STREAM, 2 * STREAM, 2 * STREAM]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", "packed, fused, float32"),
        ("llama_with_biases", "packed, fused, float32"),
        ("qwen3", "packed, fused, float32"),
        ("gemma2", "plain, fused, float32"),
    ],
)
def test_the_path_is_told(name, path):
    model = MODELS[name]()
    with_lora(model)
    with TrainingNetwork(model, "a", torch.float32).running() as network:
        assert network.path == path


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_bfloat16_gives_nearly_the_same_gradients_in_float32(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    with_lora(model)
    _, expected = gradients(TransformersNetwork(model), model)
    with TrainingNetwork(model, "a", torch.bfloat16).running() as network:
        _, found = gradients(network, model)
    assert found.dtype == torch.float32
    assert relative(found, expected) < 0.05


def rough():
    """A model through whose layers rounding grows, as it does through a small pre-trained one's."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_hidden_layers": 24}, initializer_range=0.5))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        (None, "packed, fused, bfloat16"),
        ({}, "packed, fused, bfloat16"),
        ({"use_dora": True}, "packed, unfused, bfloat16"),
    ],
)
def test_what_rounding_does_to_a_whole_model_in_half_precision_keeps_nothing_from_running(settings, path):
    model = rough()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        exact = TransformersNetwork(model).hidden(ids)[0]
        half = TransformersNetwork(model.to(torch.bfloat16)).hidden(ids)[0]
    assert relative(half.float(), exact) > module.ROUNDING[torch.bfloat16]  # else this shows nothing
    if settings is not None:
        with_lora(model, **settings)
    with TrainingNetwork(model, None if settings is None else "a", torch.bfloat16).running() as network:
        assert network.path == path


def test_the_starter_in_half_precision_runs_packed():
    folder = converted(starter_file())
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with TrainingNetwork(model, None, torch.bfloat16).running() as network:
        assert network.path == "packed, fused, bfloat16"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_packs_that_shows_too_much_does_not_run_and_that_is_said(dtype, monkeypatch, caplog):
    caplog.set_level("INFO")

    def to_all(query_HND, key_KND, value_KND, packed, scale):
        return attention.branched_attention(
            query_HND, key_KND, value_KND, pack([tuple(packed.ids)], 0), scale
        )

    monkeypatch.setattr(own_attention, "pack_attention", to_all)
    with TrainingNetwork(rough().to(dtype), None, dtype).running() as network:
        assert network.path.startswith("shared prefix, fused")
    assert "does not run for this model: it gives something else than attention by rows" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replacement_that_gives_something_else_does_not_run(dtype, monkeypatch):
    monkeypatch.setattr(module, "swiglu", lambda gate, up: gate.relu() * up)
    with TrainingNetwork(rough().to(dtype), None, dtype).running() as network:
        assert network.path == f"packed, unfused, {str(dtype).removeprefix('torch.')}"


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_an_adapter_of_another_kind_runs_as_peft_has_it(settings):
    torch.manual_seed(0)
    model = MODELS["llama_with_biases"]()
    with_lora(model, **settings)
    _, expected = gradients(TransformersNetwork(model), model)
    with TrainingNetwork(model, "a", torch.bfloat16).running() as network:
        assert network.path == "packed, unfused, float32"
        _, found = gradients(network, model)
    assert relative(found, expected) < 1e-5


def test_weights_that_are_trained_themselves_get_the_plain_gradients():
    torch.manual_seed(0)
    model = MODELS["llama"]()
    _, expected = gradients(TransformersNetwork(model), model)
    with TrainingNetwork(model, None, torch.float32).running() as network:
        assert network.path == "packed, fused, float32"
        _, found = gradients(network, model)
    assert relative(found, expected) < 1e-5


def test_afterwards_the_model_is_as_before_even_after_an_error():
    model = MODELS["llama"]()
    with_lora(model)
    before = {name: "forward" in module.__dict__ for name, module in model.named_modules()}
    attention = model.config._attn_implementation
    during = []

    def fail():
        with TrainingNetwork(model, "a", torch.bfloat16).running():
            during.append(model.config._attn_implementation)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert during != [attention]
    assert {name: "forward" in module.__dict__ for name, module in model.named_modules()} == before
    assert model.config._attn_implementation == attention


def test_an_engine_answers_through_the_training_path_and_then_again_through_its_own():
    from tailorbird.testing.tiny import tiny_data

    model, data = tiny_model(), tiny_data()
    engine = model.engine
    engine.add_adapter("a", LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    requests = [data.task.ask(example) for example in data.dev]
    own = engine.network
    before = engine.answer(requests, "a")
    with engine.training("a", torch.bfloat16) as network:
        assert engine.network is network
        during = engine.answer(requests, "a")
    assert engine.network is own
    after = engine.answer(requests, "a")
    assert [a.probabilities for a in after] == [a.probabilities for a in before]
    for one, other in zip(during, before, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_ids", [1, 5])
def test_what_follows_a_past_is_computed_as_the_plain_model_does(name, num_ids):
    torch.manual_seed(0)
    model = MODELS[name]()
    with_lora(model)
    before, after = torch.tensor([[5, 9, 7, 3, 8, 6]]), torch.arange(10, 10 + num_ids)[None]

    @torch.no_grad()
    def hidden(network):
        _, past = network.hidden(before, keep_past=True)
        return network.hidden(after, past=past)[0]

    expected = hidden(TransformersNetwork(model))
    with TrainingNetwork(model, "a", torch.float32).running() as network:
        assert relative(hidden(network), expected) < 1e-5
