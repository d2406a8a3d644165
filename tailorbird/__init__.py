"""Tailorbird makes a pre-trained language model yours, four ways, and proves which way won.

>>> import tailorbird
>>> comparison = tailorbird.compare("tickets.jsonl", arms=["tfidf_linear", "few_shot"])  # doctest: +SKIP
>>> comparison.verdict.sentence  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "check": "verbs",
    "compare": "verbs",
    "customize": "verbs",
    "export": "verbs",
    "open_model": "verbs",
    "Workbench": "workbench",
    "TailorbirdError": "errors",
    "Message": "records",
    "Sampling": "records",
    "Passage": "records",
    "Document": "records",
    "Request": "records",
    "Prior": "records",
    "Completion": "records",
    "Example": "records",
    "Task": "data.task",
    "Data": "data.task",
    "Model": "models.model",
    "Wrapped": "models.model",
    "Technique": "techniques.technique",
    "Recipe": "techniques.technique",
    "Knowledge": "techniques.knowledge",
    "FewShot": "techniques.few_shot",
    "LinearPrior": "techniques.linear_prior",
    "FineTune": "techniques.fine_tune",
    "FromScratch": "techniques.from_scratch",
    "evaluate": "evaluation.evaluate",
}
"""Where each public name lives; imported when first asked for, so that `import tailorbird` is instant."""

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tailorbird' has no attribute {name!r}")
    return getattr(import_module(f"tailorbird.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
