"""Texts a second of several ways to run all-MiniLM-L6-v2. Run by knowledge_ingest.py, in the peers' environment.

    python benchmarks/knowledge_embedders.py JOB.json

Prints RESULT and JSON: of each the best of `ROUNDS` passes over the same texts, alternating, and how close its
vectors are to those of sentence-transformers.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

ROUNDS = 2


def ours(folder):
    from tailorbird.sources.embedder import MiniLM

    return MiniLM(Path(folder)).embed


def torch_batches(folder, size):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder)
    return lambda texts: model.encode(
        texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False
    )


def onnx_batches(folder, size):
    """As fastembed does it: the exported float32 network, texts sorted by length and padded in batches."""
    import onnxruntime
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    file = Path(sys.argv[1]).with_name("exported.onnx")
    if not file.is_file():
        model = AutoModel.from_pretrained(folder).eval()
        ids = torch.ones((2, 8), dtype=torch.int64)
        axes = {name: {0: "N", 1: "T"} for name in ("input_ids", "attention_mask")}
        torch.onnx.export(
            model,
            (ids, ids),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            dynamic_axes={**axes, "hidden": {0: "N", 1: "T"}},
            opset_version=17,
            dynamo=False,
        )
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def embed(texts):
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.empty((len(texts), 384), np.float32)
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            batch = tokenizer.encode_batch([texts[i] for i in rows])
            ids, mask = (np.array([getattr(e, name) for e in batch]) for name in ("ids", "attention_mask"))
            hidden = session.run(["hidden"], {"input_ids": ids, "attention_mask": mask})[0]
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
            vectors[rows] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors

    return embed


MAKERS = {
    "torch": lambda folder: torch_batches(folder, 32),
    "torch_8": lambda folder: torch_batches(folder, 8),
    "onnx_32": lambda folder: onnx_batches(folder, 32),
    "ours": ours,
}


def main():
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    made = {key: MAKERS[key](job["weights"]) for key in MAKERS if key in job["embedders"]}
    best, vectors = dict.fromkeys(made, float("inf")), {}
    for embed in made.values():
        embed(job["texts"][:16])
    for _ in range(ROUNDS):
        for key, embed in made.items():
            began = time.perf_counter()
            vectors[key] = np.asarray(embed(job["texts"]))
            best[key] = min(best[key], time.perf_counter() - began)
    print(
        "RESULT",
        json.dumps(
            {
                key: {
                    "texts_per_s": len(job["texts"]) / best[key],
                    "least_cosine": float((vectors[key] * vectors["torch"]).sum(axis=1).min()),
                }
                for key in made
            }
        ),
    )


if __name__ == "__main__":
    main()
