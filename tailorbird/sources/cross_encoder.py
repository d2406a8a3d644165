"""A cross-encoder in onnxruntime: one network reads the question and the passage together.

Nogueira & Cho 2019, "Passage re-ranking with BERT", arXiv:1901.04085. Any that sentence-transformers or
optimum has exported: a folder with `tokenizer.json` and `model.onnx`, there or in `onnx/`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.errors import IntegrityError, NotFound
from tailorbird.records import Passage
from tailorbird.sources.passage_rows import embedded_text

MAX_TOKENS = 512
"""Of question and passage together; the end of the longer is left out first."""
MAX_CHARACTERS = 20_000
NETWORKS = ("model.onnx", "onnx/model.onnx")
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class CrossEncoder:
    """Scores each passage by a network that reads it with the question. It is a `Reranker`.

    Pairs go through one by one, so that a score doesn't depend on its neighbours.

    Args:
        reference: A folder, or `hf:org/name` for one in the hub's cache on this machine.
        threads: Processor threads of one pair.

    Raises:
        NotFound: The folder or its files are not there.
        IntegrityError: The network can't be loaded, or is no cross-encoder.
    """

    trust = 1.0

    def __init__(self, reference: str, threads: int = 1) -> None:
        from tokenizers import Tokenizer

        folder = _folder_of(reference)
        network = next((folder / name for name in NETWORKS if (folder / name).is_file()), None)
        if network is None or not (folder / "tokenizer.json").is_file():
            raise NotFound(
                f"{reference}: expected a cross-encoder's tokenizer.json and model.onnx, there or in onnx/, in "
                f"{folder}. Export one with: optimum-cli export onnx --model NAME --task text-classification FOLDER"
            )
        self.reference = reference
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS, strategy="longest_first")
        self._session = _session(network, threads)
        self._inputs = [given.name for given in self._session.get_inputs()]
        if not set(self._inputs) <= INPUTS or "input_ids" not in self._inputs:
            raise IntegrityError(
                f"{network}: its inputs are {', '.join(self._inputs)}; expected some of {', '.join(sorted(INPUTS))}. "
                "It is no cross-encoder for texts: export one for the task text-classification."
            )

    @property
    def name(self) -> str:
        return f"cross-encoder-{self.reference}"

    def scores(self, query: str, passages: Sequence[Passage]) -> list[float]:
        """The network's output for each passage; of two outputs, the second less the first.

        Raises:
            IntegrityError: It has more than two, so none says how well a passage fits.
        """
        return [self._score(query, embedded_text(passage)) for passage in passages]

    def _score(self, query: str, text: str) -> float:
        pair = self._tokenizer.encode(_readable(query), _readable(text))
        known = {
            "input_ids": pair.ids,
            "attention_mask": pair.attention_mask,
            "token_type_ids": pair.type_ids,
        }
        fed = {name: np.array([known[name]], dtype=np.int64) for name in self._inputs}
        found = np.asarray(self._session.run(None, fed)[0], dtype=np.float64).reshape(-1)
        if found.size > 2:
            raise IntegrityError(
                f"{self.reference}: it gives {found.size} numbers for a pair; expected one, or two. It is no "
                "cross-encoder that tells how well a passage fits: take one trained for ranking."
            )
        return float(found[-1] - found[0]) if found.size == 2 else float(found[0])


def _folder_of(reference: str) -> Path:
    if not reference.startswith("hf:"):
        folder = Path(reference)
        if not folder.is_dir():
            raise NotFound(f"reranker {reference!r}: there is no such folder. Name a folder, or hf:org/name.")
        return folder
    name = reference.removeprefix("hf:")
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    kept = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"models--{name.replace('/', '--')}"
    mark = kept / "refs" / "main"
    folder = kept / "snapshots" / (mark.read_text("utf-8").strip() if mark.is_file() else "-")
    if not folder.is_dir():
        raise NotFound(
            f"reranker {reference!r}: it is not in the hub's cache at {kept.parent}. Fetch it with: "
            f"hf download {name} tokenizer.json onnx/model.onnx"
        )
    return folder


def _session(network: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise IntegrityError(
            f"{network} can't be loaded as a network: {error}. Export it once more, or take another."
        ) from error


def _readable(text: str) -> str:
    """The text's beginning, without lone surrogates, which no tokenizer takes."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
