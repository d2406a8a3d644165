"""GGUF files of every architecture that we write answer in llama.cpp as they do in transformers."""

import pytest
import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tailorbird.errors import NotFound, Unsupported
from tailorbird.models.chat_template import ChatTemplate
from tailorbird.models.engine import Engine
from tailorbird.models.exports import gguf_export
from tailorbird.models.exports.export import export_model
from tailorbird.models.exports.gguf_tokenizer import _WORDS_OF_LLAMA_3, _WORDS_OF_QWEN_2, pre_tokenizer_name
from tailorbird.models.exports.llama_process import ask_gguf
from tailorbird.models.exports.replay import Asked
from tailorbird.models.gguf_file import converted, starter_file
from tailorbird.models.local import LocalWeights
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_tokenizer

DATA = tiny_data()
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
SHAPES = {
    "llama": ("llama", {}),
    "untied_head": ("llama", {"tie_word_embeddings": False}),
    "wide_heads": ("llama", {"head_dim": 32}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "rope_of_llama_3": ("llama", {"rope_parameters": LLAMA_3}),
    "linear_rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": 300}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
}


def random_weights(kind, settings, tokenizer=None):
    """Small weights whose norms and biases matter, with 16 rows more than the tokenizer has tokens."""
    tokenizer = tokenizer or tiny_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer) + 16, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **settings}))
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                torch.nn.init.normal_(parameter, float("norm" in name), 0.2)
    return LocalWeights(kind, Engine(model, tokenizer))


@pytest.mark.parametrize(("kind", "settings"), SHAPES.values(), ids=SHAPES.keys())
def test_every_architecture_answers_in_llama_cpp_as_here(kind, settings, tmp_path):
    model = FineTune(rank=4, epochs=1, learning_rate=1e-2).apply(random_weights(kind, settings), DATA)
    found = export_model(model, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t", dtype="f16")
    assert found.replay.alike == len(DATA.dev)
    assert found.replay.largest_difference < 0.02
    reader = GGUFReader(tmp_path / "out" / "t.gguf")
    assert ("output.weight" in {t.name for t in reader.tensors}) == (
        settings.get("tie_word_embeddings") is False
    )
    context = reader.fields[f"{gguf_export.ARCHITECTURES[kind]}.context_length"].contents()
    assert context == settings.get("sliding_window", 512)


@pytest.mark.parametrize(
    ("dtype", "matrix", "ends"), [("f16", "F16", "F16"), ("q8_0", "Q8_0", "Q8_0"), ("q4", "Q4_1", "Q8_0")]
)
def test_matrices_ends_and_vectors_have_their_types(dtype, matrix, ends, tmp_path):
    weights = tiny_model()
    export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t", dtype=dtype)
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "out" / "t.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == kinds["blk.1.attn_q.weight"] == matrix
    assert kinds["token_embd.weight"] == ends
    assert kinds["output_norm.weight"] == "F32"


def test_rows_that_make_no_whole_blocks_stay_in_float16(tmp_path):
    weights = random_weights("llama", {"intermediate_size": 72})
    export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t", dtype="q8_0")
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "out" / "t.gguf").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


REFUSED = {
    "gpt2": (
        "gpt2",
        {},
        r"model type 'gpt2': .* for llama, mistral, qwen2, qwen3 only\. Export to safetensors",
    ),
    "yarn": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
        r"rotary embedding .*'yarn'.* types default, linear and llama3",
    ),
}


@pytest.mark.parametrize(("kind", "settings", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_written_correctly_is_refused_before_any_work(kind, settings, told, tmp_path):
    weights = random_weights(kind, settings)
    with pytest.raises(Unsupported, match=told):
        export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t")
    assert list(tmp_path.iterdir()) == []
    found = export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="safetensors", name="t")
    assert found.replay.alike == len(DATA.dev)


def byte_level(*first, by_regex):
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_regex)
    return pre_tokenizers.Sequence([*first, last]) if first else last


def split(words):
    return pre_tokenizers.Split(Regex(words), "isolated")


PRE_TOKENIZERS = {
    "gpt-2": byte_level(by_regex=True),
    "smollm": byte_level(pre_tokenizers.Digits(individual_digits=True), by_regex=True),
    "llama-bpe": byte_level(split(_WORDS_OF_LLAMA_3), by_regex=False),
    "qwen2": byte_level(split(_WORDS_OF_QWEN_2), by_regex=False),
}
ODD_TEXTS = (
    "it's  THE'LL don't\n\n\n  x ", "日本語 🚲é ٣٤ 12,500.00€\t\t!", "I'Ll We'VE !!?\r\n\r\na", "12345 1234567",
    " leading", "\u00a0x\u2003y", "a\u0301e\u0301", "def f(x):\n    return x**2  # ok", "",
)  # fmt: skip


def tokenizer_with(pre):
    """Digits, blanks and letters are merged wherever the pre-tokenizer leaves them together."""
    from tokenizers import models, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre
    backend.decoder = tiny_tokenizer().backend_tokenizer.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([*ODD_TEXTS, *(e.prompt for e in DATA.train)] * 5, trainer)
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = tiny_tokenizer().chat_template
    return tokenizer


@pytest.mark.parametrize(("name", "pre"), PRE_TOKENIZERS.items(), ids=PRE_TOKENIZERS.keys())
def test_llama_cpp_cuts_texts_as_the_tokenizer_does(name, pre, tmp_path):
    tokenizer = tokenizer_with(pre)
    weights = random_weights("llama", {}, tokenizer)
    found = export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t", dtype="f16")
    assert found.replay.alike == len(DATA.dev)
    file = tmp_path / "out" / "t.gguf"
    assert GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == name
    texts = (*ODD_TEXTS, "a <tool> b")
    asked = [Asked(({"role": "user", "content": text},), None, 1, (), "<|im_end|>") for text in texts]
    answers = ask_gguf(file, 512, asked)
    for text, answer in zip(texts, answers, strict=True):
        chat = [{"role": "user", "content": text}]
        own = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert list(answer.prompt) == own, repr(text)


@pytest.mark.parametrize(
    "pre",
    [
        None,
        pre_tokenizers.Whitespace(),
        byte_level(split(r"\w+"), by_regex=False),
        byte_level(pre_tokenizers.Digits(individual_digits=False), by_regex=True),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
    ],
)
def test_a_tokenizer_without_a_counterpart_is_refused(pre, tmp_path):
    weights = tiny_model()
    backend = weights.engine.tokenizer.backend_tokenizer
    if pre is None:
        backend.pre_tokenizer = pre_tokenizers.Sequence([])
    else:
        backend.pre_tokenizer = pre
    with pytest.raises(
        Unsupported, match=r"tokenizer: BPE after pre-tokenizers .* Export to safetensors instead"
    ):
        export_model(weights, DATA.task, DATA.dev, tmp_path / "out", form="gguf", name="t")


@pytest.mark.slow
def test_the_starters_metadata_are_those_of_its_own_file(tmp_path):
    from gguf import GGUFWriter

    from tailorbird.models.exports.gguf_tokenizer import write_tokenizer

    try:
        own = GGUFReader(starter_file())
    except NotFound as error:
        pytest.skip(str(error))
    tokenizer = AutoTokenizer.from_pretrained(converted(starter_file()))
    writer = GGUFWriter(tmp_path / "t.gguf", "llama")
    write_tokenizer(writer, tokenizer, ChatTemplate(tokenizer, 8192), 49_152)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    written = GGUFReader(tmp_path / "t.gguf")
    names = {name for name in own.fields if name.startswith("tokenizer.")}
    assert names <= set(written.fields)
    differ = {n for n in names if own.fields[n].contents() != written.fields[n].contents()}
    # As transformers reads that file, digits are not cut off first, so two blanks before one stay two tokens. An
    # export cuts texts as they were measured.
    assert differ == {"tokenizer.ggml.pre"}
    assert written.fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_a_tokenizer_that_is_no_bpe_is_refused():
    described = {"model": {"type": "Unigram"}, "normalizer": None, "pre_tokenizer": None}
    with pytest.raises(Unsupported, match="tokenizer: Unigram"):
        pre_tokenizer_name(described)
