"""In four bits an adapter is a file of its own, and llama.cpp puts it on the base as PEFT does."""

from dataclasses import replace

import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from peft import LoraConfig
from test_gguf_export import SHAPES, random_weights

from tailorbird.errors import IntegrityError, ReplayMismatch
from tailorbird.models.blank import Blank
from tailorbird.models.exports import export, gguf_adapter
from tailorbird.models.exports.export import export_model
from tailorbird.models.exports.llama_process import ask_gguf
from tailorbird.models.exports.replay import Asked
from tailorbird.models.local import new_adapter_name
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = tiny_data()
BOTH = ("Modelfile", "replay.json", "tiny-adapter.gguf", "tiny-base.gguf")
ON_16_BITS = "export as f16, replayed through xllamacpp .* with the adapter on a base in 16 bits: "


@pytest.fixture(scope="module")
def tuned():
    return FineTune(rank=8, epochs=10, learning_rate=1e-2).apply(tiny_model(), DATA)


def in_four_bits(model, out):
    return export_model(model, DATA.task, DATA.dev, out, form="gguf", name="tiny", dtype="q4")


def with_random_adapter(weights, **settings):
    """LoRA layers whose B is not zero."""
    adapter = new_adapter_name()
    config = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights.engine.add_adapter(adapter, config)
    return replace(weights, adapter=adapter)


def test_the_adapter_is_written_beside_the_base_in_16_bits(tuned, tmp_path):
    found = in_four_bits(tuned, tmp_path / "out")
    assert found.files == BOTH
    assert found.replay.alike == len(DATA.dev)
    assert found.replay.from_model < found.replay.from_base / 4
    reader = GGUFReader(tmp_path / "out" / "tiny-adapter.gguf")
    told = {name: field.contents() for name, field in reader.fields.items()}
    assert (told["general.type"], told["adapter.type"]) == ("adapter", "lora")
    assert (told["general.architecture"], told["adapter.lora.alpha"]) == ("llama", 16.0)
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}
    base = {t.name: list(t.shape) for t in GGUFReader(tmp_path / "out" / "tiny-base.gguf").tensors}
    inputs, outputs = base["blk.0.ffn_down.weight"]
    assert shapes["blk.0.ffn_down.weight.lora_a"] == [inputs, 8]
    assert shapes["blk.0.ffn_down.weight.lora_b"] == [8, outputs]
    assert len(shapes) == 2 * 7 * tuned.engine.model.config.num_hidden_layers
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F16"}


def test_the_base_alone_answers_as_the_base_and_with_the_adapter_as_the_model(tuned, tmp_path):
    in_four_bits(tuned, tmp_path / "out")
    base, adapter = tmp_path / "out" / "tiny-base.gguf", tmp_path / "out" / "tiny-adapter.gguf"
    requests = [DATA.task.ask(example) for example in DATA.dev]
    asked = [
        Asked(
            tuple({"role": m.role, "content": m.content} for m in tuned.engine.template.messages(request)),
            request.choices,
            1,
            (),
            "<|im_end|>",
        )
        for request in requests
    ]
    bare, whole = ([a.probabilities for a in ask_gguf(base, 512, asked, file)] for file in (None, adapter))
    for theirs, model in ((bare, replace(tuned, adapter=None)), (whole, tuned)):
        for answer, ours in zip(theirs, model.answer(requests), strict=True):
            assert answer == pytest.approx(ours.probabilities, abs=0.15)
    assert max(abs(a["order"] - b["order"]) for a, b in zip(bare, whole, strict=True)) > 0.3


@pytest.mark.parametrize(
    "shape", ["untied_head", "wide_heads", "biases", "rope_of_llama_3", "qwen2", "qwen3"]
)
def test_adapters_of_every_architecture_answer_in_llama_cpp_as_here(shape, tmp_path, monkeypatch):
    """On a base in 16 bits, since four change random weights more than so short a training does."""
    monkeypatch.setitem(export.gguf_export.TYPES, "q4", export.gguf_export.TYPES["f16"])
    weights = random_weights(*SHAPES[shape])
    model = FineTune(rank=4, epochs=1, learning_rate=1e-2).apply(weights, DATA)
    found = in_four_bits(model, tmp_path / "out")
    assert found.files == BOTH
    assert found.replay.alike == len(DATA.dev)
    assert found.replay.largest_difference < 0.02


def test_ranks_that_differ_and_scalings_by_their_root_are_kept(tmp_path):
    model = with_random_adapter(
        tiny_model(),
        lora_alpha=2,
        use_rslora=True,
        target_modules="all-linear",
        rank_pattern={"q_proj": 2, "down_proj": 6},
    )
    assert in_four_bits(model, tmp_path / "out").files == BOTH
    shapes = {t.name: list(t.shape) for t in GGUFReader(tmp_path / "out" / "tiny-adapter.gguf").tensors}
    assert shapes["blk.0.attn_q.weight.lora_b"][0] == 2
    assert shapes["blk.0.ffn_down.weight.lora_b"][0] == 6


def test_a_layer_without_a_weight_of_its_own_is_refused(tuned, tmp_path, monkeypatch):
    changes = gguf_adapter.adapter_changes(tuned)
    head = changes["model.layers.0.self_attn.q_proj.weight"]
    monkeypatch.setattr(gguf_adapter, "adapter_changes", lambda weights: {**changes, "lm_head.weight": head})
    with pytest.raises(IntegrityError, match=r"'lm_head.weight' and 0 others .* cannot be exported"):
        in_four_bits(tuned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("alpha", [0.0, 8.0, 32.0])
def test_a_wrong_alpha_is_blocked(tuned, tmp_path, monkeypatch, alpha):
    add = GGUFWriter.add_float32

    def add_wrong(self, key, value):
        add(self, key, alpha if key == "adapter.lora.alpha" else value)

    monkeypatch.setattr(GGUFWriter, "add_float32", add_wrong)
    with pytest.raises(ReplayMismatch, match=ON_16_BITS):
        in_four_bits(tuned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_whose_query_heads_are_in_the_wrong_order_is_blocked(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_adapter, "as_llama_cpp_has_it", lambda key, tensor, config: tensor)
    with pytest.raises(ReplayMismatch, match=ON_16_BITS):
        in_four_bits(tuned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_base_in_four_bits_that_answers_otherwise_is_blocked_though_the_adapter_is_right(
    tuned, tmp_path, monkeypatch
):
    write = export.gguf_export.write_gguf

    def write_other(weights, folder, path, dtype, *, name):
        write(
            weights if dtype == "f16" else other, folder if dtype == "f16" else wrong, path, dtype, name=name
        )

    other, wrong = tiny_model(5), tmp_path / "wrong"
    other.engine.save(wrong)
    monkeypatch.setattr(export.gguf_export, "write_gguf", write_other)
    with pytest.raises(ReplayMismatch, match=r"export as q4, replayed through xllamacpp [\d.]+: "):
        in_four_bits(tuned, tmp_path / "out")


def test_an_adapter_that_llama_cpp_cannot_load_is_blocked(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_adapter, "architecture_of", lambda config: "qwen2")
    with pytest.raises(ReplayMismatch, match=r"llama\.cpp cannot answer from the file \(exit code -?\d+"):
        in_four_bits(tuned, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_an_adapter_four_bits_are_one_file(tmp_path):
    scratch = FromScratch(depth=1, vocab_size=300, context=256, text_epochs=1, epochs=1).apply(Blank(), DATA)
    for name, model in (("base", tiny_model()), ("scratch", scratch)):
        found = in_four_bits(model, tmp_path / name)
        assert found.files == ("Modelfile", "replay.json", "tiny.gguf")
        assert not any("two files" in note for note in found.notes)
