import json
import threading

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from tailorbird.errors import InputError, IntegrityError, NotFound, RequestError, Unsupported
from tailorbird.models.causal import usable_context
from tailorbird.models.engine import Engine
from tailorbird.models.local import LocalWeights
from tailorbird.records import Message, Request, Sampling
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.models import check_model
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_tokenizer

DATA = tiny_data()
ASKED = [DATA.task.ask(example) for example in DATA.test]
FREE = Request((Message("user", "Where is my parcel?"),), Sampling(max_tokens=12))
QUICK = FineTune(rank=4, epochs=2, learning_rate=1e-2)


def logits(engine, adapter):
    ids = torch.tensor([list(range(3, 40))])
    with engine.using(adapter), torch.no_grad():
        return engine.model(ids).logits


def chances(answers):
    return torch.tensor([list((a.probabilities or {}).values()) for a in answers])


@pytest.fixture(scope="module")
def tuned():
    return QUICK.apply(tiny_model(), DATA)


def test_the_tiny_model_keeps_the_models_contract():
    check_model(tiny_model())


def test_an_adapted_model_keeps_the_models_contract(tuned):
    check_model(tuned)


def test_two_adapters_and_the_base_interleaved_answer_as_each_does_in_an_engine_of_its_own():
    others = FineTune(rank=8, epochs=2, learning_rate=1e-2, seed=1)
    alone = [
        m.answer([*ASKED, FREE])
        for m in (tiny_model(), QUICK.apply(tiny_model(), DATA), others.apply(tiny_model(), DATA))
    ]
    base = tiny_model()
    models = [base, QUICK.apply(base, DATA), others.apply(base, DATA)]
    assert len({model.answer([FREE])[0].text for model in models}) > 1
    for index, request in enumerate([*ASKED, FREE]):
        for model, expected in zip(models, alone, strict=True):
            answer = model.answer([request])[0]
            assert answer.text == expected[index].text
            assert chances([answer]).numpy() == pytest.approx(chances([expected[index]]).numpy(), abs=1e-4)


def test_an_adapter_that_is_not_loaded_is_an_error_and_never_the_bases_answer():
    model = tiny_model()
    lost = LocalWeights("lost", model.engine, adapter="adapter999")
    with pytest.raises(NotFound, match=r"'adapter999' is not loaded.*Load the model again"):
        lost.answer([FREE])
    with pytest.raises(NotFound):
        list(lost.stream(FREE))


def test_a_saved_and_loaded_adapter_gives_the_same_logits(tuned, tmp_path):
    tuned.engine.save_adapter(tuned.adapter, tmp_path)
    fresh = tiny_model().with_adapter(tmp_path)
    found, expected = logits(fresh.engine, fresh.adapter), logits(tuned.engine, tuned.adapter)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(expected, logits(tuned.engine, None), atol=1e-2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_itself_loads_our_adapter_and_gives_the_same_logits(tuned, tmp_path):
    tuned.engine.save_adapter(tuned.adapter, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_model().engine.model, str(tmp_path)).eval()
    with torch.no_grad():
        found = theirs(torch.tensor([list(range(3, 40))])).logits
    assert torch.allclose(found, logits(tuned.engine, tuned.adapter), atol=1e-5)


def test_an_adapter_for_a_model_of_other_sizes_is_refused_and_leaves_nothing_behind(tuned, tmp_path):
    tuned.engine.save_adapter(tuned.adapter, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({k: v[:, :-1].contiguous() for k, v in load_file(file).items()}, file)
    model = tiny_model()
    before = logits(model.engine, None)
    with pytest.raises(IntegrityError, match=r"do not fit this base model.*trained on another one"):
        model.with_adapter(tmp_path)
    assert torch.equal(logits(model.engine, None), before)
    assert not [name for name, _ in model.engine.model.named_parameters() if ".adapter" in name]
    assert QUICK.apply(model, DATA).answer([FREE])


@pytest.mark.parametrize("change", ["one_missing", "one_more"])
def test_an_adapter_whose_tensors_are_not_all_applied_is_refused(tuned, tmp_path, change):
    tuned.engine.save_adapter(tuned.adapter, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    if change == "one_missing":
        del tensors[name]
    else:
        tensors[name.replace("layers.0", "layers.7")] = tensors[name].clone()
    save_file(tensors, file)
    with pytest.raises(IntegrityError, match="do not fit this base model"):
        tiny_model().with_adapter(tmp_path)


def test_a_folder_without_an_adapter_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no adapter_model.safetensors there"):
        tiny_model().with_adapter(tmp_path)


def test_a_removed_adapter_gives_its_memory_back_and_the_others_stay():
    base = tiny_model()
    first, second = QUICK.apply(base, DATA), QUICK.apply(base, DATA)
    expected = first.answer(ASKED)
    base.engine.remove_adapter(second.adapter)
    assert not [n for n, _ in base.engine.model.named_parameters() if f".{second.adapter}." in n]
    assert chances(first.answer(ASKED)).numpy() == pytest.approx(chances(expected).numpy(), abs=1e-6)
    with pytest.raises(NotFound):
        second.answer([FREE])


def test_a_saved_base_is_without_adapters_and_gives_the_same_logits(tuned, tmp_path):
    tuned.engine.save(tmp_path)
    loaded = Engine.load(tmp_path)
    assert torch.allclose(logits(loaded, None), logits(tuned.engine, None), atol=1e-6)
    assert loaded.template.context == tuned.engine.template.context
    assert loaded.fingerprint() == tuned.engine.fingerprint() == tiny_model().engine.fingerprint()
    assert loaded.fingerprint() != tiny_model(seed=1).engine.fingerprint()
    assert LocalWeights("again", loaded).answer([FREE])[0].text == tiny_model().answer([FREE])[0].text


def test_a_folder_that_is_no_model_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no config.json there"):
        Engine.load(tmp_path)


def test_a_model_whose_files_are_cut_off_cannot_be_loaded(tmp_path):
    tiny_model().engine.save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="transformers cannot load this model"):
        Engine.load(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_model_whose_files_lack_tensors_is_refused_and_not_filled_with_noise(tmp_path):
    tiny_model().engine.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"tensors of the model are not in its files.*'model.layers.2"):
        Engine.load(tmp_path)


def test_a_model_with_recurrent_layers_is_unsupported():
    model = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4))
    with pytest.raises(Unsupported, match=r"'mamba'.*cannot run exactly.*serve this one elsewhere"):
        Engine(model, tiny_tokenizer())


def test_a_sliding_window_ends_the_context():
    sizes = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = MistralForCausalLM(
        MistralConfig(**sizes, **heads, sliding_window=64, max_position_embeddings=256)
    )
    assert usable_context(model) == 64
    assert (
        usable_context(tiny_model().engine.model)
        == LlamaConfig(max_position_embeddings=512).max_position_embeddings
    )


def test_one_request_after_another_uses_the_engine_from_many_threads(tuned):
    base = LocalWeights("base", tuned.engine)
    expected = {m: m.answer([*ASKED[:4], FREE]) for m in (base, tuned)}
    wrong = []

    def ask(model):
        for _ in range(4):
            found = model.answer([*ASKED[:4], FREE])
            if [a.text for a in found] != [a.text for a in expected[model]]:
                wrong.append(model.name)
            if "".join(model.stream(FREE)) != expected[model][-1].text:
                wrong.append(f"{model.name} streamed")

    threads = [threading.Thread(target=ask, args=(model,)) for model in (base, tuned) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stream_that_nobody_reads_on_keeps_nobody_waiting(tuned):
    base = LocalWeights("base", tuned.engine)
    expected = base.answer([FREE])[0].text
    stream = base.stream(FREE)
    pieces = [next(stream)]
    done = []
    thread = threading.Thread(target=lambda: done.append(tuned.answer([FREE])[0].text))
    thread.start()
    thread.join(timeout=20)
    assert done == [tuned.answer([FREE])[0].text]
    reader = threading.Thread(target=lambda: pieces.extend(stream))
    reader.start()
    reader.join(timeout=20)
    assert "".join(pieces) == expected


def test_gradients_can_be_computed_while_a_stream_is_read():
    stream = tiny_model().stream(FREE)
    next(stream)
    weight = torch.ones(2, requires_grad=True)
    (weight * 3).sum().backward()
    assert weight.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("choices", [(), ("",), ("a", " "), ("a", "a")])
def test_a_closed_set_that_is_none_is_refused(choices):
    with pytest.raises(RequestError, match="choices: "):
        tiny_model().answer([Request((Message("user", "x"),), choices=choices)])


def test_a_single_choice_is_answered_without_asking_the_weights():
    answer = tiny_model().answer([Request((Message("user", "x"),), choices=("only",))])[0]
    assert (answer.text, answer.finish_reason, answer.usage.input_tokens) == ("only", "choice", 0)
    assert answer.probabilities == {"only": 1.0}
