"""A model's weights once more, to be changed without changing those that other models share."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tailorbird.models.engine import Engine
from tailorbird.models.exports.merged import dtype_name, write_merged
from tailorbird.models.four_bits import require_four_bits
from tailorbird.models.local import LocalWeights


def own_copy(weights: LocalWeights, device: torch.device | None = None) -> LocalWeights:
    """The same weights in float32 in an engine of their own, an adapter merged into them.

    Args:
        weights: what is copied.
        device: where the copy is put; None is where the given ones are.

    Raises:
        Unsupported: the adapter is more than plain LoRA on linear layers.
    """
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        write_merged(weights, Path(folder), "f32")
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False
        )
    engine = weights.engine
    where: Any = device or engine.device
    own = Engine(model.to(where), engine.tokenizer, engine.template.context)
    return replace(weights, engine=own, reference=None, adapter=None)


def in_four_bits(weights: LocalWeights) -> LocalWeights:
    """The same weights, an adapter merged into them, in four bits in an engine of their own.

    Raises:
        Unsupported: bitsandbytes is missing, or the adapter is more than plain LoRA on linear layers.
    """
    require_four_bits()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    engine = weights.engine
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if engine.device.type == "cuda" else torch.float32,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_merged(weights, Path(folder), dtype_name(weights))
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=engine.model.dtype,
            quantization_config=how,
            device_map={"": engine.device},
            trust_remote_code=False,
        )
    own = Engine(model, engine.tokenizer, engine.template.context)
    return replace(weights, engine=own, reference=None, adapter=None)
