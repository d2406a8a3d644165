"""Which metrics a comparison measures: built-in ones, those of installed packages, and functions in a file.

rouge_l               built in, or an entry point of the group tailorbird.metrics
scores.py:closeness   the function `closeness` in the file scores.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird import plugins
from tailorbird.errors import DataError, NotFound, RecipeError
from tailorbird.records import Completion

if TYPE_CHECKING:
    from tailorbird.data.task import Data, Task
    from tailorbird.evaluation.metrics import Metric

METRICS = "tailorbird.metrics"
_IN_FILE = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")


def metric_name(reference: str) -> str:
    """What a metric is called in tables: a function in a file by the file's name and its own.

    >>> metric_name("/home/ada/desk/scores.py:closeness"), metric_name("chrf")
    ('scores.py:closeness', 'chrf')
    """
    found = _IN_FILE.fullmatch(reference)
    return f"{Path(found['path']).name}:{found['function']}" if found else reference


def beside(folder: Path, reference: str) -> str:
    """The reference with its file, if it names one, relative to a folder."""
    found = _IN_FILE.fullmatch(reference)
    return f"{folder / Path(found['path']).expanduser()}:{found['function']}" if found else reference


def metrics_of(task: Task, references: Sequence[str]) -> dict[str, Metric]:
    """The metrics that a task has by default and those that are named, by name.

    Raises:
        NotFound: an unknown name, or a file or function that is not there.
        RecipeError: two of one name, or a function that is no metric.
    """
    from tailorbird.evaluation.metrics import default_metrics

    metrics = default_metrics(task)
    found: dict[str, str] = {}
    for reference in references:
        name = metric_name(reference)
        if found.setdefault(name, reference) != reference:
            raise RecipeError(f"metrics: {found[name]} and {reference} are both called {name!r}. Rename one.")
        metrics[name] = _metric(reference)
    return metrics


def check_metrics(metrics: Mapping[str, Metric], chosen: Sequence[str], data: Data) -> None:
    """Looks at what would otherwise fail after hours: functions of one's own are tried, JSON is read.

    Args:
        metrics: all that are measured.
        chosen: the names of those that decide or were asked for.
        data: what they are measured on.

    Raises:
        InputError: a function fails on an example with the right answer to it.
        DataError: fields of JSON are to be measured, and a completion that should come is no JSON.
    """
    from tailorbird.evaluation.own_metrics import OwnMetric

    if "json_fields" in chosen:
        _check_json(data)
    for example in (data.dev or data.test)[:1]:
        request = data.task.ask(example)
        even = {label: 1 / len(request.choices) for label in request.choices} if request.choices else None
        right = Completion(example.completion, probabilities=even, asked=request)
        for metric in metrics.values():
            if isinstance(metric, OwnMetric):
                metric(example, right)


def _metric(reference: str) -> Metric:
    from tailorbird.evaluation.metrics import METRICS as BUILT_IN
    from tailorbird.evaluation.own_metrics import checked_metric, metric_from_file

    if found := _IN_FILE.fullmatch(reference):
        return metric_from_file(reference, Path(found["path"]), found["function"])
    if reference in BUILT_IN:
        return BUILT_IN[reference]
    brought = plugins.names(METRICS)
    if reference not in brought:
        raise NotFound(
            f"metric {reference!r} is unknown. Known: {', '.join([*BUILT_IN, *brought])}; or FILE.py:FUNCTION for "
            "one of your own. Check the spelling, or install the package that brings it."
        )
    return checked_metric(reference, plugins.part(METRICS, reference))


def _check_json(data: Data) -> None:
    from tailorbird.evaluation.metrics import is_unanswerable
    from tailorbird.evaluation.text_metrics import is_json

    for examples in (data.dev, data.test):
        for example in examples:
            if not is_json(example.completion) and not is_unanswerable(example):
                where = f"{example.file}:{example.line}" if example.file else f"example {example.id}"
                raise DataError(
                    f"{where}: json_fields compares JSON, but the completion is {example.completion!r:.80}. Expected a "
                    "JSON document. Correct it, or choose another metric, such as token_f1."
                )
