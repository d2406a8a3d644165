"""Local weights as a plain transformers folder: the adapter merged, nothing of Tailorbird needed to load it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tailorbird.errors import IntegrityError, Unsupported
from tailorbird.models.chat_template import PLAIN_TEMPLATE
from tailorbird.models.four_bits import is_in_four_bits, save_tensors, whole_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from tailorbird.models.local import LocalWeights

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""The precisions of safetensors that can be written, by our name for them."""

_BEYOND_LORA = {
    "bias": "none",
    "use_dora": False,
    "lora_bias": False,
    "modules_to_save": None,
    "alpha_pattern": {},
    "target_parameters": None,
    "trainable_token_indices": None,
    "layer_replication": None,
}
"""Settings of PEFT under which an adapter is more than B·A beside a matrix, and what they are when it isn't."""


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one weight: scaling · B · A, with `a` of [rank, inputs] and `b` of [outputs, rank]."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """Rows of A, columns of B."""
        return len(self.a)

    def product(self) -> Tensor:
        """The whole change, of the weight's shape."""
        return self.scaling * (self.b @ self.a)


def dtype_name(weights: LocalWeights) -> str:
    """The precision in which the engine holds the weights, and so the one that was measured."""
    held = weights.engine.model.dtype
    return next((name for name, dtype in DTYPES.items() if dtype == held), "f32")


def write_merged(weights: LocalWeights, folder: Path, dtype: str) -> None:
    """Writes config, tokenizer, chat template and safetensors; the adapter is merged in float32.

    Args:
        weights: with or without an adapter.
        folder: exists and is empty.
        dtype: a key of `DTYPES`.

    Raises:
        Unsupported: the adapter is more than plain LoRA on linear layers.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    if is_in_four_bits(weights.engine.model):
        _save_whole(weights, folder)
    else:
        weights.engine.save(folder)
    changes = adapter_changes(weights)
    for file in sorted(folder.glob("*.safetensors")):
        _rewrite(file, changes, DTYPES[dtype])
    refuse_without_weight(weights, changes)
    _edit_json(folder / "config.json", _plain_config(weights, str(DTYPES[dtype]).removeprefix("torch.")))
    _write_generation_config(weights, folder)
    describe_tokenizer(weights, folder)


def _save_whole(weights: LocalWeights, folder: Path) -> None:
    """What `Engine.save` writes, of weights held in four bits: the numbers that they stand for."""
    engine = weights.engine
    with engine.lock:
        config = deepcopy(engine.model.config)
        del config.quantization_config
        save_tensors(config, whole_tensors(engine.model), folder)
        engine.tokenizer.save_pretrained(folder)


def describe_tokenizer(weights: LocalWeights, folder: Path) -> None:
    """Makes the tokenizer's files say what older readers look for, and the template that we use."""
    config = folder / "tokenizer_config.json"
    kept = {
        k: v for k, v in json.loads(config.read_text()).items() if k not in ("is_local", "local_files_only")
    }
    if kept.get("tokenizer_class") == "TokenizersBackend":  # unknown before transformers 5
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")
    if not weights.engine.tokenizer.chat_template:
        (folder / "chat_template.jinja").write_text(PLAIN_TEMPLATE, encoding="utf-8")


def refuse_without_weight(weights: LocalWeights, layers: Iterable[str]) -> None:
    """Refuses layers that the adapter changes and the base's files don't have, if there are any.

    Raises:
        IntegrityError: there are.
    """
    if without := list(layers):
        raise IntegrityError(
            f"adapter of {weights.name!r}: {without[0]!r} and {len(without) - 1} others of its layers have no weight "
            "of their own in the base's files, so they cannot be exported. Fine-tune again without them."
        )


def adapter_changes(weights: LocalWeights) -> dict[str, LowRank]:
    """What the adapter adds to each weight, by the weight's name; nothing where there is no adapter.

    Raises:
        Unsupported: the adapter is more than plain LoRA on linear layers.
    """
    if weights.adapter is None:
        return {}
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as scratch:
        weights.engine.save_adapter(weights.adapter, Path(scratch))
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
    for key, plain in _BEYOND_LORA.items():
        if config.get(key, plain) not in (plain, None, [], {}):
            raise Unsupported(
                f"adapter of {weights.name!r}: {key} is {config[key]!r}, and only plain LoRA can be exported exactly. "
                "Export it with PEFT's own merge, or fine-tune without it."
            )
    changes: dict[str, LowRank] = {}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        module = key.removesuffix(".lora_A.weight")
        a_RI, b_OR = tensors.pop(key).float(), tensors.pop(f"{module}.lora_B.weight").float()
        rank = a_RI.shape[0]
        scaling = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        if config["fan_in_fan_out"]:  # the weight is stored with its inputs first
            a_RI, b_OR = b_OR.T, a_RI.T
        changes[module.removeprefix("base_model.model.") + ".weight"] = LowRank(a_RI, b_OR, scaling)
    if tensors:
        raise Unsupported(
            f"adapter of {weights.name!r}: {next(iter(tensors))!r} is no LoRA of a linear layer, and cannot be "
            "exported. Fine-tune linear layers only."
        )
    return changes


def _rewrite(file: Path, changes: dict[str, LowRank], dtype: torch.dtype) -> None:
    """The file again with its share of the changes, which are taken out of `changes`, and in another precision."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    for name, weight in tensors.items():
        merged = weight.float() + changes.pop(name).product() if name in changes else weight
        tensors[name] = (merged.to(dtype) if merged.is_floating_point() else merged).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})


def _plain_config(weights: LocalWeights, dtype: str) -> dict[str, Any]:
    config = weights.engine.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    changed: dict[str, Any] = {"dtype": dtype}
    if rope.get("rope_type") == "default" and "rope_theta" in rope:
        changed["rope_theta"] = rope["rope_theta"]  # where readers older than transformers 5 look for it
    return changed


def _write_generation_config(weights: LocalWeights, folder: Path) -> None:
    """Greedy, as measured, and ended by the tokens that end an answer here."""
    tokenizer, template = weights.engine.tokenizer, weights.engine.template
    settings = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": sorted(template.stop_ids),
        "pad_token_id": template.pad_id,
        "do_sample": False,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _edit_json(path: Path, changed: dict[str, Any]) -> None:
    path.write_text(
        json.dumps({**json.loads(path.read_text()), **changed}, indent=2) + "\n", encoding="utf-8"
    )
