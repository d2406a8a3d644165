"""Opening what a name or a MODEL reference stands for, ready to be asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird import plugins
from tailorbird.catalogue import list_models, model_folder, package_time
from tailorbird.data.task import Task
from tailorbird.errors import NotFound
from tailorbird.records import Completion, Example, Message, Request, Sampling
from tailorbird.references import is_reference, open_base

if TYPE_CHECKING:
    from tailorbird.models.model import Model


@dataclass(frozen=True)
class OpenModel:
    """A model ready to be asked, with the task it was made for and held-out examples to replay."""

    id: str
    model: Model
    task: Task | None = None
    created: int = 0
    replay: tuple[Example, ...] = ()

    def request(
        self,
        messages: Sequence[Message],
        *,
        sampling: Sampling | None = None,
        choices: tuple[str, ...] | None = None,
        schema: str | None = None,
    ) -> Request:
        """The request that the model was measured with; what the caller gives takes its place."""
        request = self.task.request(messages) if self.task else Request(tuple(messages))
        if sampling is not None:
            request = replace(request, sampling=sampling)
        if schema is not None:
            return replace(request, schema=schema, choices=None)
        return replace(request, choices=choices, schema=None) if choices is not None else request

    def ask_all(self, texts: Sequence[str]) -> list[Completion]:
        """Answers several messages, each on its own, as it was measured."""
        return self.model.answer([self.request([Message("user", text)]) for text in texts])

    def ask(self, text: str, *, sampling: Sampling | None = None) -> Completion:
        """Answers one message."""
        return self.model.answer([self.request([Message("user", text)], sampling=sampling)])[0]


def open_reference(state: Path, reference: str, key_env: str | None = None) -> OpenModel:
    """A model by saved name, arm of the last comparison, `winner`, or any MODEL reference.

    Args:
        state: a project's state folder.
        reference: what the user wrote.
        key_env: environment variable with an endpoint's key.

    Raises:
        NotFound: nothing of that name; the message lists what there is.
    """
    folder = model_folder(state, reference)
    if folder is not None:
        from tailorbird.models.folders import load_model, read_record

        if read_record(folder)["weights"]["kind"] == "local":
            set_threads()
        saved = load_model(folder, plugins.rewrite_loaders())
        created = int(saved.lineage.get("created", 0))
        return OpenModel(reference, saved.model, saved.task, created, saved.replay)
    if not is_reference(reference):
        names = ", ".join(info.id for info in list_models(state))
        raise NotFound(
            f"model {reference!r}: no saved model, arm of the last comparison, folder or file of that name. "
            f"There are: {names}. A MODEL may also be a .gguf file, hf:org/name or URL#model."
        )
    return OpenModel(reference, open_base(reference, key_env), created=package_time())


def set_threads() -> None:
    """As many threads as OMP_NUM_THREADS says, else this process's share of the cores that it may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or share))
