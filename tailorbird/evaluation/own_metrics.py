"""Metrics of one's own: a Python function in a file, or one that a package brings, checked at every call.

A comparison of hours must neither end in a traceback nor go on with a score that is none: what the function gives, or
raises, is told with the example that it was given.
"""

from __future__ import annotations

import hashlib
import inspect
import numbers
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.evaluation.metrics import Metric
from tailorbird.records import Completion, Example

EXPECTED = (
    "Expected a function of two things, the example and the completion, that gives a number from 0 to 1."
)


@dataclass(frozen=True)
class OwnMetric:
    """A metric that is not built in. `source` is a hash of the file that it is written in; "" where none is known."""

    name: str
    function: Callable[[Example, Completion], Any] = field(compare=False)
    source: str = ""

    def __call__(self, example: Example, completion: Completion) -> float:
        """The score, in [0, 1].

        Raises:
            InputError: the function raised, or gave something else.
        """
        try:
            value = self.function(example, completion)
        except Exception as error:
            raise InputError(
                f"metric {self.name!r}: it raised {type(error).__name__}: {error} at {_told(example, completion)} "
                "Correct the function and compare again."
            ) from error
        if not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
            raise InputError(
                f"metric {self.name!r}: it gave {value!r} for {_told(example, completion)} Expected a number from 0 to "
                "1, 1 being best. Correct the function and compare again."
            )
        return float(value)


def metric_from_file(reference: str, path: Path, function: str) -> OwnMetric:
    """The function of this name in a Python file, which is run for it.

    Args:
        reference: what the user wrote, for messages.
        path: the file.
        function: its name there.

    Raises:
        NotFound: no such file, or nothing of that name in it.
        RecipeError: the file can't be run, or the name stands for something that takes no two arguments.
    """
    if not path.is_file():
        raise NotFound(f'metric {reference!r}: no such file {path}. Write metric = "FILE.py:FUNCTION".')
    module = _run(reference, path)
    if not hasattr(module, function):
        own = [
            n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        raise NotFound(
            f"metric {reference!r}: {path.name} holds no {function!r}. Its functions: {', '.join(own) or 'none'}. "
            "Correct the name behind the colon."
        )
    return checked_metric(f"{path.name}:{function}", getattr(module, function), path)


def checked_metric(name: str, function: Any, path: Path | None = None) -> OwnMetric:
    """The function as a metric whose every score is checked.

    Args:
        name: of the metric.
        function: what to call.
        path: the file that it is written in; None looks for it.

    Raises:
        RecipeError: it can't be called with an example and a completion.
    """
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError) as error:
        what = f"takes other arguments ({error})" if callable(function) else f"is {function!r:.60}"
        raise RecipeError(f"metric {name!r}: it {what}. {EXPECTED}") from error
    return OwnMetric(name, function, _hash_of(path or _file_of(function)))


def identities(metrics: Mapping[str, Metric]) -> list[str]:
    """What tells sets of metrics apart: their names, and of one's own how they are written."""
    sources = {name: metric.source for name, metric in metrics.items() if isinstance(metric, OwnMetric)}
    return sorted(f"{name} {sources[name]}" if sources.get(name) else name for name in metrics)


def _run(reference: str, path: Path) -> ModuleType:
    # A name of its own, so that it neither hides a module nor is hidden by one that was imported before.
    spec = spec_from_file_location(f"tailorbird_metric_{_hash_of(path)}", path)
    assert spec is not None, f"{path} is read as Python"
    assert spec.loader is not None, f"{path} is read as Python"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise RecipeError(
            f"metric {reference!r}: {path} can't be run: {type(error).__name__}: {error}. Correct the file."
        ) from error
    return module


def _file_of(function: Any) -> Path | None:
    try:
        found = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError):
        return None
    return Path(found) if found else None


def _hash_of(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path and path.is_file() else ""


def _told(example: Example, completion: Completion) -> str:
    where = f"{example.file}:{example.line}" if example.file else f"example {example.id}"
    return f"{where} (prompt {example.prompt!r:.60}, answer {completion.text!r:.60})."
