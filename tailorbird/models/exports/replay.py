"""Replay: the exported artefact is asked what the model it was made from is asked, and must answer alike.

A closed set compares the best label and every label's probability; a free answer, its tokens up to the
first that differs. How much may differ depends on the precision, and is stated in `TOLERANCES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tailorbird.data.task import Task
from tailorbird.errors import InputError, ReplayMismatch
from tailorbird.models.chat_template import PLAIN_TEMPLATE
from tailorbird.models.exports.merged import dtype_name
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, as_seen_by_weights
from tailorbird.records import Completion, Example

if TYPE_CHECKING:
    from tailorbird.models.chat_template import Prompt

MOST_EXAMPLES = 32
NO_DISTANCE = 1e-5
"""Answers this near are the same, whatever they are compared with."""


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
    "f16": Tolerance(1.0, 0.02, 0.02, 0.9),
    # Weights and activations keep 8 bits: each layer adds an error of up to 0.4 %.
    "bf16": Tolerance(1.0, 0.1, 0.1, 0.75),
    # Weights keep 8 bits of the greatest among 32, and so do activations: the error of bf16, about.
    "q8_0": Tolerance(0.96, 0.1, 0.2, 0.75),
    # 16 steps for 32 weights change small models noticeably; what must not change is which label wins.
    "q4": Tolerance(0.85, 0.1, None, 0.4),
}
"""By precision, from the finest to the coarsest. Stated beforehand, and the same for every model.

Beside these an export must be nearer to its model than to the bare base: an adapter that is lost, or
merged with a wrong scale or sign, stays within any tolerance where it changes little.
"""


def tolerance_for(dtype: str, held: str) -> Tolerance:
    """Of two precisions, the artefact's and the one in which the engine holds the weights, the coarser one's."""
    order = list(TOLERANCES)
    return TOLERANCES[max(dtype, held, key=order.index)]


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
    before the first that differs. `difference` is the greatest of the labels' probabilities. `other_tokens`
    marks a prompt that a plain chat template cuts otherwise than ours; its answers are shown, not judged.
    """

    example: str
    question: str
    ours: str
    theirs: str
    likeness: float
    near_tie: bool = False
    difference: float | None = None
    other_tokens: bool = False

    @property
    def distance(self) -> float:
        """How far apart the answers are, from 0 to 1."""
        return 1 - self.likeness if self.difference is None else self.difference


@dataclass(frozen=True)
class Replay:
    """What a replay found. `from_base` is the artefact's mean distance from the bare base; None without adapter."""

    engine: str
    dtype: str
    tolerance: Tolerance
    answers: tuple[ReplayedAnswer, ...]
    from_base: float | None = None

    @property
    def other_tokens(self) -> int:
        """Prompts that a plain chat template cuts otherwise than ours."""
        return sum(answer.other_tokens for answer in self.answers)

    @property
    def from_model(self) -> float:
        """The artefact's mean distance from the model that it was made from."""
        return mean_distance(self.answers)

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
            "distance_from_model": self.from_model,
            "distance_from_base": self.from_base,
            "prompts_of_other_tokens": self.other_tokens,
            "tolerance": asdict(self.tolerance),
            "answers": [asdict(answer) for answer in self.answers],
        }


def prompts_of(weights: LocalWeights, model: Model, task: Task, examples: Sequence[Example]) -> list[Prompt]:
    """What the weights see of the first examples, beneath all wrappers, trimmed to the context.

    Raises:
        InputError: none of the examples reaches the weights.
    """
    if not examples:
        raise InputError(
            f"export of {model.name!r}: no held-out examples were kept with it, so nothing could be proven. Give "
            "labelled examples with --examples FILE."
        )
    # What a wrapper knows beforehand, and how it bounds an answer, does not travel with the weights: it is not theirs
    # to prove. Nor is a layout, since the artefact knows its chat template alone.
    seen = [
        dataclasses.replace(
            as_seen_by_weights(model, task.ask(example)),
            prior=None,
            channel=0.0,
            abstain_below=0.0,
            schema=None,
            layout="chat",
        )
        for example in examples[:MOST_EXAMPLES]
    ]
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
    theirs = ask([_asked(weights, prompt) for prompt in prompts])
    tolerance = tolerance_for(dtype, dtype_name(weights))
    answers = _compared(weights, prompts, theirs, tolerance)
    bare = None
    if weights.adapter is not None:
        bare = mean_distance(
            _compared(dataclasses.replace(weights, adapter=None), prompts, theirs, tolerance)
        )
    found = Replay(engine, dtype, tolerance, answers, bare)
    _judge(found)
    return found


def mean_distance(answers: Sequence[ReplayedAnswer]) -> float:
    """Over the answers that are judged."""
    return fmean([answer.distance for answer in answers if not answer.other_tokens] or [0.0])


def _asked(weights: LocalWeights, prompt: Prompt) -> Asked:
    request, template = prompt.request, weights.engine.template
    return Asked(
        messages=tuple({"role": m.role, "content": m.content} for m in template.messages(request)),
        choices=request.choices,
        max_tokens=min(request.sampling.max_tokens, template.context - len(prompt.ids)),
        stop=request.sampling.stop,
        end=weights.engine.tokenizer.convert_ids_to_tokens(template.stop_id),
    )


def _compared(
    weights: LocalWeights, prompts: Sequence[Prompt], theirs: Sequence[Answered], tolerance: Tolerance
) -> tuple[ReplayedAnswer, ...]:
    ours = weights.answer([prompt.request for prompt in prompts])
    return tuple(
        _compared_one(weights, prompt, mine, other, tolerance)
        for prompt, mine, other in zip(prompts, ours, theirs, strict=True)
    )


def _compared_one(
    weights: LocalWeights, prompt: Prompt, ours: Completion, theirs: Answered, tolerance: Tolerance
) -> ReplayedAnswer:
    request, other_tokens = prompt.request, _plain_tokens(weights, prompt, theirs) != prompt.ids
    place = (request.example_id or "", request.question, ours.text, theirs.text)
    if ours.probabilities is None or theirs.probabilities is None:
        likeness = _shared_beginning(weights, ours.text, theirs.text)
        return ReplayedAnswer(*place, likeness, other_tokens=other_tokens)
    mine, other = ours.probabilities, theirs.probabilities
    return ReplayedAnswer(
        *place,
        likeness=float(ours.text == theirs.text),
        near_tie=0 < mine[ours.text] - mine[theirs.text] <= tolerance.near_tie,
        difference=max(abs(mine[label] - other[label]) for label in mine),
        other_tokens=other_tokens,
    )


def _plain_tokens(weights: LocalWeights, prompt: Prompt, theirs: Answered) -> tuple[int, ...]:
    """The conversation as the tokenizer cuts it, plainly applied; the artefact's must do the same.

    Ours differs from that where a text holds control tokens, or blanks where the template meets it.
    """
    tokenizer = weights.engine.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in weights.engine.template.messages(prompt.request)],
        tokenize=False,
        add_generation_prompt=True,
        chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
    )
    plain = tuple(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    if theirs.prompt != plain:
        at = next((i for i, (a, b) in enumerate(zip(plain, theirs.prompt, strict=False)) if a != b), None)
        at = min(len(plain), len(theirs.prompt)) if at is None else at
        raise ReplayMismatch(
            f"export: its tokenizer cuts {prompt.request.question[:60]!r} otherwise: {len(plain)} tokens here, "
            f"{len(theirs.prompt)} there, the first difference at token {at}: {plain[at : at + 3]} here, "
            f"{theirs.prompt[at : at + 3]} there. Nothing was written. Export to another format."
        )
    return plain


def _shared_beginning(weights: LocalWeights, ours: str, theirs: str) -> float:
    """The share of the longer answer's tokens before the first that differs."""
    mine, other = (weights.engine.template.completion(text) for text in (ours, theirs))
    same = next(
        (i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other))
    )
    return same / max(len(mine), len(other))


def _judge(found: Replay) -> None:
    """Raises ReplayMismatch with the first rule that is broken and the answer that breaks it most."""
    judged = [answer for answer in found.answers if not answer.other_tokens]
    if not judged:
        raise ReplayMismatch(
            "export: a plain chat template makes other tokens of every replayed prompt than Tailorbird does, so "
            "nothing could be proven. Nothing was written. Give other examples with --examples FILE."
        )
    closed = [answer for answer in judged if answer.difference is not None]
    free = [answer for answer in judged if answer.difference is None]
    broken = (
        (closed and _labels_broken(closed, found.tolerance))
        or (free and _answers_broken(free, found.tolerance))
        or _base_broken(found)
    )
    if broken:
        worst = max(judged, key=lambda answer: answer.distance)
        raise ReplayMismatch(
            f"export as {found.dtype}, replayed through {found.engine}: {broken} The most different of {len(judged)}: "
            f"{_shown(worst)} Nothing was written. {_ADVICE[found.dtype]}"
        )


def _labels_broken(closed: Sequence[ReplayedAnswer], tolerance: Tolerance) -> str:
    """What a tolerance of closed sets is broken by; '' if none is."""
    share = fmean([answer.likeness == 1 or answer.near_tie for answer in closed])
    if share < tolerance.labels_alike:
        return f"{share:.0%} of the labels are the same; expected at least {tolerance.labels_alike:.0%}."
    most = max(answer.distance for answer in closed)
    if tolerance.difference is not None and most > tolerance.difference:
        return f"a label's probability differs by {most:.4f}; expected at most {tolerance.difference}."
    return ""


def _answers_broken(free: Sequence[ReplayedAnswer], tolerance: Tolerance) -> str:
    share = fmean([answer.likeness for answer in free])
    if share < tolerance.answers_alike:
        return f"{share:.0%} of the answers' tokens are the same; expected at least {tolerance.answers_alike:.0%}."
    return ""


def _base_broken(found: Replay) -> str:
    if found.from_base is not None and found.from_model > max(found.from_base, NO_DISTANCE):
        return (
            f"its answers are nearer to the bare base's (mean distance {found.from_base:.4f}) than to the fine-tuned "
            f"model's ({found.from_model:.4f}); what was trained is lost."
        )
    return ""


def _shown(answer: ReplayedAnswer) -> str:
    return f"{answer.question[:80]!r} gets {answer.ours[:60]!r} here and {answer.theirs[:60]!r} there."


_FINER = "Choose a finer --dtype: {}."
_ADVICE = {
    "q4": _FINER.format("q8_0 or f16"),
    "q8_0": _FINER.format("f16"),
    "bf16": _FINER.format("f32"),
    "f16": "Rounding to 16 bits does not explain it: export to another format, and report this.",
    "f32": "The export is in full precision and should not differ: please report this.",
}
"""What to do, by precision."""
