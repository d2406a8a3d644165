"""The models that the server offers, opened when first asked for and kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tailorbird.errors import EndpointError, NotFound, TailorbirdError
from tailorbird.server.failures import SERVER, Refusal

if TYPE_CHECKING:
    from tailorbird.workbench import ModelInfo, OpenModel, Workbench


class OpenedModels:
    """What a workbench lists, and the references that the operator added.

    A client can reach nothing else: a model id is never taken for a path, a hub name or a URL. A model
    that was made anew under its name is opened anew.

    Args:
        workbench: whose models are served.
        references: further MODEL references, such as `hf:org/name` or a folder.
        key_env: environment variable with the key of remote endpoints among them.
    """

    def __init__(
        self, workbench: Workbench, references: Sequence[str] = (), key_env: str | None = None
    ) -> None:
        self._workbench = workbench
        self._references = tuple(references)
        self._key_env = key_env
        self._opening = threading.Lock()
        self._opened: dict[str, tuple[Any, OpenModel]] = {}

    def listed(self) -> dict[str, int]:
        """The ids on offer and when each was made (Unix seconds; 0 where that is not known)."""
        found = {info.id: info.created for info in self._workbench.models()}
        for reference in self._references:
            found.setdefault(reference, 0)
        return found

    def open(self, id: str) -> OpenModel:  # noqa: A002 - the wire's word
        """The model, loaded at most once however many ask at a time.

        Raises:
            Refusal: there is no such model, or it cannot be opened.
        """
        version = self._version(id)
        kept = self._opened.get(id)
        if kept is None or kept[0] != version:
            with self._opening:
                kept = self._opened.get(id)
                if kept is None or kept[0] != version:
                    kept = self._opened[id] = (version, self._load(id))
        return kept[1]

    def _version(self, id: str) -> Any:  # noqa: A002
        """What changes when a model is made anew."""
        info = next((info for info in self._workbench.models() if info.id == id), None)
        if info is None and id not in self._references:
            raise self.missing(id)
        return _version(info)

    def _load(self, id: str) -> OpenModel:  # noqa: A002
        try:
            return self._workbench.open(id, self._key_env)
        except NotFound as error:
            raise self.missing(id) from error
        except EndpointError:
            raise
        except TailorbirdError as error:
            # Whatever is wrong with a saved model is not this client's doing, and will not pass by itself.
            raise Refusal(
                f"model {id!r} cannot be opened: {error}",
                param="model",
                code="engine_error",
                status=500,
                type=SERVER,
                headers={"x-should-retry": "false"},
            ) from error

    def missing(self, id: str) -> Refusal:  # noqa: A002
        """The answer about a model that is not there."""
        shown = id if len(id) <= 100 else id[:100] + "…"
        return Refusal(
            f"The model {shown!r} does not exist here. There are: {', '.join(self.listed()) or 'none'}.",
            param="model",
            code="model_not_found",
            status=404,
        )


def _version(info: ModelInfo | None) -> Any:
    return None if info is None else (info.created, info.size_bytes, str(info.folder))
