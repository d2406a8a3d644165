"""Any transformers causal language model, with or without LoRA layers in it, as a `Network`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache

from tailorbird.models.context_limit import context_of
from tailorbird.models.own_attention import ATTENTION, Branches, Sealed, branches_of, takes_attention

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger(__name__)

NEAR = 0.02
"""Relative difference between two ways of computing hidden states that may be rounding, in any type."""


class TransformersNetwork:
    """Runs the body and the head of a causal model apart, so that the head sees only rows that count."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.base_model if model.base_model is not model else model.get_decoder()
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        # A recurrent layer's state can be neither branched with gradients nor masked by position.
        self.shares_prefix = kinds == {"full_attention"} and not getattr(model, "_is_stateful", False)

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        return self.model.get_output_embeddings().weight.shape[1]

    def train(self, mode: bool = True) -> None:
        """Dropout stays off in training too: the shared prefix is exact only without it."""
        del mode
        self.model.eval()

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        past: DynamicCache | None = None,
        mask_BTS: Tensor | None = None,
        positions_BT: Tensor | None = None,
        keep_past: bool = False,
    ) -> tuple[Tensor, DynamicCache | None]:
        """See `Network.hidden`."""
        cache = _copy(past) if past is not None else (DynamicCache() if keep_past else None)
        if positions_BT is None:
            start = cache.get_seq_length() if past is not None and cache is not None else 0
            positions_BT = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device).expand_as(
                ids_BT
            )
        output = self.body(
            input_ids=ids_BT,
            past_key_values=cache,
            attention_mask=None if mask_BTS is None else self._additive(mask_BTS),
            position_ids=positions_BT,
            use_cache=cache is not None,
        )
        return output.last_hidden_state, cache if keep_past else None

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """See `Network.logits`; applies the scaling that some architectures put after the head."""
        config = self.model.config
        # Looked up on each call: an adapter may have put layers of its own around the head.
        logits_NV = self.model.get_output_embeddings()(hidden_NC).float()
        if scale := getattr(config, "logit_scale", None):
            logits_NV = logits_NV * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits_NV = logits_NV / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV

    def expand_past(self, past: DynamicCache, batch: int) -> DynamicCache:
        """See `Network.expand_past`."""
        expanded = _copy(past)
        for layer in _layers(expanded):
            layer.keys = layer.keys.expand(batch, -1, -1, -1)
            layer.values = layer.values.expand(batch, -1, -1, -1)
        return expanded

    def crop_past(self, past: DynamicCache, length: int) -> DynamicCache:
        """The first `length` tokens of the past, without touching the given one."""
        cropped = _copy(past)
        for layer in _layers(cropped):
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
        return cropped

    def branches(self, past: DynamicCache, lengths: Sequence[int]) -> Branches | None:
        """Prompts of these lengths, ready to branch; None where that can't be computed without padding here."""
        return branches_of(_layers(past), lengths) if self.can_branch else None

    def grow(
        self, branches: Branches, ids: Sequence[int], positions: Sequence[int], sees: dict[int, Tensor]
    ) -> Tensor:
        """Final hidden states of new tokens, [N, C], which stand prompt by prompt as `sees` does: see `Branches`.

        Nothing is padded, and no prompt's keys are copied for others.
        """
        branches.sees = sees
        config, device = self.model.config, self.model.device
        before = config._attn_implementation  # noqa: SLF001 - transformers has no public way to read it
        config._attn_implementation = ATTENTION  # noqa: SLF001
        try:
            output = self.body(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                pack=Sealed(branches),
            )
        finally:
            config._attn_implementation = before  # noqa: SLF001
        return output.last_hidden_state[0]

    @cached_property
    def can_branch(self) -> bool:
        """Whether tokens that grow from two prompts come out as by rows with masks; tried out on the first call.

        On other devices than processors rows cost less than the many small calls.
        """
        if self.model.device.type != "cpu" or not takes_attention(self.model):
            return False
        ids_BT = torch.tensor([[5, 3, 7, 2, 4], [1, 6, 2, 0, 0]], device=self.model.device)
        lengths, grown = [5, 3], torch.tensor([[4, 1], [6, 6]], device=self.model.device)
        _, past = self.hidden(ids_BT, keep_past=True)
        mask_BTS = torch.zeros(2, 2, 7, dtype=torch.bool, device=self.model.device)
        for row, length in enumerate(lengths):
            mask_BTS[row, :, :length] = True
            mask_BTS[row, :, 5:] = torch.eye(2, dtype=torch.bool)
        positions_BT = torch.tensor([[length] * 2 for length in lengths], device=self.model.device)
        expected, _ = self.hidden(
            grown, past=past, mask_BTS=mask_BTS, positions_BT=positions_BT, keep_past=True
        )
        assert past is not None
        sees = {
            row: torch.cat([torch.ones(2, length, dtype=torch.bool), torch.eye(2, dtype=torch.bool)], dim=1)
            for row, length in enumerate(lengths)
        }
        try:
            found = self.grow(
                branches_of(_layers(past), lengths),
                grown.flatten().tolist(),
                positions_BT.flatten().tolist(),
                sees,
            )
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            log.info("Labels are scored with padding for this model: %s", str(error).partition("\n")[0])
            return False
        apart = (found.double() - expected.flatten(0, 1).double()).norm()
        return bool(apart <= NEAR * expected.double().norm())

    def _additive(self, mask_BTS: Tensor) -> Tensor:
        """Both attention paths of transformers take a float mask; only one takes a boolean one."""
        dtype = self.model.dtype
        mask_B1TS = torch.zeros(mask_BTS.shape, dtype=dtype, device=mask_BTS.device)
        return mask_B1TS.masked_fill(~mask_BTS, torch.finfo(dtype).min).unsqueeze(1)


def usable_context(model: Any) -> int:
    """Tokens over which a model attends to all that came before: see `context_of`.

    Raises:
        Unsupported: some layers keep a state instead of attending; no mask can hide padding from them.
    """
    return context_of(model.config, stateful=getattr(model, "_is_stateful", False))


def _copy(past: DynamicCache) -> DynamicCache:
    """A cache object of its own over the same tensors: transformers replaces a layer's tensors in place."""
    own = DynamicCache()
    own.layers = [copy(layer) for layer in past.layers]
    return own


def _layers(past: DynamicCache) -> list[Any]:
    """The cache's layers, each with keys and values [B, K, S, D]: all that our caches are made of."""
    return past.layers


def tensors_of(past: DynamicCache) -> dict[str, Tensor]:
    """A past of one row, as tensors by name."""
    pairs = enumerate(_layers(past))
    return {
        f"{n}.{part}": getattr(layer, part).contiguous() for n, layer in pairs for part in ("keys", "values")
    }


def past_of(tensors: Mapping[str, Tensor]) -> DynamicCache:
    """The past that `tensors_of` took apart."""
    past = DynamicCache()
    for n in range(len(tensors) // 2):
        past.update(tensors[f"{n}.keys"], tensors[f"{n}.values"], n)
    return past


def save_pretrained(model: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes a transformers folder from any process of a distributed run."""
    # Of many processes transformers lets the first alone write, and each makes copies of its own.
    model.should_save_on_this_rank = lambda _: True
    try:
        model.save_pretrained(folder, state_dict=tensors)
    finally:
        del model.should_save_on_this_rank
