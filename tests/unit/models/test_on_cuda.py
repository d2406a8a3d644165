"""Training on a CUDA device: the gradients of attention written out, recorded work, and every way to train."""

import logging
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import LlamaConfig, LlamaForCausalLM

from tailorbird.models.blank import Blank
from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.engine import Engine
from tailorbird.models.local import LocalWeights
from tailorbird.models.training_network import TrainingNetwork
from tailorbird.network import replays
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss
from tailorbird.network.run import Run
from tailorbird.network.sequences import TokenSequence
from tailorbird.network.settings import TrainSettings
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_tokenizer

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # of compilers, on machines that we don't know
]
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
}
COMMON = tuple(range(5, 45))
ROUNDING = 0.05


def llama(dtype):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=400, **SIZES)).to("cuda", dtype).eval()


def weights():
    tokenizer = tiny_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES, **ids))
    return LocalWeights("cuda", Engine(model.to("cuda", torch.bfloat16), tokenizer))


def batch(first, *, common=COMMON, rows=6):
    return Batch(
        tuple(TokenSequence((*common, *[first + n] * (n + 1)), (n + 1, first, 2)) for n in range(rows))
    )


def with_lora(model):
    torch.manual_seed(1)
    names = [
        name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in name
    ]
    config = LoraConfig(r=8, target_modules=names, init_lora_weights=False)
    inject_adapter_in_model(config, model, adapter_name="a")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return trained


def gradients(trained, losses):
    for parameter in trained.values():
        parameter.grad = None
    for loss in losses():
        loss.backward()
    return torch.cat([p.grad.flatten().float() for p in trained.values()])


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.fixture
def expected():
    """A model, what is trained in it, batches, and their gradients in float32 with transformers' own attention."""
    model = llama(torch.float32)
    trained = with_lora(model)
    batches = [batch(100), batch(200), batch(300, common=COMMON[:9], rows=9), batch(100, common=(), rows=3)]
    network = TransformersNetwork(model)
    found = gradients(
        trained, lambda: (completion_loss(network, b, device="cuda", share=False)[0] for b in batches)
    )
    return model, trained, batches, found


def test_gradients_in_bfloat16_with_flash_attention_are_those_of_the_plain_model(expected):
    model, trained, batches, plain = expected
    model.to(torch.bfloat16)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    with TrainingNetwork(model, "a", torch.bfloat16).running() as network:
        assert network.path == "packed, FlashAttention, fused, bfloat16"
        found = gradients(trained, lambda: (completion_loss(network, b, device="cuda")[0] for b in batches))
    assert relative(found, plain) < ROUNDING


def test_recorded_work_gives_the_gradients_of_batches_that_were_not_there_when_it_was_recorded(
    expected, monkeypatch, caplog
):
    model, trained, batches, plain = expected
    monkeypatch.setattr(replays, "WORTH_IT", 1)
    model.to(torch.bfloat16)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.grad = None
    with TrainingNetwork(model, "a", torch.bfloat16).running() as network:
        replaying = replays.replays_for(network, trained, bf16=True)
        others = [batch(150), batch(250, common=COMMON[:12], rows=9), batch(50, common=(), rows=3)]
        for warm in others:
            assert replaying.add_gradients(warm, warm.prefix if warm.prefix >= 8 else 0, 1.0, 0.99)
        for parameter in trained.values():
            parameter.grad = None
        for b in batches:
            assert replaying.add_gradients(b, b.prefix if b.prefix >= 8 else 0, 1.0, 0.99) is not None
    assert not [r for r in caplog.records if r.name.startswith("tailorbird") and r.levelno >= logging.WARNING]
    assert relative(torch.cat([p.grad.flatten() for p in trained.values()]), plain) < ROUNDING


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa", "eva", "qlora", "full"])
def test_every_method_learns_on_the_device(method, caplog):
    caplog.set_level(logging.WARNING)
    losses = []
    technique = FineTune(
        method=method,
        rank=16,
        epochs=15,
        learning_rate=5e-3 if method != "full" else 1e-3,
        on_step=lambda r: losses.append(r.loss),
    )
    technique.apply(weights(), replace(tiny_data(), dev=()))
    assert losses[-1] < 0.3 * losses[0], losses[::10]
    assert not [r for r in caplog.records if r.name.startswith("tailorbird")], caplog.text


def test_a_model_trained_on_the_device_answers_and_comes_back(tmp_path):
    from tailorbird.models.folders import load_model, save_model
    from tailorbird.models.local import open_local

    data = tiny_data()
    weights().engine.save(tmp_path / "base")
    base = open_local(str(tmp_path / "base"))
    tuned = FineTune(rank=8, epochs=12, learning_rate=3e-3).apply(base, data)
    asked = [data.task.ask(e) for e in data.test]
    answers = [a.text for a in tuned.answer(asked)]
    assert sum(a == e.completion for a, e in zip(answers, data.test, strict=True)) > len(asked) / 2
    save_model(tuned, tmp_path / "saved", task=data.task)
    again = load_model(tmp_path / "saved", {}).model
    assert [a.text for a in again.answer(asked)] == answers


def test_preferences_are_learnt_on_the_device():
    data = tiny_data()
    rows = [replace(e, rejected=next(x for x in data.task.labels if x != e.completion)) for e in data.train]
    margins = []
    technique = FineTune(
        objective="dpo",
        rank=8,
        epochs=6,
        learning_rate=1e-3,
        on_step=lambda r: margins.append(r.reward_margin),
    )
    technique.apply(weights(), replace(data, train=tuple(rows), dev=()))
    assert margins[0] == pytest.approx(0, abs=0.01)
    assert margins[-1] > 0.3


def test_training_from_scratch_runs_on_the_device():
    losses = []
    technique = FromScratch(
        depth=2,
        vocab_size=320,
        context=256,
        text_epochs=1,
        epochs=30,
        max_dev=4,
        learning_rate=3e-3,
        on_step=lambda r: losses.append(r.loss),
    )
    technique.apply(Blank(), replace(tiny_data(), dev=()))
    assert losses[-1] < 0.5 * losses[0]


def test_most_steps_of_a_run_are_replayed():
    model = weights()
    trained = model.engine.add_adapter(
        "a", LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    sequences = [s for first in range(60, 120) for s in batch(first).sequences]
    with model.engine.training("a", torch.bfloat16) as network:
        run = Run(network, trained, sequences, TrainSettings(max_steps=30, batch_size=6), None)
        losses = [report.loss for report in run.steps()]
        assert run.replays is not None
        assert len(run.replays._recorded) >= 1
        assert sum(run.replays._met.values()) <= 12
    assert losses[-1] < losses[0]


def test_the_tiny_model_of_other_tests_is_on_the_processor_all_the_same():
    assert tiny_model().engine.device.type == "cpu"
