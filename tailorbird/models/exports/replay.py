"""Replay: the exported artefact is asked what the model it was made from is asked, and must answer alike.

A closed set compares the best label and every label's probability; a free answer, its tokens up to the
first that differs. How much may differ depends on the precision, and is stated in `TOLERANCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tailorbird.data.task import Task
from tailorbird.errors import InputError, ReplayMismatch
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, as_seen_by_weights
from tailorbird.records import Completion, Example, Request

if TYPE_CHECKING:
    from tailorbird.models.chat_template import Prompt

MOST_EXAMPLES = 32


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from the model that it was made from.

    `labels_alike` is the least share of closed-set requests with the same best label, where two labels
    closer than `near_tie` in our probabilities count as one. `difference` is the most that any label's
    probability may differ; None leaves that open. `answers_alike` is the least mean share of a free
    answer's tokens before the first that differs.
    """

    labels_alike: float
    near_tie: float
    difference: float | None
    answers_alike: float


TOLERANCES = {
    # The same numbers, summed in another order: differences are those of float32 rounding.
    "f32": Tolerance(1.0, 0.001, 0.001, 0.98),
    # Weights keep 11 bits; llama.cpp also keeps keys and values in float16. One token of a free answer at a
    # near tie changes all that follow it.
    "f16": Tolerance(1.0, 0.03, 0.03, 0.9),
    # Weights and activations keep 8 bits: each layer adds an error of up to 0.4 %.
    "bf16": Tolerance(1.0, 0.1, 0.1, 0.75),
    # Weights keep 8 bits of the greatest among 32, and so do activations: the error of bf16, about.
    "q8_0": Tolerance(0.96, 0.1, 0.2, 0.75),
    # 16 steps for 32 weights change small models noticeably; what must not change is which label wins.
    "q4": Tolerance(0.85, 0.1, None, 0.4),
}
"""By precision. Stated beforehand, and the same for every model."""


@dataclass(frozen=True)
class Asked:
    """A request as the artefact gets it. `end` is the text of the token that ends an answer."""

    messages: tuple[dict[str, str], ...]
    choices: tuple[str, ...] | None
    max_tokens: int
    stop: tuple[str, ...]
    end: str


@dataclass(frozen=True)
class Answered:
    """What the artefact made of it: the prompt's tokens, and a text or each label's probability."""

    prompt: tuple[int, ...]
    text: str
    probabilities: dict[str, float] | None = None


AskArtefact = Callable[[Sequence[Asked]], list[Answered]]


@dataclass(frozen=True)
class ReplayedAnswer:
    """One request, our answer and the artefact's.

    `likeness` is 1 for the same label or text; otherwise 0 for a label, and for a text the share of tokens
    before the first that differs. `difference` is the greatest of the labels' probabilities.
    """

    example: str
    question: str
    ours: str
    theirs: str
    likeness: float
    near_tie: bool = False
    difference: float | None = None


@dataclass(frozen=True)
class Replay:
    """What a replay found. `other_tokens` counts prompts that a plain chat template cuts otherwise than ours."""

    engine: str
    dtype: str
    tolerance: Tolerance
    answers: tuple[ReplayedAnswer, ...]
    other_tokens: int = 0

    @property
    def alike(self) -> int:
        """Answers that are the same, near ties included."""
        return sum(answer.likeness == 1 or answer.near_tie for answer in self.answers)

    @property
    def largest_difference(self) -> float | None:
        """The greatest difference of any label's probability; None without closed sets."""
        return max((a.difference for a in self.answers if a.difference is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """The contents of replay.json."""
        return {
            "engine": self.engine,
            "dtype": self.dtype,
            "examples": len(self.answers),
            "alike": self.alike,
            "largest_difference": self.largest_difference,
            "prompts_of_other_tokens": self.other_tokens,
            "tolerance": asdict(self.tolerance),
            "answers": [asdict(answer) for answer in self.answers],
        }


def prompts_of(
    weights: LocalWeights, model: Model, task: Task, examples: Sequence[Example]
) -> list[Prompt]:
    """What the weights see of the first examples, beneath all wrappers, trimmed to the context.

    Raises:
        InputError: none of the examples reaches the weights.
    """
    seen = [as_seen_by_weights(model, task.ask(example)) for example in examples[:MOST_EXAMPLES]]
    prompts = [weights.engine.template.prompt(r) for r in seen if r.choices is None or len(r.choices) > 1]
    if not prompts:
        raise InputError(
            f"export: of {len(examples)} examples none reaches the weights of {model.name!r}, so there is nothing to "
            "replay. Give labelled examples with --examples FILE."
        )
    return prompts


def replay(
    weights: LocalWeights, prompts: Sequence[Prompt], ask: AskArtefact, *, engine: str, dtype: str
) -> Replay:
    """Asks the artefact and compares.

    Raises:
        ReplayMismatch: it differs by more than the tolerance of its precision.
    """
    ours = weights.answer([prompt.request for prompt in prompts])
    theirs = ask([_asked(weights, prompt) for prompt in prompts])
    tolerance = TOLERANCES[dtype]
    other = _check_tokens(weights, prompts, theirs)
    answers = tuple(
        _compared(weights, prompt.request, mine, other_one, tolerance)
        for prompt, mine, other_one in zip(prompts, ours, theirs, strict=True)
    )
    found = Replay(engine, dtype, tolerance, answers, other)
    _judge(found)
    return found


def _asked(weights: LocalWeights, prompt: Prompt) -> Asked:
    request, template = prompt.request, weights.engine.template
    return Asked(
        messages=tuple({"role": m.role, "content": m.content} for m in template.messages(request)),
        choices=request.choices,
        max_tokens=min(request.sampling.max_tokens, template.context - len(prompt.ids)),
        stop=request.sampling.stop,
        end=weights.engine.tokenizer.convert_ids_to_tokens(template.stop_id),
    )


def _check_tokens(weights: LocalWeights, prompts: Sequence[Prompt], theirs: Sequence[Answered]) -> int:
    """The artefact must cut a conversation as the tokenizer it was made from does, plainly applied.

    Ours differs from that where a text holds control tokens, or blanks where the template meets it.
    """
    from tailorbird.models.chat_template import PLAIN_TEMPLATE

    tokenizer, template, other = weights.engine.tokenizer, weights.engine.template, 0
    for prompt, answer in zip(prompts, theirs, strict=True):
        turns = [{"role": m.role, "content": m.content} for m in template.messages(prompt.request)]
        text = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=True,
            chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
        )
        plain = tuple(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        if answer.prompt != plain:
            at = next((i for i, (a, b) in enumerate(zip(plain, answer.prompt, strict=False)) if a != b), -1)
            at = min(len(plain), len(answer.prompt)) if at < 0 else at
            raise ReplayMismatch(
                f"export: its tokenizer cuts {prompt.request.question[:60]!r} otherwise: {len(plain)} tokens here, "
                f"{len(answer.prompt)} there, the first difference at token {at}: {plain[at : at + 3]} here, "
                f"{answer.prompt[at : at + 3]} there. Nothing was written. Export to another format."
            )
        other += plain != prompt.ids
    return other


def _compared(
    weights: LocalWeights, request: Request, ours: Completion, theirs: Answered, tolerance: Tolerance
) -> ReplayedAnswer:
    place = (request.example_id or "", request.question, ours.text, theirs.text)
    if ours.probabilities is None or theirs.probabilities is None:
        return ReplayedAnswer(*place, likeness=_shared_beginning(weights, ours.text, theirs.text))
    mine, other = ours.probabilities, theirs.probabilities
    return ReplayedAnswer(
        *place,
        likeness=float(ours.text == theirs.text),
        near_tie=mine[ours.text] - mine[theirs.text] <= tolerance.near_tie,
        difference=max(abs(mine[label] - other[label]) for label in mine),
    )


def _shared_beginning(weights: LocalWeights, ours: str, theirs: str) -> float:
    """The share of the longer answer's tokens before the first that differs."""
    mine, other = (weights.engine.template.completion(text) for text in (ours, theirs))
    same = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
    return same / max(len(mine), len(other))


def _judge(found: Replay) -> None:
    closed = [a for a in found.answers if a.difference is not None]
    free = [a for a in found.answers if a.difference is None]
    tolerance, advice = found.tolerance, _ADVICE.get(found.dtype, _ADVICE["f32"])
    least = tolerance.labels_alike
    if closed and (share := sum(a.likeness == 1 or a.near_tie for a in closed) / len(closed)) < least:
        worst = max((a for a in closed if a.likeness < 1), key=lambda a: a.difference or 0)
        raise ReplayMismatch(
            f"export as {found.dtype}: {share:.0%} of {len(closed)} replayed examples get the same label through "
            f"{found.engine}, and at least {least:.0%} must. {_shown(worst)} Nothing was written. {advice}"
        )
    worst = max(closed, key=lambda a: a.difference or 0, default=None)
    if worst and tolerance.difference is not None and (worst.difference or 0) > tolerance.difference:
        raise ReplayMismatch(
            f"export as {found.dtype}: a label's probability differs by {worst.difference:.3f} through "
            f"{found.engine}, and may by {tolerance.difference}. {_shown(worst)} Nothing was written. {advice}"
        )
    if free and (share := sum(a.likeness for a in free) / len(free)) < tolerance.answers_alike:
        raise ReplayMismatch(
            f"export as {found.dtype}: {share:.0%} of the tokens of {len(free)} replayed answers are the same through "
            f"{found.engine}, and at least {tolerance.answers_alike:.0%} must be. "
            f"{_shown(min(free, key=lambda a: a.likeness))} Nothing was written. {advice}"
        )


def _shown(answer: ReplayedAnswer) -> str:
    return (
        f"The most different: {answer.question[:80]!r}, answered {answer.ours[:60]!r} here and {answer.theirs[:60]!r} "
        "there."
    )


_FINER = "Choose a finer --dtype ({}), and compare again."
_ADVICE = {
    "q4": _FINER.format("q8_0 or f16"),
    "q8_0": _FINER.format("f16"),
    "bf16": _FINER.format("f32"),
    "f16": "Export to another format, and report this: rounding to 16 bits does not explain it.",
    "f32": "Report this: the export is in full precision and should not differ.",
}
"""What to do, by precision."""
