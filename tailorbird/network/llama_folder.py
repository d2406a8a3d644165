"""Our decoder as a Hugging Face Llama folder, and back: config.json and safetensors, the same numbers.

A folder written here is read by transformers, vLLM and llama.cpp's converter, as a `LlamaForCausalLM`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tailorbird.errors import IntegrityError, NotFound, Unsupported
from tailorbird.network.decoder import Decoder, DecoderShape

LLAMA_NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
"""Our names of modules (inside a block, or of the whole) to Hugging Face's."""


def llama_name(name: str) -> str:
    """The Hugging Face name of one of our weights.

    >>> llama_name("blocks.3.attention.query.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    module = name.removesuffix(".weight")
    if not module.startswith("blocks."):
        return f"{LLAMA_NAMES[module]}.weight"
    _, number, inner = module.split(".", 2)
    return f"model.layers.{number}.{LLAMA_NAMES[inner]}.weight"


def to_llama(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's weights under Hugging Face's names; the tensors are the decoder's own."""
    return {llama_name(name): weight.detach() for name, weight in decoder.named_parameters()}


def llama_config(
    shape: DecoderShape, *, bos_id: int | None = None, eos_id: int | None = None, pad_id: int | None = None
) -> dict[str, Any]:
    """What config.json says about a decoder of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        # Readers older than transformers 5 look for rope_theta at the top.
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "dtype": "float32",
    }


def save_llama(
    decoder: Decoder,
    folder: Path,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
    pad_id: int | None = None,
) -> None:
    """Write the decoder into `folder` (made if absent) as config.json and model.safetensors in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = llama_config(decoder.shape, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name: weight.float().cpu().contiguous() for name, weight in to_llama(decoder).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def from_llama_folder(folder: Path) -> Decoder:
    """The decoder of a Hugging Face Llama folder, in float32 on the CPU.

    Raises:
        NotFound: there is no config.json or no safetensors file.
        Unsupported: the folder holds another architecture, or a Llama with parts that ours lacks.
        IntegrityError: weights are missing or of another shape than the config says.
    """
    config_file = folder / "config.json"
    files = sorted(folder.glob("*.safetensors"))
    if not config_file.is_file() or not files:
        raise NotFound(f"{folder} is no saved decoder: expected config.json and a .safetensors file in it.")
    shape = llama_shape(json.loads(config_file.read_text(encoding="utf-8")), str(config_file))
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= load_file(file)
    decoder = Decoder(shape)
    copy_weights(decoder, weights, str(folder))
    return decoder


def llama_shape(config: dict[str, Any], where: str) -> DecoderShape:
    """The shape that a config.json describes; `where` names it in errors."""
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads = int(config["num_attention_heads"])
    expected: dict[str, tuple[Any, Any]] = {
        "model_type": (config.get("model_type"), "llama"),
        "hidden_act": (config.get("hidden_act", "silu"), "silu"),
        "attention_bias": (config.get("attention_bias", False), False),
        "mlp_bias": (config.get("mlp_bias", False), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "head_dim": (
            config.get("head_dim") or config["hidden_size"] // heads,
            config["hidden_size"] // heads,
        ),
    }
    for key, (got, wanted) in expected.items():
        if got != wanted:
            raise Unsupported(
                f"{where}: {key} is {got!r}, but our decoder has only {wanted!r}. "
                "Load this model through transformers instead."
            )
    return DecoderShape(
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        feed_forward=config["intermediate_size"],
        context=config["max_position_embeddings"],
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        tied_embeddings=config.get("tie_word_embeddings", False),
        norm_eps=config["rms_norm_eps"],
    )


@torch.no_grad()
def copy_weights(decoder: Decoder, weights: dict[str, Tensor], where: str) -> None:
    """Fill the decoder from weights under Hugging Face's names; more weights than needed are ignored."""
    for name, parameter in decoder.named_parameters():
        stored = weights.get(llama_name(name))
        if stored is None or stored.shape != parameter.shape:
            got = "nothing" if stored is None else f"shape {tuple(stored.shape)}"
            raise IntegrityError(
                f"{where}: weight {llama_name(name)!r} should have shape {tuple(parameter.shape)}, but "
                f"there is {got}. The folder is incomplete or its config.json belongs to another model."
            )
        parameter.copy_(stored)
