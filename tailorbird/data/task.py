"""What is asked of a model, derived from the examples: the task, and the data of one comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tailorbird.records import Example, Message, Request, Sampling

TaskKind = Literal["classify", "answer"]

MAX_LABELS = 300
MAX_LABEL_CHARS = 60
LISTED_LABELS = 30
"""Up to this many labels are named in the instruction; more would crowd out the message itself."""


@dataclass(frozen=True)
class Task:
    """How a bare message becomes a Request: one instruction, and for a classification its labels.

    Comparing, training, asking and serving all build their requests here, so that what is served
    is what was measured. `max_tokens` bounds a free answer; `schema` is a JSON schema that it keeps to.
    """

    kind: TaskKind
    instruction: str
    labels: tuple[str, ...] = ()
    max_tokens: int = 64
    schema: str | None = None

    def request(self, messages: Sequence[Message], example_id: str | None = None) -> Request:
        """The request for a conversation; a system message of the caller's replaces our instruction."""
        turns = tuple(messages)
        if self.instruction and not any(m.role == "system" for m in turns):
            turns = (Message("system", self.instruction), *turns)
        choices = self.labels if self.kind == "classify" else None
        schema = self.schema if choices is None else None
        sampling = Sampling(max_tokens=self.max_tokens)
        return Request(turns, sampling, choices=choices, example_id=example_id, schema=schema)

    def ask(self, example: Example) -> Request:
        """The request that an example stands for."""
        return self.request(example.messages, example.id)


@dataclass(frozen=True)
class Data:
    """Everything a technique may learn from, and the examples kept apart to judge it.

    `train` fits, `dev` chooses, `test` confirms once; the three share no example. Techniques never
    read `test`. `documents` is a folder or None. The parts of a large file stay on disk, and an
    example is read when asked for.
    """

    task: Task
    train: Sequence[Example]
    dev: Sequence[Example] = ()
    test: Sequence[Example] = ()
    documents: Path | None = None


def infer_task(examples: Sequence[Example], instruction: str | None = None) -> Task:
    """Classification if the completions are few short labels that repeat, else free answers.

    The rule: at most 300 distinct completions, each at most 60 characters, on average at least
    three examples each, and single-example labels in at most a tenth of the examples.
    """
    return task_of(Counter(e.completion for e in examples), instruction)


def task_of(counts: Mapping[str, int] | None, instruction: str | None = None, *, longest: int = 0) -> Task:
    """The task of completions that come so many times each.

    Args:
        counts: completions and how often each comes; None where they are too many to be labels.
        instruction: what the model is told; None makes one.
        longest: characters of the longest completion, for where `counts` is None.
    """
    if counts is None or not is_classification(counts):
        longest = max(map(len, counts), default=80) if counts is not None else longest
        return Task(
            "answer",
            instruction or "Answer the question briefly.",
            max_tokens=min(512, max(16, longest // 2)),
        )
    labels = tuple(sorted(counts))
    return Task("classify", instruction or _label_instruction(labels), labels)


def is_classification(counts: Mapping[str, int]) -> bool:
    """The rule of `infer_task`."""
    singles = sum(1 for n in counts.values() if n == 1)
    total = sum(counts.values())
    return (
        2 <= len(counts) <= MAX_LABELS
        and max(map(len, counts)) <= MAX_LABEL_CHARS
        and total >= 3 * len(counts)
        and singles <= total / 10
    )


def _label_instruction(labels: Sequence[str]) -> str:
    if len(labels) > LISTED_LABELS:
        return "Name the category of the message."
    return "Name the category of the message. Categories: " + ", ".join(labels) + "."
