"""Ask a model every example and keep each answer with its scores; measure how long one answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.data.task import Task
from tailorbird.errors import NotFound, RequestError
from tailorbird.evaluation.answer_rows import completion_from_json, completion_to_json
from tailorbird.evaluation.metrics import Metric
from tailorbird.models.model import Model
from tailorbird.records import Completion, Example, Request

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example's answer and its scores, enough to show it without the model or the data."""

    example_id: str
    question: str
    expected: str
    scores: Mapping[str, float]
    completion: Completion
    document: str | None = None
    """The document the example is about; examples of one document are one cluster."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every answer of one model to one list of examples, in their order."""

    rows: tuple[Row, ...]

    def scores(self, metric: str) -> list[float]:
        """The scores of one metric, in the examples' order.

        Raises:
            NotFound: the metric was not measured.
        """
        try:
            return [row.scores[metric] for row in self.rows]
        except KeyError:
            known = ", ".join(self.rows[0].scores)
            raise NotFound(
                f"The metric {metric!r} was not measured, only {known}. Evaluate again with it."
            ) from None

    def mean(self, metric: str) -> float:
        """The mean score of one metric, in [0, 1]; 0 where there are no rows."""
        scores = self.scores(metric)
        return sum(scores) / len(scores) if scores else 0.0

    @property
    def expected(self) -> list[str]:
        """The expected completions, in order."""
        return [row.expected for row in self.rows]

    @property
    def answers(self) -> list[str]:
        """The answers' texts without surrounding space, in order."""
        return [row.completion.text.strip() for row in self.rows]

    @property
    def groups(self) -> list[str] | None:
        """The cluster of every example where examples share documents; None where none do."""
        named = [row.document for row in self.rows if row.document is not None]
        if len(set(named)) == len(named):
            return None
        return [row.document or f"example {row.example_id}" for row in self.rows]

    def to_rows(self) -> list[dict[str, Any]]:
        """JSON-like rows, one an answer; `from_rows` gives the same evaluation back."""
        return [
            {
                "example_id": row.example_id,
                "question": row.question,
                "expected": row.expected,
                "document": row.document,
                "scores": dict(row.scores),
                "completion": completion_to_json(row.completion),
            }
            for row in self.rows
        ]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Evaluation:
        """Reads what `to_rows` wrote."""
        return cls(tuple(_row_from_json(row) for row in rows))


def evaluate(
    model: Model,
    examples: Sequence[Example],
    task: Task,
    metrics: Mapping[str, Metric],
    *,
    batch_size: int = 32,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Asks `model` every example as `task` words it and scores the answers.

    Args:
        model: Anything that answers requests.
        examples: What is asked; `task.ask(example)` is the request.
        task: How an example becomes a request.
        metrics: Metrics by name.
        batch_size: Requests given to the model at once; where one would be left over, it goes with those before.
            Several answers depend on nothing that was asked before; a single one may, in its last bits.
        on_progress: Called after every batch with (done, total).

    Raises:
        RequestError: the model gave more or fewer completions than requests.
    """
    rows: list[Row] = []
    while left := len(examples) - len(rows):
        size = left if left == batch_size + 1 > 2 else batch_size
        batch = examples[len(rows) : len(rows) + size]
        completions = _answer(model, [task.ask(example) for example in batch])
        rows += [_row(e, c, metrics) for e, c in zip(batch, completions, strict=True)]
        if on_progress:
            on_progress(len(rows), len(examples))
    return Evaluation(tuple(rows))


def _row(example: Example, completion: Completion, metrics: Mapping[str, Metric]) -> Row:
    return Row(
        example_id=example.id,
        question=example.prompt,
        expected=example.completion,
        scores={name: float(metric(example, completion)) for name, metric in metrics.items()},
        completion=completion,
        document=example.document,
    )


def _row_from_json(row: Mapping[str, Any]) -> Row:
    values: dict[str, Any] = {**row, "completion": completion_from_json(row["completion"])}
    return Row(**values)


def _answer(model: Model, requests: Sequence[Request]) -> list[Completion]:
    completions = model.answer(requests)
    if len(completions) != len(requests):
        raise RequestError(
            f"The model {model.name!r} gave {len(completions)} completions for {len(requests)} requests; "
            "expected one each, in order. Fix its `answer`."
        )
    return completions


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A request whose answer alone differs from its answer in a batch."""

    question: str
    alone: str
    batched: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of single requests, answered one by one, and answers that batching changed."""

    seconds: tuple[float, ...]
    mismatches: tuple[Mismatch, ...] = ()

    @property
    def p50_s(self) -> float | None:
        """The median; None where nothing was measured."""
        return _percentile(self.seconds, 0.5)

    @property
    def p95_s(self) -> float | None:
        """The 95th percentile, between order statistics linearly; None where nothing was measured."""
        return _percentile(self.seconds, 0.95)


def measure_latency(
    model: Model,
    requests: Sequence[Request],
    n: int = 12,
    *,
    batched: Sequence[Completion] | None = None,
    on_progress: Progress | None = None,
) -> Latency:
    """Answers up to `n` of the requests one by one, after one answer to warm up.

    Args:
        model: Anything that answers requests.
        requests: What to choose from; the chosen are spread evenly.
        n: How many to time; 0 measures nothing.
        batched: The answers that `requests` got in a batch; without, they are asked for here.
        on_progress: Called after every answer with (done, total).
    """
    chosen = spread(len(requests), n)
    if not chosen:
        return Latency(())
    together = batched or _answer(model, requests)
    # The warm-up is a request that is not timed where there is one, so that no cache holds an answer.
    spare = next((i for i in range(len(requests)) if i not in chosen), chosen[0])
    _answer(model, [requests[spare]])
    seconds: list[float] = []
    mismatches: list[Mismatch] = []
    for index in chosen:
        start = time.perf_counter()
        alone = _answer(model, [requests[index]])[0].text
        seconds.append(time.perf_counter() - start)
        if alone != together[index].text:
            mismatches.append(Mismatch(requests[index].question, alone, together[index].text))
        if on_progress:
            on_progress(len(seconds), len(chosen))
    return Latency(tuple(seconds), tuple(mismatches))


def spread(total: int, n: int) -> list[int]:
    """Up to n indices below `total`, evenly spaced."""
    count = min(n, total)
    return [i * total // count for i in range(count)]


def _percentile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
