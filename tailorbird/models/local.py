"""Local weights: a base model in this process, alone or with one LoRA adapter on it.

What computes is loaded when weights are opened: models without any are read and served without torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird.errors import InputError, NotFound
from tailorbird.models.gguf_file import converted, starter_file
from tailorbird.models.model import Likelihood, Pieces
from tailorbird.records import Completion, Request

if TYPE_CHECKING:
    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.models.engine import Engine

STARTER = "starter"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class LocalWeights:
    """Weights that answer by themselves.

    `reference` is how the base is found again (`starter`, a path, `hf:org/name`), or None for
    weights that exist only here, such as freshly trained ones. `adapter` names the LoRA layers in
    the engine that are switched on for this model.
    """

    name: str
    engine: Engine
    reference: str | None = None
    adapter: str | None = None

    @property
    def num_parameters(self) -> int:
        """Parameters of the base model."""
        return self.engine.num_parameters

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        return self.engine.answer(requests, self.adapter)

    def stream(self, request: Request) -> Pieces:
        return self.engine.stream(request, self.adapter)

    def likelihood(self, expected: Sequence[tuple[Request, str]]) -> Likelihood | None:
        """How likely these weights find the texts that should come: see `surprise`."""
        from tailorbird.models.surprise import likelihood

        return likelihood(self.engine, self.adapter, expected)

    def with_adapter(self, folder: Path) -> LocalWeights:
        """The same base with an adapter loaded from a folder in PEFT's format."""
        adapter = new_adapter_name()
        self.engine.load_adapter(adapter, folder)
        return replace(self, name=f"{self.name} + adapter", adapter=adapter)


def new_adapter_name() -> str:
    """A name that no other adapter of this process has."""
    return f"adapter{next(_numbers)}"


def open_local(reference: str) -> LocalWeights:
    """Opens `starter`, a transformers folder, a GGUF file or `hf:org/name`.

    The same reference opened twice shares one engine, and so one copy of the weights in memory.

    Raises:
        NotFound: there is no such file, folder or hub model.
        InputError: it is there but cannot be loaded.
    """
    folder = _folder_of(reference)
    name = reference if reference == STARTER or reference.startswith("hf:") else Path(reference).stem
    return LocalWeights(name, _engine(folder, _stamp(folder)), reference)


def open_local_template(reference: str) -> ChatTemplate:
    """The chat template that the model of this reference is trained and served with, without its weights.

    Raises:
        NotFound: there is no such file, folder or hub model.
        InputError: it is there but its tokenizer cannot be loaded.
    """
    from transformers import AutoConfig, AutoTokenizer

    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.models.context_limit import context_of

    folder = _folder_of(reference)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder}: transformers cannot load this model's tokenizer ({error}). "
            "Check that config.json and tokenizer.json are there and belong together."
        ) from error
    return ChatTemplate(tokenizer, context_of(config))


@lru_cache(maxsize=4)
def _engine(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> Engine:
    from tailorbird.models.engine import Engine

    del stamp  # part of the key: a folder whose files were replaced is another model
    return Engine.load(folder)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a folder's files."""
    facts = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)


def _folder_of(reference: str) -> Path:
    if reference == STARTER:
        return converted(starter_file())
    if reference.startswith("hf:"):
        return _downloaded(reference.removeprefix("hf:"))
    path = Path(reference).expanduser().resolve()
    if path.is_file():
        return converted(path)
    if not path.is_dir():
        raise NotFound(
            f"model {reference!r}: no such saved model, folder or file. Expected a saved name (`tailor "
            "models list`), "
            "'starter', a transformers folder, a .gguf file, hf:org/name, or URL#model for an endpoint."
        )
    return path


def _downloaded(repository: str) -> Path:
    """The hub model's files, from the local cache where they are there already."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise NotFound(
            f"model 'hf:{repository}': the hub did not give it ({type(error).__name__}: {error}). "
            "Check the name (hf:org/name), the network and HF_HUB_OFFLINE, or log in with `hf auth login` "
            "if it is gated."
        ) from error
