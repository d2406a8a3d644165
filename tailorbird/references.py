"""MODEL references: what a user writes for a model that no project has saved.

starter          SmolLM2-135M-Instruct, as its package carries it
a folder         in transformers' format, or a .gguf file
hf:org/name      from the hub, or its local cache
URL#model        behind an OpenAI-compatible endpoint

Names of saved models and of a comparison's arms are the workbench's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailorbird.models.chat_template import ChatTemplate
    from tailorbird.models.model import Model

STARTER = "starter"
DEFAULT_KEY_ENV = "OPENAI_API_KEY"


def is_remote(reference: str) -> bool:
    """Whether a MODEL reference is an endpoint (`URL#model`).

    >>> is_remote("http://127.0.0.1:8000/v1#starter"), is_remote("hf:org/name")
    (True, False)
    """
    return "://" in reference


def is_reference(text: str) -> bool:
    """Whether a text can be a MODEL reference at all; folders and files must be there."""
    return text == STARTER or text.startswith("hf:") or is_remote(text) or Path(text).exists()


def open_template(reference: str) -> ChatTemplate:
    """The chat template and tokenizer of a base on this machine, without its weights.

    Raises:
        InputError: an endpoint, whose tokenizer is not at hand.
        NotFound: there is no such file, folder or hub model.
    """
    if is_remote(reference):
        raise InputError(
            f"base {reference!r}: an endpoint's tokenizer is not at hand. Leave --base out, or name a model of "
            "this machine."
        )
    from tailorbird.models.local import open_local_template

    return open_local_template(reference)


def token_counter(reference: str) -> Callable[[str], int]:
    """A function that counts a text's tokens as the model of this reference does."""
    template = open_template(reference)
    return lambda text: len(template.text(text))


def open_base(reference: str, key_env: str | None = None) -> Model:
    """The model that a reference names. torch is imported only for a local one.

    Args:
        reference: see the top of this file.
        key_env: environment variable with an endpoint's key; None takes OPENAI_API_KEY.

    Raises:
        InputError: an endpoint without a model's id.
        NotFound: there is no such file, folder or hub model.
    """
    if is_remote(reference):
        from tailorbird.models.remote import RemoteWeights

        url, _, model = reference.partition("#")
        if not model:
            raise InputError(
                f"model {reference!r}: an endpoint needs the model's id after '#'. "
                f"Write {url}#MODEL, as in http://127.0.0.1:8000/v1#starter."
            )
        return RemoteWeights(url, model, key_env=key_env or DEFAULT_KEY_ENV)
    from tailorbird.models.local import open_local

    return open_local(reference)
