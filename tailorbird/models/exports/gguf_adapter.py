"""A LoRA adapter as a GGUF file of its own, which llama.cpp and Ollama add to a base."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tailorbird.models.exports.gguf_export import architecture_of, as_llama_cpp_has_it, gguf_names
from tailorbird.models.exports.merged import adapter_changes, refuse_without_weight

if TYPE_CHECKING:
    from tailorbird.models.local import LocalWeights


def write_adapter(weights: LocalWeights, base: Path, path: Path, *, name: str) -> None:
    """Writes the adapter in float16; llama.cpp adds alpha / rank · B · A to the base's weights as it computes.

    Args:
        weights: with an adapter.
        base: a transformers folder of the weights without it, written by `merged.write_merged`.
        path: of the file.
        name: what the file says that the adapter is called.

    Raises:
        Unsupported: the adapter is more than plain LoRA on linear layers.
        IntegrityError: it changes layers that have no weight of their own in the base.
    """
    import gguf

    config, changes = weights.engine.model.config, adapter_changes(weights)
    refuse_without_weight(weights, changes.keys() - _tensors_in(base))
    names = gguf_names(config)
    first = next(iter(changes.values()))
    alpha = first.scaling * first.rank
    writer = gguf.GGUFWriter(path, architecture_of(config))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for key, change in changes.items():
        # One alpha a file: 1, except where ranks differ and scaling isn't alpha / rank.
        factor = change.scaling * change.rank / alpha
        b_OR = as_llama_cpp_has_it(key, (factor * change.b).numpy(), config)
        tensor = names.get_name(key, try_suffixes=(".weight",))
        writer.add_tensor(f"{tensor}.lora_a", change.a.numpy().astype(np.float16))
        writer.add_tensor(f"{tensor}.lora_b", b_OR.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors_in(folder: Path) -> set[str]:
    from safetensors import safe_open

    files = [safe_open(str(file), "np") for file in folder.glob("*.safetensors")]
    return set(chain.from_iterable(file.keys() for file in files))
