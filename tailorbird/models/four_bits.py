"""A base model in four bits: each weight of its layers is the nearest of 16 values, scaled by blocks of 64.

The sixteen lie at the quantiles of a normal distribution ("NF4"), and the blocks' scales are themselves kept
in eight bits (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3). Embeddings, norms and the head stay
as they are. What the layers compute, they compute in bfloat16 on a CUDA device and in float32 elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.errors import Unsupported

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# It warns, at its import, of a kernel for one processor that we keep it from using: see `keep_as_packed`.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def require_four_bits() -> None:
    """Raises `Unsupported` where the library that computes in four bits is not installed.

    Raises:
        Unsupported: it isn't.
    """
    if find_spec("bitsandbytes") is None:
        raise Unsupported(
            "fine_tune: method is 'qlora', LoRA on a base in 4 bits, which needs bitsandbytes, and that is not "
            "installed here. Install it (pip install 'tailorbird[qlora]'), or use method 'lora'."
        )


def is_in_four_bits(model: Any) -> bool:
    """Whether a transformers model's layers are held in four bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def save_tensors(config: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Writes a transformers folder's config and safetensors, of just these tensors.

    A model in four bits, saved as others are, writes its own tensors whichever it is given.
    """
    from huggingface_hub import save_torch_state_dict

    config.save_pretrained(folder)
    save_torch_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, folder)


def keep_as_packed(model: Any) -> None:
    """Keeps the layers of a model in four bits as they were packed.

    On some processors bitsandbytes repacks a layer, its scales rounded, the first time that it runs without
    gradients. What is trained and what is served would differ, and blocks of less than 64 can't be repacked.
    """
    if is_in_four_bits(model):
        from bitsandbytes.nn.modules import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit) and hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False


def weights_of(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weights of a linear layer in this type, [outputs, inputs]; in four bits, the numbers they stand for."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.weight.detach().to(dtype)
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, state).to(dtype)


def whole_tensors(model: Any) -> dict[str, Tensor]:
    """Every weight of a model in four bits as the number that it stands for, by its plain name; no adapters."""
    from bitsandbytes.nn.modules import Linear4bit

    found: dict[str, Tensor] = {}
    packed: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            packed[f"{name}.weight"] = weights_of(module, weight.quant_state.dtype)
    for name, tensor in model.state_dict().items():
        parent = name.rpartition(".weight.")[0]
        if ".lora_" not in name and f"{parent}.weight" not in packed:  # what describes a packed weight goes
            found[name.replace(".base_layer.", ".")] = packed[name] if name in packed else tensor  # noqa: SIM401 - `get` is typed with None
    return found
