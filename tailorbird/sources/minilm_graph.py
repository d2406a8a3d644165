"""The MiniLM sentence encoder (a small BERT) as an ONNX graph, made straight from its safetensors.

    ids [1, T] -> token + position + type embeddings -> LayerNorm
               -> 6 x (attention, add & norm, feed-forward, add & norm) -> mean over T -> L2 norm -> [1, D]

The graph takes one text at a time: there is no padding and so no mask, and the int8 scale of the
activations, which is taken over all rows at once, never depends on which texts happen to share a batch.

Devlin et al. 2019, https://arxiv.org/abs/1810.04805; Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BUILDER_VERSION = 1
"""Raised whenever the graph or its quantisation changes, so that no stale file is loaded."""

OPSET = 20
"""The first ONNX operator set with `Gelu`."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT encoder, as its `config.json` names them."""

    num_layers: int
    num_heads: int
    width: int
    epsilon: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read the sizes from a parsed `config.json`."""
        return cls(
            num_layers=int(config["num_hidden_layers"]),
            num_heads=int(config["num_attention_heads"]),
            width=int(config["hidden_size"]),
            epsilon=float(config["layer_norm_eps"]),
        )


class _Graph:
    """Collects nodes and weights; every method returns the name of what it computes."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}

    def weight(self, name: str, value: Array) -> str:
        self.weights[name] = np.array(value, order="C")
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.outputs(kind, *inputs, count=1, **attributes)[0]

    def outputs(self, kind: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        outputs = [f"{name}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def linear(self, x: str, name: str, weight: Array, bias: Array) -> str:
        """`x W^T + b`, with the weight stored as PyTorch does: [outputs, inputs]."""
        multiply = self.multiply_int8 if self.int8 else self.multiply
        return self.node("Add", multiply(x, name, weight.T), self.weight(f"{name}.bias", bias))

    def multiply(self, x: str, name: str, weight: Array) -> str:
        return self.node("MatMul", x, self.weight(f"{name}.weight", weight))

    def multiply_int8(self, x: str, name: str, weight: Array) -> str:
        """The product in integers: one scale for `x`, taken as it comes, and one a column of the weight."""
        from onnx import TensorProto

        scale, rounded = rounded_columns(weight)
        x_rounded, x_scale, x_zero = self.outputs("DynamicQuantizeLinear", x, count=3)
        columns, zero = self.weight(f"{name}.weight", rounded), self.weight("int8_zero", np.array(0, np.int8))
        product = self.node("MatMulInteger", x_rounded, columns, x_zero, zero)
        scales = self.node("Mul", x_scale, self.weight(f"{name}.scale", scale))
        return self.node("Mul", self.node("Cast", product, to=TensorProto.FLOAT), scales)

    def norm(self, x: str, name: str, weights: Mapping[str, Array], epsilon: float) -> str:
        scale = self.weight(f"{name}.weight", weights[f"{name}.weight"])
        shift = self.weight(f"{name}.bias", weights[f"{name}.bias"])
        return self.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=epsilon)


def rounded_columns(weight: Array) -> tuple[Array, Array]:
    """A weight [I, O] as one float32 scale a column [O] and int8 in [-63, 63], so that weight ≈ scale · int8.

    Seven bits, not eight: processors without VNNI instructions add pairs of products in 16 bits, which
    eight bits would overflow, and embeddings must not depend on the processor's age.
    """
    scale = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / 63
    return scale.astype(np.float32), np.rint(weight / scale).astype(np.int8)


def encoder_graph(
    weights: Mapping[str, Array], shape: Shape, *, int8: bool = True, by_token: bool = False
) -> Any:
    """The ONNX model: input `ids` int64 [1, T], output `embedding` float32 [1, D], L2-normalised.

    Args:
        weights: BERT's tensors under their PyTorch names.
        shape: The encoder's sizes.
        int8: Multiply by the weights in 8-bit integers (twice as fast), else in float32 throughout.
        by_token: The output is `token_vectors` float32 [1, T, D] instead, every token's vector L2-normalised.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = _Graph(int8=int8)
    hidden = _embed(graph, weights, shape)
    for layer in range(shape.num_layers):
        hidden = _layer(graph, hidden, f"encoder.layer.{layer}", weights, shape)
    if not by_token:
        hidden = graph.node("ReduceMean", hidden, graph.weight("time", np.array([1])), keepdims=0)
    unit = graph.node("LpNormalization", hidden, axis=-1, p=2)
    name, sizes = ("token_vectors", [1, "T", shape.width]) if by_token else ("embedding", [1, shape.width])
    graph.nodes.append(helper.make_node("Identity", [unit], [name]))
    body = helper.make_graph(
        graph.nodes,
        "sentence_encoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "T"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)],
        [numpy_helper.from_array(value, name) for name, value in graph.weights.items()],
    )
    # The intermediate representation 9 belongs to this operator set and is read by every supported runtime.
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def _embed(graph: _Graph, weights: Mapping[str, Array], shape: Shape) -> str:
    """Token, position and (constant) segment embeddings, summed and normalised: [1, T, D]."""
    types = weights["embeddings.token_type_embeddings.weight"]
    positions = weights["embeddings.position_embeddings.weight"] + types[0]
    tokens = graph.node("Gather", graph.weight("tokens", weights["embeddings.word_embeddings.weight"]), "ids")
    length = graph.node("Shape", "ids", start=1, end=2)
    start, axis = graph.weight("zero", np.array([0])), graph.weight("rows", np.array([0]))
    first = graph.node("Slice", graph.weight("positions", positions), start, length, axis)
    return graph.norm(graph.node("Add", tokens, first), "embeddings.LayerNorm", weights, shape.epsilon)


def _layer(graph: _Graph, x: str, name: str, weights: Mapping[str, Array], shape: Shape) -> str:
    """One encoder layer with the norms after the sums, as BERT has them."""
    attended = graph.node("Add", _attention(graph, x, f"{name}.attention", weights, shape), x)
    x = graph.norm(attended, f"{name}.attention.output.LayerNorm", weights, shape.epsilon)
    inner = graph.linear(x, f"{name}.in", *_dense(weights, f"{name}.intermediate.dense"))
    outer = graph.linear(graph.node("Gelu", inner), f"{name}.out", *_dense(weights, f"{name}.output.dense"))
    return graph.norm(graph.node("Add", outer, x), f"{name}.output.LayerNorm", weights, shape.epsilon)


def _attention(graph: _Graph, x: str, name: str, weights: Mapping[str, Array], shape: Shape) -> str:
    """softmax(Q K^T / sqrt(d)) V, with the three projections as one product and 1/sqrt(d) inside Q's."""
    query, key, value = (_dense(weights, f"{name}.self.{part}") for part in ("query", "key", "value"))
    scale = np.float32((shape.width // shape.num_heads) ** -0.5)
    stacked = [np.concatenate([query[i] * scale, key[i], value[i]]) for i in (0, 1)]
    projected = graph.linear(x, f"{name}.qkv", stacked[0], stacked[1])
    by_head = graph.weight("by_head", np.array([0, 0, 3, shape.num_heads, shape.width // shape.num_heads]))
    heads = graph.node("Transpose", graph.node("Reshape", projected, by_head), perm=[2, 0, 3, 1, 4])
    q, k, v = (graph.node("Gather", heads, graph.weight(f"part_{i}", np.array(i)), axis=0) for i in range(3))
    scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v)
    merged = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = graph.node("Reshape", merged, graph.weight("flat", np.array([0, 0, shape.width])))
    return graph.linear(flat, f"{name}.merge", *_dense(weights, f"{name}.output.dense"))


def _dense(weights: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]
