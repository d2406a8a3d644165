"""Weights as one GGUF file, which llama.cpp and Ollama read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tailorbird.errors import IntegrityError, Unsupported
from tailorbird.models.exports.gguf_tokenizer import write_tokenizer

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter, TensorNameMap

    from tailorbird.models.local import LocalWeights

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Model types of transformers that can be written, and what they are called in GGUF."""

TYPES = {
    "f16": ("F16", "F16", "MOSTLY_F16"),
    "q8_0": ("Q8_0", "Q8_0", "MOSTLY_Q8_0"),
    "q4": ("Q4_1", "Q8_0", "MOSTLY_Q4_1"),
}
"""Our name: the type of matrices, of embedding and head, and of the file.

Q4_1 is the finest of the 4-bit types that the gguf package can write: 16 steps between the least and the
greatest of 32 weights. Embedding and head stay at 8 bits, since every token passes both.
"""


def write_gguf(weights: LocalWeights, merged: Path, path: Path, dtype: str, *, name: str) -> None:
    """Writes a GGUF file from a merged transformers folder in float32.

    Args:
        weights: whose tokenizer, template and config these are.
        merged: written by `merged.write_merged`.
        path: of the file.
        dtype: a key of `TYPES`.
        name: what the file says that the model is called.

    Raises:
        Unsupported: an architecture, a rotary embedding or a tokenizer that cannot be written correctly.
    """
    import gguf

    config = weights.engine.model.config
    architecture = architecture_of(config)
    matrices, ends, file_type = TYPES[dtype]
    writer = gguf.GGUFWriter(path, architecture, use_temp_file=True)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, weights)
    write_tokenizer(writer, weights.engine.tokenizer, weights.engine.template, config.vocab_size)
    if (factors := _rope_factors(config)) is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for tensor_name, tensor in _tensors(merged, config):
        wanted = ends if tensor_name in ("token_embd.weight", "output.weight") else matrices
        kind = _type_for(tensor, gguf.GGMLQuantizationType[wanted])
        writer.add_tensor(tensor_name, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_exportable(weights: LocalWeights) -> None:
    """Refuses, before any work, what could not be written correctly.

    Raises:
        Unsupported: see `write_gguf`.
    """
    import json

    from tailorbird.models.exports.gguf_tokenizer import pre_tokenizer_name

    config = weights.engine.model.config
    architecture_of(config)
    _rope_factors(config)
    pre_tokenizer_name(json.loads(weights.engine.tokenizer.backend_tokenizer.to_str()))


def architecture_of(config: Any) -> str:
    """What GGUF calls a model type of transformers.

    Raises:
        Unsupported: Tailorbird writes no GGUF of it.
    """
    if config.model_type not in ARCHITECTURES:
        raise Unsupported(
            f"model type {config.model_type!r}: Tailorbird writes GGUF for {', '.join(sorted(ARCHITECTURES))} only. "
            "Export to safetensors, and convert that with llama.cpp's own converter."
        )
    return ARCHITECTURES[config.model_type]


def _write_shape(writer: GGUFWriter, weights: LocalWeights) -> None:
    config = weights.engine.model.config
    rope = _rope(config)
    writer.add_block_count(config.num_hidden_layers)
    # Not what the config promises: beyond a sliding window the file would attend otherwise than the model.
    writer.add_context_length(weights.engine.template.context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_width(config))
    writer.add_value_length(_head_width(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(_head_width(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rope(config: Any) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", **(getattr(config, "rope_parameters", None) or {})}
    if (
        rope["rope_type"] not in ("default", "linear", "llama3")
        or rope.get("partial_rotary_factor", 1.0) != 1.0
    ):
        raise Unsupported(
            f"rotary embedding {rope}: Tailorbird writes the types default, linear and llama3 to GGUF. Export to "
            "safetensors instead."
        )
    return rope


def _rope_factors(config: Any) -> np.ndarray | None:
    """By how much each rotary frequency is divided, as Llama 3.1 has it: long waves by `factor`, short ones not."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = _head_width(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - share) / rope["factor"] + share)).astype(np.float32)


def gguf_names(config: Any) -> TensorNameMap:
    """From the names of tensors in transformers to those in GGUF."""
    import gguf

    architecture = architecture_of(config)
    known = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(known, config.num_hidden_layers)


def _tensors(merged: Path, config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor under its name in GGUF, in float32."""
    from safetensors import safe_open

    names = gguf_names(config)
    for file in sorted(merged.glob("*.safetensors")):
        with safe_open(str(file), "np") as stored:
            for key in stored.keys():  # noqa: SIM118 - a handle, no mapping
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise IntegrityError(
                        f"{file.name}: tensor {key!r} has no name in GGUF's {architecture_of(config)!r}. Export to "
                        "safetensors instead."
                    )
                yield name, as_llama_cpp_has_it(key, stored.get_tensor(key), config)


def as_llama_cpp_has_it(key: str, tensor: np.ndarray, config: Any) -> np.ndarray:
    """A tensor of transformers' name `key`, its rows in llama.cpp's order.

    Rotated pairs stand side by side in llama.cpp's Llama, half a head apart in transformers'.
    """
    if ARCHITECTURES[config.model_type] != "llama":
        return tensor
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
        key.split(".")[-2]
    )
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _type_for(tensor: np.ndarray, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors stay in float32; rows that don't fall into whole blocks, in float16."""
    import gguf

    if tensor.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if tensor.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
