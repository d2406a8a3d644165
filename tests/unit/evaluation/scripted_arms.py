"""Small models with scripted answers, and the data to judge them on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tailorbird.data.task import Data, Task
from tailorbird.errors import EndpointError
from tailorbird.evaluation.arms import Arm
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.records import Completion, Example, Passage, Request, Usage

LABELS = ("card_lost", "delivery", "refund", "top_up")
CLASSIFY = Task("classify", "Name the category.", LABELS)


@dataclass
class Scripted:
    """Right on about `rate` of the messages, the same ones every time."""

    rate: float
    name: str = "scripted"
    num_parameters: int | None = 1000
    tokens: int = 10
    calls: list[int] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(len(requests))
        return [self._one(request) for request in requests]

    def stream(self, request: Request) -> Iterator[str]:
        yield self._one(request).text

    def _one(self, request: Request) -> Completion:
        number = int(request.question.split()[-1])
        right = LABELS[number % 4]
        luck = random.Random(f"{self.name} {number}").random()
        text = right if luck < self.rate else LABELS[(number + 1) % 4]
        chances = {label: 0.7 if label == text else 0.1 for label in LABELS}
        evidence = (Passage("p1", "faq.md", f"Passage for {number}", title="FAQ"),)
        return Completion(
            text, "choice", Usage(self.tokens + 4, 2, 4), 0.5, chances, request.with_evidence(evidence)
        )


@dataclass
class Failing:
    """An endpoint that is down."""

    name: str = "down"

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        raise EndpointError("The endpoint https://models.example does not answer. Try again later.")

    def stream(self, request: Request) -> Iterator[str]:
        yield from ()


@dataclass
class Builds:
    """Counts how often each arm was built; may pull the plug while an arm answers."""

    counts: dict[str, int] = field(default_factory=dict)

    def arm(self, name: str, build: Callable[[], object], **settings: object) -> Arm:
        def counted() -> object:
            self.counts[name] = self.counts.get(name, 0) + 1
            return build()

        return Arm(name, counted, **settings)


def messages(start: int, stop: int) -> tuple[Example, ...]:
    return tuple(Example.pair(f"message {i}", LABELS[i % 4]) for i in range(start, stop))


def classify_data(num_test: int = 120) -> Data:
    return Data(CLASSIFY, messages(0, 40), messages(40, 100), messages(100, 100 + num_test))


class Wrong(Scripted):
    """Wrong on these messages, right on all others."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(1.0)
        self.numbers = set(numbers)

    def _one(self, request: Request) -> Completion:
        number = int(request.question.split()[-1])
        return Completion(LABELS[(number + (number in self.numbers)) % 4])


def compared(data: Data, **models: object) -> Comparison:
    """A comparison of these models by name; the one called `floor` is one."""
    arms = [Arm(name, lambda model=model: model, name, name == "floor") for name, model in models.items()]
    metrics = default_metrics(data.task)
    return compare(arms, data, metrics, primary=next(iter(metrics)))
