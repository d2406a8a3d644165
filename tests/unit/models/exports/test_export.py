"""Every format is written, replayed through the artefact by its own engine, and only then put in place."""

import json
import os
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer

from tailorbird.errors import InputError, ReplayMismatch, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.exports import export, gguf_adapter, llama_process, merged
from tailorbird.models.exports.export import export_model
from tailorbird.models.exports.replay import TOLERANCES, Answered, prompts_of, replay, tolerance_for
from tailorbird.models.floors import Majority
from tailorbird.models.local import open_local
from tailorbird.models.model import Wrapped
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Message
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.techniques.linear_prior import LinearPrior
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA, QUESTIONS = tiny_data(), tiny_questions()
EACH = [
    ("safetensors", "f32"), ("safetensors", "bf16"), ("safetensors", "f16"), ("gguf", "f16"), ("gguf", "q8_0"),
    ("gguf", "q4"), ("vllm", "f32"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tuned():
    return FineTune(rank=8, epochs=10, learning_rate=1e-2).apply(tiny_model(), DATA)


def exported(model, out, form, dtype=None, data=DATA, **options):
    return export_model(model, data.task, data.dev, out, form=form, dtype=dtype, name="tiny", **options)


@pytest.mark.parametrize(("form", "dtype"), EACH)
def test_a_fine_tuned_model_answers_alike_in_every_format(tuned, tmp_path, form, dtype):
    found = exported(tuned, tmp_path / "out", form, dtype)
    assert found.replay.alike == len(found.replay.answers) == len(DATA.dev)
    written = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert written["alike"] == written["examples"] == len(DATA.dev)
    assert written["prompts_of_other_tokens"] == 0
    assert written["engine"].startswith("xllamacpp" if form == "gguf" else "transformers")
    assert [a["question"] for a in written["answers"]] == [e.prompt for e in DATA.dev]
    assert set(found.files) == {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("form", "dtype"), [("safetensors", "f32"), ("gguf", "f16")])
def test_free_answers_are_the_same_token_by_token(tmp_path, form, dtype):
    found = exported(tiny_model(), tmp_path / "out", form, dtype, data=QUESTIONS)
    assert [a.likeness for a in found.replay.answers] == [1.0] * len(QUESTIONS.dev)
    assert all(a.ours == a.theirs != "" for a in found.replay.answers)
    assert found.replay.largest_difference is None


@pytest.mark.parametrize("form", ["gguf", "safetensors"])
def test_labels_that_begin_others_are_told_apart(tmp_path, form):
    labels = ("order", "order parcel", "order parcel now", "pay", "payment", "zé東 5")
    task = replace(DATA.task, labels=labels)
    found = export_model(
        tiny_model(3), task, DATA.dev, tmp_path / "out", form=form, name="t", dtype={"gguf": "f16"}.get(form)
    )
    assert found.replay.largest_difference < 0.01


def test_the_merged_folder_needs_nothing_of_ours_and_has_the_adapters_effect(tuned, tmp_path):
    exported(tuned, tmp_path / "out", "safetensors")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([tuned.engine.template.prompt(DATA.task.ask(DATA.test[0])).ids])
    with torch.inference_mode(), tuned.engine.using(tuned.adapter):
        expected = tuned.engine.model(ids).logits
    with torch.inference_mode(), tuned.engine.using(None):
        base = tuned.engine.model(ids).logits
    assert plain(ids).logits.sub(expected).abs().max() < 1e-4
    assert base.sub(expected).abs().max() > 0.1
    assert tokenizer.chat_template == tuned.engine.tokenizer.chat_template
    assert plain.generation_config.eos_token_id == sorted(tuned.engine.template.stop_ids)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["dtype"], config["rope_theta"]) == ("float32", 10000.0)
    described = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_merging_leaves_the_model_as_it_was(tuned, tmp_path):
    asked = [DATA.task.ask(e) for e in DATA.test]
    before = [a.probabilities for a in tuned.answer(asked)]
    exported(tuned, tmp_path / "out", "gguf", "f16")
    assert [a.probabilities for a in tuned.answer(asked)] == before


def test_weights_made_from_scratch_are_exported_with_their_own_tokenizer(tmp_path):
    model = FromScratch(depth=1, vocab_size=300, context=256, text_epochs=1, epochs=1).apply(Blank(), DATA)
    for form in ("gguf", "safetensors"):
        found = exported(model, tmp_path / form, form)
        assert found.replay.alike == len(DATA.dev)


def test_what_a_wrapper_adds_is_replayed_and_said_not_to_be_part_of_it(tuned, tmp_path):
    model = FewShot(k=2, select="fixed").apply(tuned, DATA)
    found = exported(model, tmp_path / "out", "gguf", "f16")
    assert any("The weights beneath few_shot are exported, not what" in note for note in found.notes)
    assert "MESSAGE assistant" in (tmp_path / "out" / "Modelfile").read_text()
    assert found.replay.alike == len(DATA.dev)


def test_a_prior_stays_behind_and_is_said_to(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)
    found = exported(LinearPrior(weight=4.0, trust=0.1).apply(tuned, DATA), tmp_path / "out", "safetensors")
    assert any(
        "linear_prior knows of the labels is not part of the weights: the export answers without it" in note
        for note in found.notes
    )
    assert not any("put before each request" in note for note in found.notes)
    assert found.replay.alike == len(DATA.dev)


def test_a_wrapper_that_leaves_the_first_example_as_it_is_is_named_all_the_same(tuned, tmp_path):
    @dataclass(frozen=True)
    class Masking:
        kind: ClassVar[str] = "masking"

        def __call__(self, request):
            return request

    found = exported(Wrapped(tuned, Masking()), tmp_path / "out", "safetensors")
    assert any(
        "The weights beneath masking are exported, not what is put before" in note for note in found.notes
    )


def test_an_adapter_with_the_wrong_sign_is_blocked_and_nothing_is_left(tuned, tmp_path, monkeypatch):
    changes = merged.adapter_changes
    for module in (merged, gguf_adapter):
        monkeypatch.setattr(
            module,
            "adapter_changes",
            lambda weights: {k: replace(v, b=-v.b) for k, v in changes(weights).items()},
        )
    for form, dtype in EACH:
        with pytest.raises(ReplayMismatch, match=r"Nothing was written\.") as error:
            exported(tuned, tmp_path / "out", form, dtype)
        assert "The most different of 12: '" in str(error.value)
        assert " here and '" in str(error.value)
        assert list(tmp_path.iterdir()) == []


def test_query_heads_in_the_wrong_order_are_blocked(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tailorbird.models.exports.gguf_export.as_llama_cpp_has_it", lambda key, tensor, config: tensor
    )
    with pytest.raises(ReplayMismatch, match=r"export as f16.* export to another format, and report this"):
        exported(tuned, tmp_path / "out", "gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_cuts_otherwise_is_blocked(tuned, tmp_path, monkeypatch):
    add = GGUFWriter.add_token_merges
    monkeypatch.setattr(GGUFWriter, "add_token_merges", lambda self, merges: add(self, merges[:10]))
    with pytest.raises(
        ReplayMismatch, match=r"its tokenizer cuts '.*' otherwise: \d+ tokens here, \d+ there"
    ):
        exported(tuned, tmp_path / "out", "gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_control_tokens_in_a_message_are_said_to_be_cut_otherwise(tuned, tmp_path):
    sneaky = replace(DATA.dev[0], messages=(Message("user", "late <|im_end|> parcel"),))
    found = export_model(
        tuned, DATA.task, [sneaky, *DATA.dev[1:]], tmp_path / "out", form="safetensors", name="t"
    )
    assert found.replay.other_tokens == 1
    assert found.notes[-1].startswith("1 of 12 prompts hold control tokens")


def test_a_file_that_llama_cpp_cannot_load_is_blocked(tuned, tmp_path, monkeypatch):
    write = export.gguf_export.write_gguf

    def write_half(weights, merged_folder, path, dtype, *, name):
        write(weights, merged_folder, path, dtype, name=name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    monkeypatch.setattr(export.gguf_export, "write_gguf", write_half)
    with pytest.raises(ReplayMismatch, match=r"llama.cpp cannot answer from the file \(exit code -?\d+"):
        exported(tuned, tmp_path / "out", "gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_llama_cpp_never_answers_from_is_blocked(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_process, "LONGEST_S", 0.01)
    with pytest.raises(ReplayMismatch, match=r"llama\.cpp did not answer within 0 s\. Nothing was written"):
        exported(tuned, tmp_path / "out", "gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_without_llama_cpp_a_gguf_file_is_not_written(tuned, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_process, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"'xllamacpp' is not installed.*pip install 'tailorbird\[gguf\]'"):
        exported(tuned, tmp_path / "out", "gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model",
    [Blank(), Majority(DATA.train), RemoteWeights("http://127.0.0.1:1/v1", "m")],
    ids=["blank", "floor", "url"],
)
def test_what_has_no_weights_here_is_refused(model, tmp_path):
    with pytest.raises(Unsupported, match="has no weights on this machine"):
        exported(model, tmp_path / "out", "gguf")


def test_unknown_formats_and_precisions_are_refused(tuned, tmp_path):
    with pytest.raises(
        InputError, match=r"--to 'onnx' is no format. Expected one of gguf, safetensors, vllm\."
    ):
        exported(tuned, tmp_path / "out", "onnx")
    with pytest.raises(InputError, match=r"--dtype 'f32' is none of gguf's. Expected one of f16, q8_0, q4\."):
        exported(tuned, tmp_path / "out", "gguf", "f32")
    with pytest.raises(InputError, match=r"no held-out examples were kept with it.*--examples FILE"):
        export_model(tuned, DATA.task, [], tmp_path / "out", form="gguf", name="t")


def test_a_folder_in_use_is_kept_unless_it_is_an_earlier_export(tuned, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    exported(tuned, out, "safetensors")
    with pytest.raises(InputError, match=r"the folder is not empty\. Give another one, or --replace"):
        exported(tuned, out, "safetensors")
    found = exported(tuned, out, "gguf", replace_old=True)
    assert not (out / "model.safetensors").exists()
    assert "tiny.gguf" in found.files
    (out / "replay.json").unlink()
    with pytest.raises(InputError, match=r"it holds no replay\.json, so it is no earlier export"):
        exported(tuned, out, "gguf", replace_old=True)
    with pytest.raises(InputError, match=r"OUT is a folder; the \.gguf file is put in it"):
        exported(tuned, tmp_path / "my.gguf", "gguf")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="there is a file of that name"):
        exported(tuned, tmp_path / "file", "gguf")


def test_an_adapter_that_is_more_than_lora_is_not_merged(tuned, tmp_path):
    tuned.engine.peft.peft_config[tuned.adapter].use_dora = True
    try:
        with pytest.raises(
            Unsupported, match="use_dora is True, and only plain LoRA can be exported exactly"
        ):
            exported(tuned, tmp_path / "out", "safetensors")
    finally:
        tuned.engine.peft.peft_config[tuned.adapter].use_dora = False
    assert list(tmp_path.iterdir()) == []


def test_a_vllm_folder_says_how_to_serve_it(tuned, tmp_path):
    exported(tuned, tmp_path / "out", "vllm")
    script = tmp_path / "out" / "serve.sh"
    assert os.access(script, os.X_OK)
    command = (
        "vllm serve . --served-model-name tiny --max-model-len 512 --dtype float32 "
        "--override-generation-config '{\"temperature\": 0.0}'"
    )
    assert command in script.read_text()
    assert command in (tmp_path / "out" / "README.md").read_text()
    assert DATA.task.instruction in (tmp_path / "out" / "README.md").read_text()


def test_a_hub_base_is_served_by_its_id_with_the_adapter_beside_it(tmp_path, monkeypatch):
    """A local hub cache stands in for the hub; everything after the download is real."""
    commit, place = "0" * 40, tmp_path / "hub" / "models--birds--tiny"
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    tiny_model().engine.save(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    model = FineTune(rank=8, epochs=10, learning_rate=1e-2).apply(open_local("hf:birds/tiny"), DATA)
    found = exported(model, tmp_path / "out", "vllm")
    assert found.replay.alike == len(DATA.dev)
    assert "model.safetensors" not in found.files
    assert "adapter/adapter_model.safetensors" in found.files
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "birds/tiny"
    command = (
        "vllm serve birds/tiny --served-model-name tiny-base --enable-lora --lora-modules tiny=./adapter"
    )
    assert f"{command} --max-lora-rank 8 --max-model-len 512" in (tmp_path / "out" / "serve.sh").read_text()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            lambda a: replace(a, text=min(a.probabilities, key=a.probabilities.get)),
            r"0% of the labels are the same",
        ),
        (
            lambda a: replace(a, probabilities=dict.fromkeys(a.probabilities, 1 / 3)),
            "a label's probability differs by",
        ),
        (lambda a: replace(a, prompt=(*a.prompt, 5)), r"cuts '.*' otherwise: \d+ tokens here, \d+ there"),
    ],
)
def test_each_rule_of_the_replay_blocks(tuned, other, told):
    prompts = prompts_of(tuned, tuned, DATA.task, DATA.dev)
    completions = tuned.answer([p.request for p in prompts])
    exact = [
        Answered(p.ids, c.text, dict(c.probabilities)) for p, c in zip(prompts, completions, strict=True)
    ]
    assert replay(tuned, prompts, lambda asked: exact, engine="itself", dtype="f32").from_model == 0
    with pytest.raises(ReplayMismatch, match=told):
        replay(tuned, prompts, lambda asked: [other(a) for a in exact], engine="itself", dtype="f32")


def test_answers_of_the_bare_base_are_blocked_even_where_rounding_could_explain_them(tuned):
    prompts = prompts_of(tuned, tuned, DATA.task, DATA.dev)
    bare = replace(tuned, adapter=None).answer([p.request for p in prompts])
    ours = tuned.answer([p.request for p in prompts])
    # Our own labels, so that the rule on labels is content, with the base's probabilities.
    theirs = [
        Answered(p.ids, mine.text, dict(base.probabilities))
        for p, mine, base in zip(prompts, ours, bare, strict=True)
    ]
    with pytest.raises(ReplayMismatch, match=r"nearer to the bare base's .* what was trained is lost"):
        replay(tuned, prompts, lambda asked: theirs, engine="itself", dtype="q4")


def test_free_answers_that_go_another_way_are_blocked():
    model = tiny_model()
    prompts = prompts_of(model, model, QUESTIONS.task, QUESTIONS.dev)
    theirs = [Answered(p.ids, "something else") for p in prompts]
    with pytest.raises(
        ReplayMismatch, match=r"0% of the answers' tokens are the same; expected at least 90%"
    ):
        replay(model, prompts, lambda asked: theirs, engine="itself", dtype="f16")


def test_the_coarser_of_two_precisions_sets_the_tolerance():
    assert tolerance_for("f32", "bf16") == TOLERANCES["bf16"]
    assert tolerance_for("q4", "f32") == TOLERANCES["q4"]
    assert list(TOLERANCES) == ["f32", "f16", "bf16", "q8_0", "q4"]
