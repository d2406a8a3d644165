"""Which parts exist: the built-in ones and those that installed packages bring as entry points.

A package adds a part by an entry point in one of these groups; its name is the word users write:

    tailorbird.techniques   a frozen dataclass with `apply(model, data)`
    tailorbird.wrappers     a function (folder, settings) -> rewrite, for saved models
    tailorbird.metrics      a function (example, completion) -> float in [0, 1]
    tailorbird.trackers     a function (folder, name) -> tracker, told of every training step
    tailorbird.connectors   called with (place, **settings), gives a `Connector`: documents to be indexed
    tailorbird.sources      a frozen dataclass with `search(query, k)`: passages, asked for live
    tailorbird.vector_stores  called with (folder, dimensions, place), gives a `VectorStore`: see `sources.stores`
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, wraps
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from tailorbird.errors import NotFound
from tailorbird.sources.live_sources import LIVE_KINDS
from tailorbird.sources.setting_types import checked_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tailorbird.models.folders import LoadRewrite
    from tailorbird.models.model import Rewrite

CONNECTORS = "tailorbird.connectors"
BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "tailorbird.techniques": {
        "knowledge": "tailorbird.techniques.knowledge:Knowledge",
        "few_shot": "tailorbird.techniques.few_shot:FewShot",
        "linear_prior": "tailorbird.techniques.linear_prior:LinearPrior",
        "fine_tune": "tailorbird.techniques.fine_tune:FineTune",
        "from_scratch": "tailorbird.techniques.from_scratch:FromScratch",
        "blank": "tailorbird.techniques.floors:BlankFloor",
        "majority": "tailorbird.techniques.floors:MajorityFloor",
        "tfidf_linear": "tailorbird.techniques.floors:TfidfFloor",
        "embedding_linear": "tailorbird.techniques.floors:EmbeddingFloor",
        "nearest": "tailorbird.techniques.floors:NearestFloor",
    },
    "tailorbird.wrappers": {
        "knowledge": "tailorbird.techniques.lookup:load_lookup",
        "few_shot": "tailorbird.techniques.few_shot:load_metaprompt",
        "linear_prior": "tailorbird.techniques.linear_prior:load_prior",
    },
    "tailorbird.trackers": {
        "tensorboard": "tailorbird.trackers:tensorboard",
        "wandb": "tailorbird.trackers:wandb",
        "mlflow": "tailorbird.trackers:mlflow",
    },
    CONNECTORS: {
        "folder": "tailorbird.sources.folder:folder_at",
        "web_pages": "tailorbird.sources.web_pages:web_pages_at",
        "web_site": "tailorbird.sources.web_site:web_site_at",
        "mcp_resources": "tailorbird.sources.mcp_resources:mcp_resources_at",
        "wikipedia_dump": "tailorbird.sources.wikipedia_dump:wikipedia_dump_at",
        "zim": "tailorbird.sources.zim:zim_at",
        "sql": "tailorbird.sources.sql:sql_at",
        "git": "tailorbird.sources.git:git_at",
        "object_storage": "tailorbird.sources.object_storage:object_storage_at",
    },
    "tailorbird.sources": LIVE_KINDS,
}
FLOORS = ("blank", "majority", "tfidf_linear", "embedding_linear", "nearest")


def names(group: str) -> list[str]:
    """The names of all parts of a group, built-in ones first."""
    brought = [point.name for point in entry_points(group=group)]
    return list(dict.fromkeys([*BUILT_IN.get(group, {}), *sorted(brought)]))


def part(group: str, name: str) -> Any:
    """The part of this name; only now is its module imported. A connector checks its settings' types first.

    Raises:
        NotFound: there is none.
    """
    if target := BUILT_IN.get(group, {}).get(name):
        module, _, attribute = target.partition(":")
        return _checking(group, name, getattr(import_module(module), attribute))
    for point in entry_points(group=group):
        if point.name == name:
            return _checking(group, name, point.load())
    raise NotFound(
        f"{group.removeprefix('tailorbird.').removesuffix('s')} {name!r} is unknown. "
        f"Known: {', '.join(names(group))}. Check the spelling, or install the package that brings it."
    )


def _checking(group: str, name: str, found: Any) -> Any:
    """A connector that refuses settings of other types than it names, for they come as texts; other parts as they are.

    A filter that is taken for another one would empty an index.
    """
    if group != CONNECTORS:
        return found

    @wraps(found)
    def make(*place: Any, **settings: Any) -> Any:
        return found(*place, **checked_settings(f"connector {name!r}", found, settings))

    return make


def rewrite_loaders() -> Mapping[str, LoadRewrite]:
    """How to load each kind of wrapper of a saved model."""
    group = "tailorbird.wrappers"
    return {name: partial(_load_rewrite, group, name) for name in names(group)}


def _load_rewrite(group: str, name: str, folder: Path, settings: dict[str, Any]) -> Rewrite:
    return part(group, name)(folder, settings)
