"""What is trained: every method learns, is saved as others load it, and leaves the shared base alone."""

from dataclasses import replace

import pytest
import torch

from tailorbird.errors import RecipeError, Unsupported
from tailorbird.models.adapter_starts import start_at_inputs, start_at_weights
from tailorbird.models.exports.export import export_model
from tailorbird.models.folders import load_model, save_model
from tailorbird.models.local import open_local
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = tiny_data()
NO_DEV = replace(DATA, dev=())
ADAPTERS = ("rslora", "dora", "pissa", "eva")
METHODS = (*ADAPTERS, "qlora", "full")
RATE = 5e-3
QUICK = FineTune(rank=4, epochs=2, learning_rate=RATE)


def with_method(method, **settings):
    return replace(QUICK, method=method, **settings)


def layers(model):
    part = f".{model.adapter}."
    named = model.engine.model.named_parameters()
    return {name.replace(part, "."): p.detach().clone() for name, p in named if part in name}


def probabilities(model):
    return [dict(a.probabilities) for a in model.answer([DATA.task.ask(e) for e in DATA.test])]


def nearly_equal(found, expected, abs_=1e-5):
    return all(one == pytest.approx(other, abs=abs_) for one, other in zip(found, expected, strict=True))


@pytest.fixture
def base(tmp_path):
    tiny_model().engine.save(tmp_path / "base")
    return open_local(str(tmp_path / "base"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method):
    losses = []
    technique = with_method(method, epochs=12, rank=16, on_step=lambda r: losses.append(r.loss))
    technique.apply(tiny_model(), NO_DEV)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_every_method_comes_back_and_the_shared_base_answers_as_before(method, base, tmp_path):
    before = probabilities(base)
    model = with_method(method).apply(base, DATA)
    expected = probabilities(model)
    assert not nearly_equal(expected, before, 1e-3)
    assert nearly_equal(probabilities(base), before, 1e-6)
    save_model(model, tmp_path / "saved", task=DATA.task)
    assert (tmp_path / "saved" / "weights").exists() == (method in {"qlora", "full"})
    assert nearly_equal(probabilities(load_model(tmp_path / "saved", {}).model), expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_settings_train_the_same_weights(method):
    one, again = (probabilities(with_method(method).apply(tiny_model(), DATA)) for _ in range(2))
    assert one == again


class KilledError(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_of_every_method_goes_on_to_the_same_weights(method, tmp_path, monkeypatch):
    original = FineTune.settings
    monkeypatch.setattr(
        FineTune,
        "settings",
        lambda self, *n, **how: replace(original(self, *n, **how), checkpoint_every_steps=1),
    )
    expected = probabilities(with_method(method).apply(tiny_model(), DATA))
    technique, steps = with_method(method, checkpoint=tmp_path), []

    def kill(report):
        if report.step == 3:
            raise KilledError

    base = tiny_model()
    with pytest.raises(KilledError):
        replace(technique, on_step=kill).apply(base, DATA)
    assert not [n for n, _ in base.engine.model.named_parameters() if ".lora_" in n]
    resumed = replace(technique, on_step=lambda report: steps.append(report.step)).apply(base, DATA)
    assert steps == [4, 5, 6]
    assert probabilities(resumed) == expected


@pytest.mark.parametrize("method", ["rslora", "pissa", "eva", "full"])
def test_what_is_plain_lora_or_weights_is_exported(method, base, tmp_path):
    model = with_method(method).apply(base, DATA)
    found = export_model(model, DATA.task, DATA.dev, tmp_path / "out", form="safetensors", name="tiny")
    assert found.replay.alike == len(DATA.dev)


def test_layers_of_dora_are_not_merged(base, tmp_path):
    model = with_method("dora").apply(base, DATA)
    with pytest.raises(Unsupported, match=r"use_dora is True, and only plain LoRA can be exported exactly"):
        export_model(model, DATA.task, DATA.dev, tmp_path / "out", form="safetensors", name="tiny")


@pytest.mark.parametrize("method", [*ADAPTERS, "full"])  # four bits round what was learnt
def test_a_model_that_was_tuned_goes_on_from_what_it_learnt(method):
    first = FineTune(rank=4, epochs=12, learning_rate=RATE).apply(tiny_model(), NO_DEV)
    expected = probabilities(first)
    second = with_method(method, learning_rate=1e-9, epochs=1).apply(first, NO_DEV)
    assert nearly_equal(probabilities(second), expected, 1e-4)
    third = with_method(method).apply(first, NO_DEV)
    assert not nearly_equal(probabilities(third), expected, 1e-4)
    assert nearly_equal(probabilities(first), expected, 1e-6)


@pytest.mark.parametrize(("method", "scale"), [("lora", 2.0), ("rslora", 4.0), ("pissa", 2.0), ("eva", 2.0)])
def test_the_scale_is_by_the_rank_and_for_rslora_by_its_root(method, scale):
    model = FineTune(method=method, rank=4, epochs=1).apply(tiny_model(), NO_DEV)
    scales = {m.scaling[model.adapter] for m in model.engine.model.modules() if hasattr(m, "lora_A")}
    assert scales == {scale}


def lora_modules(engine):
    return {n: m for n, m in engine.model.named_modules() if hasattr(m, "lora_A")}


def test_pissa_trains_the_principal_directions_and_keeps_what_it_took_out_of_the_weights():
    untrained = FineTune(method="pissa", rank=4, on_estimate=lambda _: False).apply(tiny_model(), NO_DEV)
    for name, module in lora_modules(untrained.engine).items():
        a, b = module.lora_A[untrained.adapter].weight, module.lora_B[untrained.adapter].weight
        assert (a.shape[0], b.shape[1]) == (8, 8)
        U, S, Vh = torch.linalg.svd(module.base_layer.weight)
        principal = U[:, :4] * S[:4] @ Vh[:4]
        half = module.scaling[untrained.adapter] * b[:, :4] @ a[:4]
        W = module.base_layer.weight
        assert (W - half).norm() < 1.001 * (W - principal).norm(), name
        assert (b @ a).abs().max() < 1e-5
    trained = with_method("pissa").apply(tiny_model(), NO_DEV)
    for name, tensor in layers(untrained).items():
        now = layers(trained)[name]
        first, second = (now[:4], now[4:]) if "lora_A" in name else (now[:, :4], now[:, 4:])
        old = (tensor[:4], tensor[4:]) if "lora_A" in name else (tensor[:, :4], tensor[:, 4:])
        assert torch.equal(second, old[1])
        assert not torch.equal(first, old[0])


def test_eva_starts_at_the_directions_in_which_the_inputs_vary_most():
    model = tiny_model()
    random = FineTune(rank=4, on_estimate=lambda _: False).apply(model, NO_DEV)
    eva = FineTune(method="eva", rank=4, on_estimate=lambda _: False).apply(model, NO_DEV)
    template = model.engine.template
    held = {}
    with model.engine.using(None):
        hooks = [
            m.register_forward_pre_hook(lambda _, x, n=n: held.setdefault(n, []).append(x[0][0]))
            for n, m in lora_modules(model.engine).items()
        ]
        for example in DATA.train:
            ids = template.prompt(DATA.task.ask(example)).ids
            model.engine.network.hidden(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
    for name, module in lora_modules(model.engine).items():
        x = torch.cat(held[name]).detach()
        kept = {
            m.adapter: (x @ torch.linalg.qr(module.lora_A[m.adapter].weight.detach().T).Q).norm()
            for m in (random, eva)
        }
        most = torch.linalg.svdvals(x)[:4].norm()
        assert kept[eva.adapter] > 0.9 * most
        assert kept[eva.adapter] > kept[random.adapter]


@pytest.mark.parametrize("start", [start_at_weights, start_at_inputs])
def test_a_rank_beyond_a_layers_width_is_filled_up_at_random(start):
    method = "pissa" if start is start_at_weights else "eva"
    model = with_method(method, rank=80, epochs=1).apply(tiny_model(), NO_DEV)
    halves = 2 if method == "pissa" else 1
    for name, tensor in layers(model).items():
        if "lora_A" in name:
            assert tensor.shape[0] == halves * 80
            assert (tensor.abs().sum(dim=1) > 0).all()


def test_full_trains_every_weight_embeddings_included_at_a_tenth_of_the_rate():
    base = tiny_model()
    before = {n: p.detach().clone() for n, p in base.engine.model.named_parameters()}
    rates = []
    technique = FineTune(method="full", epochs=2, on_step=lambda r: rates.append(r.learning_rate))
    model = technique.apply(base, NO_DEV)
    assert max(rates) == pytest.approx(1e-4)
    assert (model.name, model.adapter, model.reference) == (base.name, None, None)
    after = dict(model.engine.model.named_parameters())
    assert after.keys() == before.keys()
    assert not [n for n, old in before.items() if torch.equal(after[n].detach(), old)]
    assert all(torch.equal(p.detach(), before[n]) for n, p in base.engine.model.named_parameters())


def test_full_of_layers_that_cannot_be_merged_is_refused():
    dora = with_method("dora").apply(tiny_model(), NO_DEV)
    with pytest.raises(Unsupported, match=r"use_dora is True, and only plain LoRA can be exported"):
        with_method("full").apply(dora, NO_DEV)


def test_a_method_that_there_is_not_is_refused():
    with pytest.raises(RecipeError, match=r"method is 'lorra'; expected one of \['lora', 'rslora', 'dora'"):
        FineTune(method="lorra")


def test_qlora_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("tailorbird.models.four_bits.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"needs bitsandbytes, and that is not installed here. Install it"):
        FineTune(method="qlora")


def test_qlora_is_not_shared_out():
    with pytest.raises(RecipeError, match=r"'qlora' with shard; layers in four bits can't be shared out"):
        FineTune(method="qlora", shard=True)


def test_qlora_holds_the_layers_in_four_bits_and_nothing_else(base):
    model = with_method("qlora").apply(base, NO_DEV)
    weights = {n: p for n, p in model.engine.model.named_parameters() if ".lora_" not in n}
    packed = {n for n, p in weights.items() if p.dtype == torch.uint8}
    assert packed == {n for n in weights if ".base_layer." in n}
    assert len(packed) == 14
    assert (model.name, model.reference, model.num_parameters) == (base.name, None, base.num_parameters)
    for name in packed:
        assert (
            2 * weights[name].numel()
            == dict(base.engine.model.named_parameters())[name.replace(".base_layer.", ".")].numel()
        )


def test_a_qlora_model_is_exported_as_what_its_four_bits_stand_for(base, tmp_path):
    model = with_method("qlora").apply(base, DATA)
    export_model(model, DATA.task, DATA.dev, tmp_path / "out", form="safetensors", name="tiny")
    merged = open_local(str(tmp_path / "out"))
    assert not hasattr(merged.engine.model.config, "quantization_config")
    assert nearly_equal(probabilities(merged), probabilities(model), 1e-4)


def test_qlora_goes_on_from_layers_that_are_merged_first(base):
    first = FineTune(rank=4, epochs=8, learning_rate=RATE).apply(base, NO_DEV)
    losses = []
    with_method("qlora", epochs=1, on_step=lambda r: losses.append(r.loss)).apply(first, NO_DEV)
    fresh = []
    with_method("qlora", epochs=1, on_step=lambda r: fresh.append(r.loss)).apply(base, NO_DEV)
    assert losses[0] < 0.8 * fresh[0]
