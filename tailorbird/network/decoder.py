"""A Llama-shaped decoder, written out: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    x ← embedding[ids]
    for each block:  x ← x + attention(norm(x));  x ← x + feed_forward(norm(x))
    hidden ← norm(x);  logits ← hidden · headᵀ

Touvron et al., "LLaMA" (arXiv 2302.13971). The weights map one to one onto a Hugging Face
`LlamaForCausalLM`; see `llama_folder.py`.

Legend: B batch, T tokens of this call, P tokens of the past, S = P + T, C model width, F width inside
the feed-forward, V vocabulary, N any rows, H query heads, K key/value heads, D width of one head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailorbird.errors import ContextTooLong, RecipeError
from tailorbird.network.network import Past
from tailorbird.network.pack_attention import flash_kernel, pack_attention
from tailorbird.network.packing import Pack
from tailorbird.network.tree_attention import Stream

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B, K, S, D]."""

INITIAL_DEVIATION = 0.02
HEAD_WIDTH = 64
DEPTHS = {"tiny": 2, "small": 4, "medium": 8, "large": 12}
"""The named sizes of `shape_for`, as numbers of layers."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The sizes of a decoder.

    `kv_heads` divides `heads`, which divides `width`; `feed_forward` is the width inside SwiGLU;
    `context` is the most tokens (past included) it was made for; `rope_theta` is the base of the rotary
    wavelengths; with `tied_embeddings` the head is the embedding matrix.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int
    rope_theta: float = 10_000.0
    tied_embeddings: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.width, self.layers, self.heads, self.kv_heads, self.feed_forward)
        if min(*sizes, self.context) < 1:
            raise RecipeError(f"Every size of a decoder must be at least 1. Got {self!r}.")
        if self.width % (2 * self.heads):
            raise RecipeError(
                f"A decoder's width must be a multiple of twice its heads (rotary positions turn pairs). "
                f"Got width {self.width} and {self.heads} heads; width {2 * self.heads} would do."
            )
        if self.heads % self.kv_heads:
            raise RecipeError(
                f"kv_heads must divide heads. Got {self.kv_heads} and {self.heads}; 1 always divides."
            )

    @property
    def head_width(self) -> int:
        """D, the width of one head."""
        return self.width // self.heads


def shape_for(size: int | str, vocab_size: int, *, context: int = 512) -> DecoderShape:
    """The one dial: a depth (or its name in `DEPTHS`) sets every other size.

    Width is 64 × depth, heads are 64 wide, and the feed-forward is 8/3 × width rounded up to a multiple
    of 64, so that a SwiGLU has as many weights as a plain feed-forward of 4 × width.

    >>> shape_for("tiny", 512).width
    128
    """
    if isinstance(size, str) and size not in DEPTHS:
        raise RecipeError(
            f"{size!r} is no size of a decoder. Choose one of {list(DEPTHS)} or a depth, as in 6."
        )
    depth = DEPTHS[size] if isinstance(size, str) else size
    if depth < 1:
        raise RecipeError(f"A decoder's depth must be at least 1. Got {depth}.")
    width = HEAD_WIDTH * depth
    feed_forward = HEAD_WIDTH * math.ceil(8 * width / 3 / HEAD_WIDTH)
    return DecoderShape(vocab_size, width, depth, depth, depth, feed_forward, context)


class Decoder(nn.Module):
    """A causal language model; implements `Network`.

    Weights are drawn from N(0, 0.02²); those that write into the residual stream (`output`, `down`) from
    N(0, 0.02² / 2·layers), so that the stream's variance does not grow with depth (GPT-2). The draw
    depends on `seed` alone and leaves torch's global generator untouched.

    >>> decoder = Decoder(shape_for("tiny", vocab_size=300))
    >>> decoder(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 300])
    """

    shares_prefix = True
    packs = True

    def __init__(self, shape: DecoderShape, *, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        with torch.device("meta"):
            self.embedding = nn.Embedding(shape.vocab_size, shape.width)
            self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
            self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
            self.head = None if shape.tied_embeddings else linear(shape.width, shape.vocab_size)
        self.to_empty(device="cpu")
        self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw all weights anew; norms become 1."""
        generator = torch.Generator().manual_seed(seed)
        residual = INITIAL_DEVIATION / math.sqrt(2 * self.shape.layers)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                writes = name.endswith(("output.weight", "down.weight"))
                weight.normal_(0.0, residual if writes else INITIAL_DEVIATION, generator=generator)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Scores of the next token at every position, [B, T, V]."""
        return self.logits(self.hidden(ids_BT)[0])

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        past: Past | None = None,
        mask_BTS: Tensor | None = None,
        positions_BT: Tensor | None = None,
        keep_past: bool = False,
    ) -> tuple[Tensor, Past | None]:
        """Final hidden states [B, T, C] and, if `keep_past`, the keys and values of all S tokens.

        Raises:
            ContextTooLong: P + T exceeds the shape's context and no positions are given.
        """
        layers_past = cast("tuple[KeysValues, ...] | None", past)
        P = 0 if layers_past is None else layers_past[0][0].shape[2]
        T = ids_BT.shape[1]
        if positions_BT is None:
            self._check_fits(P + T)
            positions_BT = torch.arange(P, P + T, device=ids_BT.device)[None]
        rotation = rotation_of(positions_BT, self.shape.head_width, self.shape.rope_theta)
        if mask_BTS is None and P and T > 1:
            mask_BTS = torch.ones(1, T, P + T, dtype=torch.bool, device=ids_BT.device).tril(P)
        x_BTC = self.embedding(ids_BT)
        kept: list[KeysValues] = []
        for n, block in enumerate(self.blocks):
            x_BTC, keys_values = block(x_BTC, rotation, mask_BTS, layers_past[n] if layers_past else None)
            kept.append(keys_values)
        return self.norm(x_BTC), tuple(kept) if keep_past else None

    def takes_streams(self) -> bool:
        """See `PackingNetwork.takes_streams`; autocast decides in what type this one attends."""
        shape, device = self.shape, self.embedding.weight.device
        computes_in = (
            torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        )
        return flash_kernel(device, computes_in, shape.heads, shape.kv_heads, shape.head_width) is not None

    def packed(self, packed: Pack | Stream) -> Tensor:
        """Final hidden states of a pack's tokens, [N, C].

        Raises:
            ContextTooLong: one of its sequences exceeds the shape's context.
        """
        if isinstance(packed, Stream):
            ids_1N, positions_1N = packed.ids_1N, packed.positions_1N
        else:
            self._check_fits(max(packed.positions, default=-1) + 1)
            device = self.embedding.weight.device
            ids_1N = torch.tensor([packed.ids], device=device)
            positions_1N = torch.tensor([packed.positions], device=device)
        rotation = rotation_of(positions_1N, self.shape.head_width, self.shape.rope_theta)
        x_1NC = self.embedding(ids_1N)
        for block in self.blocks:
            x_1NC, _ = block(x_1NC, rotation, None, None, packed)
        return self.norm(x_1NC)[0]

    def logits(self, hidden_NC: Tensor) -> Tensor:
        """Scores over the vocabulary, [N, V]."""
        return functional.linear(hidden_NC, (self.embedding if self.head is None else self.head).weight)

    def expand_past(self, past: Past, batch: int) -> Past:
        """The past of one row seen as `batch` rows; nothing is copied, and gradients of the rows add up."""
        layers_past = cast("tuple[KeysValues, ...]", past)
        return tuple(
            (keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1)) for keys, values in layers_past
        )

    def _check_fits(self, tokens: int) -> None:
        if tokens > self.shape.context:
            raise ContextTooLong(
                f"{tokens} tokens do not fit a decoder made for a context of {self.shape.context}. "
                "Shorten the text, or make the decoder with a longer context."
            )


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on the normed stream and added back to it."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.attention = Attention(shape)
        self.feed_forward_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.feed_forward = FeedForward(shape)

    def forward(
        self,
        x_BTC: Tensor,
        rotation: KeysValues,
        mask_BTS: Tensor | None,
        past: KeysValues | None,
        packed: Pack | Stream | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """The stream after this layer, and the layer's keys and values."""
        normed_BTC = self.attention_norm(x_BTC)
        attended_BTC, keys_values = self.attention(normed_BTC, rotation, mask_BTS, past, packed)
        x_BTC = x_BTC + attended_BTC
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC)), keys_values


class Attention(nn.Module):
    """softmax(q kᵀ / √D) v, with H query heads sharing K key/value heads (arXiv 2305.13245)."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.head_width = shape.head_width
        self.grouped = shape.kv_heads != shape.heads
        self.query = linear(shape.width, shape.width)
        self.key = linear(shape.width, shape.kv_heads * shape.head_width)
        self.value = linear(shape.width, shape.kv_heads * shape.head_width)
        self.output = linear(shape.width, shape.width)

    def forward(
        self,
        x_BTC: Tensor,
        rotation: KeysValues,
        mask_BTS: Tensor | None,
        past: KeysValues | None,
        packed: Pack | Stream | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """What each token gathers, [B, T, C], and the keys and values of all S tokens."""
        query_BHTD = rotate(self._heads(self.query(x_BTC)), rotation)
        key_BKSD = rotate(self._heads(self.key(x_BTC)), rotation)
        value_BKSD = self._heads(self.value(x_BTC))
        if packed is not None:
            scale = 1 / math.sqrt(self.head_width)
            gathered_HND = pack_attention(query_BHTD[0], key_BKSD[0], value_BKSD[0], packed, scale)
            return self.output(gathered_HND.transpose(0, 1).flatten(1)[None]), (key_BKSD, value_BKSD)
        if past is not None:
            key_BKSD = torch.cat([past[0], key_BKSD], dim=2)
            value_BKSD = torch.cat([past[1], value_BKSD], dim=2)
        gathered_BHTD = functional.scaled_dot_product_attention(
            query_BHTD,
            key_BKSD,
            value_BKSD,
            attn_mask=None if mask_BTS is None else mask_BTS[:, None],
            is_causal=mask_BTS is None and past is None,
            enable_gqa=self.grouped,
        )
        return self.output(gathered_BHTD.transpose(1, 2).flatten(2)), (key_BKSD, value_BKSD)

    def _heads(self, x_BTC: Tensor) -> Tensor:
        return x_BTC.unflatten(2, (-1, self.head_width)).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (arXiv 2002.05202)."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.gate = linear(shape.width, shape.feed_forward)
        self.up = linear(shape.width, shape.feed_forward)
        self.down = linear(shape.feed_forward, shape.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """[B, T, C] to [B, T, C], each token by itself."""
        return self.down(functional.silu(self.gate(x_BTC)) * self.up(x_BTC))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A matrix without a bias: the Llama family has none."""
    return nn.Linear(inputs, outputs, bias=False)


def rotation_of(positions_BT: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [B, 1, T, D] in float32, of the angles position · theta^(-2i/D).

    Rotary positions (RoFormer, arXiv 2104.09864) in the half-split order of Hugging Face's Llama: pair i
    is made of the coordinates i and i + D/2.
    """
    exponents_D2 = torch.arange(0, head_width, 2, device=positions_BT.device).float() / head_width
    angles_BTD2 = positions_BT[..., None].float() * (1.0 / theta**exponents_D2)
    angles_B1TD = torch.cat([angles_BTD2, angles_BTD2], dim=-1)[:, None]
    return angles_B1TD.cos(), angles_B1TD.sin()


def rotate(x_BHTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each coordinate pair (a, b) by its angle: (a cos - b sin, b cos + a sin)."""
    cos, sin = rotation
    first, second = x_BHTD.chunk(2, dim=-1)
    turned = x_BHTD * cos + torch.cat([-second, first], dim=-1) * sin
    return turned.to(x_BHTD.dtype)
