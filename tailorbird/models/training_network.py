"""A transformers model while it is trained: the same weights and the same function, computed faster.

While it is on, the model's linear layers, norms and gated feed-forwards run as the fused operations of
`network/fused.py`, in float32 or bfloat16, and attention runs over packs. Each replacement is first held
against the layer that it replaces, and the whole against the plain model, on a few tokens; what doesn't
agree, or isn't known, stays as it is. `path` says what runs.

In half precision two right ways through a whole model differ by much, since rounding grows from layer to layer: on
such tokens SmolLM2-135M in bfloat16 differs from itself in float32 by 21 %, and by 17 % in float32 where a branch does
not see its prefix. So whether packs change anything is asked in float32, to which one layer at a time is brought.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.four_bits import weights_of
from tailorbird.models.own_attention import ATTENTION, Sealed, takes_attention
from tailorbird.network.fused import lora_linear, rms_norm, swiglu
from tailorbird.network.pack_attention import flash_kernel
from tailorbird.network.packing import Pack, pack, pack_pairs
from tailorbird.network.processes import num_processes
from tailorbird.network.sharding import shard
from tailorbird.network.tree_attention import Stream

if TYPE_CHECKING:
    from collections.abc import Generator

log = logging.getLogger(__name__)

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Relative difference between two ways of computing a layer that is rounding, by type."""
EXACT = {torch.float64, torch.float32}
"""Types in which rounding is as little through a whole model."""

STREAM = 32
"""Packs are filled up to a multiple of so many tokens: for every new number of rows, the library that multiplies in
bfloat16 on processors makes and keeps new code, which takes time and memory."""

Forward = Callable[..., Tensor]


class TrainingNetwork(TransformersNetwork):
    """A `Network` for `train`; use it as a context, inside which the model computes as described above.

    Args:
        model: a transformers causal model, with or without PEFT's layers in it.
        adapter: the adapter that is on; None where the weights themselves are trained.
        dtype: what matrix products are computed in: torch.float32 or torch.bfloat16.
        to_shard: whether `shard` will be called: frozen weights are then read when they are needed.
    """

    def __init__(
        self, model: Any, adapter: str | None, dtype: torch.dtype, *, to_shard: bool = False
    ) -> None:
        super().__init__(model)
        self.packs = False
        self._adapter = adapter
        self._to_shard = to_shard
        self._path_when_whole: str | None = None
        # Of the weights' own type, which costs no copies; the type asked for comes when it runs.
        replaced = _replacements(self.body, adapter, model.dtype, late=to_shard)
        self._replaced = replaced if replaced and self._gives_the_same(replaced) else None
        self.fused = self._replaced is not None
        self.dtype = dtype if self.fused else model.dtype

    @property
    def path(self) -> str:
        """Which of the ways of computing runs, for people."""
        how = "packed" if self.packs else "shared prefix" if self.shares_prefix else "plain"
        if self.takes_streams():
            how += ", FlashAttention"
        precision = str(self.dtype).removeprefix("torch.")
        sharded = f", sharded by {num_processes()}" if self._path_when_whole else ""
        return f"{how}, {'fused' if self.fused else 'unfused'}, {precision}{sharded}"

    @property
    def path_when_whole(self) -> str:
        """`path`, but that sharding leaves it as it is: it changes what a run gives no more than rounding does."""
        return self._path_when_whole or self.path

    @contextmanager
    def running(self) -> Generator[TrainingNetwork]:
        """Inside, the model computes as this network says; afterwards as before."""
        config = self.model.config
        before = config._attn_implementation  # noqa: SLF001 - transformers has no public way to read it
        if self.shares_prefix and takes_attention(self.model):
            self.packs = self._agrees()
        if self._replaced is not None and self.dtype != self.model.dtype:
            self._replaced = _replacements(self.body, self._adapter, self.dtype, late=self._to_shard)
        # Our attention also unites the types.
        ours = self.packs or self.dtype != self.model.dtype
        with self._computing_by(self._replaced or [], ATTENTION if ours else before):
            yield self

    @contextmanager
    def _computing_by(self, replaced: list[tuple[Any, Forward]], attention: str) -> Generator[None]:
        """Inside, these layers compute otherwise, and attention by what transformers knows under this name."""
        config = self.model.config
        before = config._attn_implementation  # noqa: SLF001
        try:
            config._attn_implementation = attention  # noqa: SLF001
            for module, forward in replaced:
                module.forward = forward
            yield
        finally:
            config._attn_implementation = before  # noqa: SLF001
            for module, _ in replaced:
                del module.forward

    def shard(self, device: torch.device) -> None:
        """Share the layers out between all processes, and bring the rest to the device, while it is running.

        A prefix of its own, as one more pass through layers, is for those alone that hold them whole.
        """
        assert self._to_shard
        self._path_when_whole = self.path
        self.shares_prefix = self.shares_prefix and self.packs
        shard(self.model, device, root=self.body, dtype=self.dtype if self.fused else None)

    def takes_streams(self) -> bool:
        """See `PackingNetwork.takes_streams`."""
        return self.packs and _attends_by_flash(self.model, self.dtype)

    def packed(self, packed: Pack | Stream) -> Tensor:
        """See `PackingNetwork.packed`."""
        if isinstance(packed, Stream):
            return self._through_body(packed.ids_1N, packed.positions_1N, packed)
        device, count = self.model.device, len(packed.ids)
        rest = (0,) * (-count % STREAM)
        ids_1N = torch.tensor([[*packed.ids, *rest]], device=device)
        positions_1N = torch.tensor([[*packed.positions, *rest]], device=device)
        return self._through_body(ids_1N, positions_1N, packed)[:count]

    def _through_body(self, ids_1N: Tensor, positions_1N: Tensor, packed: Pack | Stream) -> Tensor:
        output = self.body(input_ids=ids_1N, position_ids=positions_1N, use_cache=False, pack=Sealed(packed))
        return output.last_hidden_state[0]

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """See `Network.logits`; the head itself runs in the type of its weights."""
        return super().logits(hidden_NC.to(self.model.get_output_embeddings().weight.dtype))

    @torch.no_grad()
    def _on_a_few_tokens(self) -> Tensor:
        hidden_BTC, _ = self.hidden(
            torch.tensor([[*_PREFIX, *row] for row in _ROWS], device=self.model.device)
        )
        return torch.cat([hidden_BTC[0, : len(_PREFIX)], hidden_BTC[:, len(_PREFIX) :].flatten(0, 1)])

    @torch.no_grad()
    def _gives_the_same(self, replaced: list[tuple[Any, Forward]]) -> bool:
        """Whether each replacement gives what its layer gives, for what that meets in the model."""
        forwards = {id(module): forward for module, forward in replaced}
        same: list[bool] = []

        def compare(module: Any, given: Any, named: Any, output: Any) -> None:
            try:
                same.append(_same(forwards[id(module)](*given, **named), output))
            except TypeError:  # it is given, or gives, something else
                same.append(False)

        hooks = [module.register_forward_hook(compare, with_kwargs=True) for module, _ in replaced]
        try:
            self._on_a_few_tokens()
        finally:
            for hook in hooks:
                hook.remove()
        return all(same)

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether the replacements together give what the model gives, and attention over packs what they give."""
        exact = self.model.dtype in EXACT
        plain, replaced = self._on_a_few_tokens(), (self._replaced or []) if exact else _in_float32(self.body)
        rows = [(*_PREFIX, *row) for row in _ROWS]
        # The same stream twice: as two branches, and as one that forks.
        packs = pack(rows, len(_PREFIX)), pack_pairs(rows, len(_PREFIX) // 2)
        try:
            with self._computing_by(replaced, ATTENTION):
                expected = self._on_a_few_tokens()
                agrees = (not exact or _same(expected, plain)) and all(
                    _same(self.packed(packed), expected) for packed in packs
                )
                problem = "" if agrees else "it gives something else than attention by rows"
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            # An architecture that hands attention nothing, or something else.
            problem = str(error).partition("\n")[0] or type(error).__name__
        if problem:
            log.info("Attention over packs, the faster way, does not run for this model: %s", problem)
        return not problem


_PREFIX, _ROWS = (5, 3, 7, 2), ((1, 4, 6), (2, 5, 8))
"""Token ids that every vocabulary has; two sequences of one beginning."""


def _attends_by_flash(model: Any, dtype: torch.dtype) -> bool:
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return flash_kernel(model.device, dtype, heads, kv_heads, width) is not None


def _replacements(
    body: Any, adapter: str | None, dtype: torch.dtype, *, late: bool
) -> list[tuple[Any, Forward]] | None:
    """Every layer of the body to replace, with its new `forward`; None where an adapter is of another kind.

    With `late` frozen weights are read, and brought to `dtype`, each time that a layer runs.
    """
    found: list[tuple[Any, Forward]] = []
    adapters = _lora_layers(body)
    if any(not _plain_lora(module, adapter) for module in adapters):
        return None
    inside = {id(child) for module in adapters for child in module.modules() if child is not module}
    found += [(module, _lora_forward(module, adapter, dtype, late=late)) for module in adapters]
    last = getattr(body, "norm", None)
    for module in body.modules():
        if id(module) in inside or module in adapters:
            continue
        if type(module) is nn.Linear:
            found.append((module, _linear_forward(module, dtype, late=late)))
        elif module is not last and _is_rms_norm(module):
            found.append((module, _norm_forward(module, dtype)))
        elif _is_swiglu(module):
            found.append((module, _swiglu_forward(module)))
    return found


def _in_float32(body: Any) -> list[tuple[Any, Forward]]:
    """Every layer of the body without its adapters, in float32, to which weights are brought when it runs."""
    adapters = _lora_layers(body)
    inside = {id(child) for module in adapters for child in module.modules() if child is not module}
    found: list[tuple[Any, Forward]] = []
    for module in body.modules():
        if id(module) in inside:
            continue
        if module in adapters or isinstance(module, nn.Linear):
            found.append((module, _unpacked_forward(getattr(module, "base_layer", module))))
        elif _is_rms_norm(module):
            found.append((module, _norm_forward(module, torch.float32)))
    return found


def _unpacked_forward(layer: Any) -> Forward:
    return lambda x, *_, **__: functional.linear(
        x.float(), weights_of(layer, torch.float32), _cast(layer.bias, torch.float32)
    )


def _lora_layers(body: Any) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in body.modules() if isinstance(module, LoraLayer)]


def _plain_lora(module: Any, adapter: str | None) -> bool:
    """Whether it is W + s·B·A with nothing else in it: no dropout, no variant, no bias of its own."""
    if adapter is None or adapter not in module.lora_A:
        return True  # this adapter adds nothing here
    return (
        type(module.base_layer) is nn.Linear
        and not module.base_layer.weight.requires_grad
        and type(module.lora_A[adapter]) is nn.Linear
        and isinstance(module.lora_dropout[adapter], nn.Identity)
        and adapter not in module.lora_variant
        and module.lora_B[adapter].bias is None
        and not module.merged
    )


def _lora_forward(module: Any, adapter: str | None, dtype: torch.dtype, *, late: bool) -> Forward:
    base = module.base_layer
    if adapter is None or adapter not in module.lora_A:
        return _linear_forward(base, dtype, late=late)
    frozen = _frozen(base, dtype, late=late)
    lora_a, lora_b, scale = module.lora_A[adapter], module.lora_B[adapter], module.scaling[adapter]
    return lambda x, *_, **__: lora_linear(x, *frozen(), lora_a.weight, lora_b.weight, scale)


def _linear_forward(module: nn.Linear, dtype: torch.dtype, *, late: bool) -> Forward:
    if module.weight.requires_grad:  # a copy in another type is made anew for every step
        return lambda x, *_, **__: functional.linear(
            x.to(dtype), module.weight.to(dtype), _cast(module.bias, dtype)
        )
    frozen = _frozen(module, dtype, late=late)
    return lambda x, *_, **__: functional.linear(x.to(dtype), *frozen())


def _frozen(
    module: nn.Linear, dtype: torch.dtype, *, late: bool
) -> Callable[[], tuple[Tensor, Tensor | None]]:
    """Gives weight and bias in this type: those of now, or with `late` those that the layer then has."""

    def read() -> tuple[Tensor, Tensor | None]:
        return module.weight.detach().to(dtype), _cast(module.bias, dtype)

    now = None if late else read()
    return lambda: now or read()


def _cast(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def _is_rms_norm(module: Any) -> bool:
    """Whether it computes w · x / √(mean(x²) + ε): its name suggests it, its result proves it."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or weight is None or _eps(module) is None:
        return False
    x_1C = torch.linspace(-2, 3, len(weight), device=weight.device, dtype=weight.dtype)[None]
    with torch.no_grad():
        return _same(rms_norm(x_1C, weight, _eps(module) or 0.0, weight.dtype), module(x_1C))


def _eps(module: Any) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _norm_forward(module: Any, dtype: torch.dtype) -> Forward:
    eps = _eps(module) or 0.0
    return lambda x: rms_norm(x, module.weight, eps, dtype)


def _is_swiglu(module: Any) -> bool:
    """Whether it is down(silu(gate(x)) · up(x))."""
    parts = ("gate_proj", "up_proj", "down_proj", "act_fn")
    if set(dict(module.named_children())) != set(parts):
        return False
    x = torch.linspace(-4, 4, 64)
    return _same(functional.silu(x), module.act_fn(x))


def _swiglu_forward(module: Any) -> Forward:
    return lambda x: module.down_proj(swiglu(module.gate_proj(x), module.up_proj(x)))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two results differ by no more than rounding in the other's type."""
    return bool((one.double() - other.double()).norm() <= ROUNDING[other.dtype] * other.double().norm())
