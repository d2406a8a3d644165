"""How long a comparison will take and what it will cost, told before it runs: about, not exactly.

What an earlier comparison of the project measured of the same arm on the same base is scaled to this one's examples.
Else the base answers a few requests without and with examples in front; what that takes by the token gives the rest:
a training step takes three times a forward pass (Kaplan et al. 2020, arXiv:2001.08361, §2.1: 2N and 6N products a
token). Once a training begins, its own estimate, probed by its own steps, takes the place of this one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.bases import AT, Base
from tailorbird.errors import NotFound, TailorbirdError
from tailorbird.opening import open_reference, set_threads
from tailorbird.planning import Plan
from tailorbird.recipe_file import ArmSpec

if TYPE_CHECKING:
    from tailorbird.models.model import Model
    from tailorbird.records import Completion, Request

PROBED = 4
"""Requests that the base answers, without and with examples."""
SHOWN = 5
TIMED = 13
"""Single answers that latency is measured by, the one that warms up included."""
SINGLE = 1.5
"""So many times as long takes an answer alone as one in a batch."""
LETTERS_A_TOKEN = 4
WRITES_AS_SHOWN = ("few_shot", "fine_tune", "from_scratch")
"""Techniques after which answers are as long as the examples'; a bare base often writes on."""
TRAINING = 3
FLOOR_S = 2.0
"""Fitting and asking a baseline, about."""
WIDTH_A_LAYER = 64
"""A decoder of our own is so many times as wide as it is deep."""
SMALL_NETWORK = 3.0
"""So many times as long takes a small network as its parameters alone say."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an arm will take: making its model, answering dev and test, and the price, about.

    `cost` is in US dollars: an endpoint's tokens, or this machine's time. `known` tells whether an earlier
    comparison measured it, `timed` whether its seconds can be told: not of an endpoint that was never asked, nor of a
    base that could not answer a few requests.
    """

    arm: str
    make_s: float
    answers_s: float
    cost: float
    known: bool = False
    timed: bool = True

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.make_s + self.answers_s


@dataclass(frozen=True, slots=True)
class Speed:
    """What a base takes: seconds a request, seconds a token that is read, tokens of a bare request and of one example.

    `output_tokens` are those of an answer of the base's own, `write_s` are seconds for each of them; for a choice of
    labels, which is not written, those are in `request_s`.
    """

    request_s: float
    token_s: float
    tokens: float
    example_tokens: float
    output_tokens: float
    num_parameters: int
    write_s: float = 0.0


def forecast(state: Path, plan: Plan, price_per_hour: float) -> list[Forecast]:
    """About what every arm of a plan takes, in their order.

    Raises:
        NotFound: the base is not there.
    """
    earlier = _earlier(state, plan)
    done = {spec.name for spec in plan.arms if (plan.folder / "arms" / spec.name / "arm.json").is_file()}
    missing = [spec for spec in plan.arms if not spec.floor and spec.name not in {*earlier, *done}]
    speeds: dict[str, Speed] = {}
    for base in dict.fromkeys(plan.base_of(spec).name for spec in missing):
        found_base = next(b for b in plan.bases if b.name == base)
        if found_base.remote:
            continue
        try:
            speeds[base] = _probed(state, plan, found_base)
        except NotFound:
            raise
        except TailorbirdError:
            pass  # its arms will say what is wrong with it, and the others run
    found: list[Forecast] = []
    for spec in plan.arms:
        if spec.name in done:  # taken over, unless it was changed
            found.append(Forecast(spec.name, 0.0, 0.0, 0.0, known=True))
        elif spec.name in earlier:
            found.append(_scaled(spec, earlier[spec.name], plan, price_per_hour))
        elif spec.floor:
            found.append(Forecast(spec.name, FLOOR_S, 0.0, FLOOR_S * price_per_hour / 3600))
        else:
            found.append(_computed(spec, plan, speeds.get(plan.base_of(spec).name), price_per_hour))
    return found


def _num_answers(plan: Plan) -> float:
    return len(plan.data.dev) + len(plan.data.test) + SINGLE * min(TIMED, len(plan.data.test))


def _computed(spec: ArmSpec, plan: Plan, speed: Speed | None, price_per_hour: float) -> Forecast:
    """From what the base takes by the token; of an endpoint only the price of its tokens is foreseen."""
    if speed is None:
        speed = Speed(0.0, 0.0, *_letters(plan), plan.task.max_tokens / 2, 0)
    tokens = speed.tokens
    trained_s = 0.0
    for step in spec.steps:
        technique: Any = step.build()
        if step.technique == "few_shot":
            tokens += (technique.k or SHOWN) * speed.example_tokens
        elif step.technique == "knowledge":
            tokens += technique.k * technique.max_chars / LETTERS_A_TOKEN
        elif step.technique == "fine_tune":
            trained_s += _fine_tuned_s(technique, tokens, plan, speed)
        elif step.technique == "from_scratch":
            trained_s += _from_scratch_s(technique, plan, speed)
    answers = _num_answers(plan)
    written = speed.output_tokens
    if any(step.technique in WRITES_AS_SHOWN for step in spec.steps):
        written = min(written, _written(plan))
    answers_s = answers * (speed.request_s + speed.token_s * tokens + speed.write_s * written)
    timed = speed.num_parameters > 0 or speed.request_s + speed.token_s > 0
    price = plan.base_of(spec).price if spec.on_base else None
    if price is not None:
        spent = price["input"] * tokens + price["output"] * speed.output_tokens
        return Forecast(spec.name, trained_s, answers_s, answers * spent / 1e6, timed=timed)
    cost = (trained_s + answers_s) * price_per_hour / 3600
    return Forecast(spec.name, trained_s, answers_s, cost, timed=timed)


def _fine_tuned_s(technique: Any, tokens: float, plan: Plan, speed: Speed) -> float:
    from tailorbird.techniques.fine_tune import epochs_for

    count = min(len(plan.data.train), technique.max_examples or len(plan.data.train))
    epochs = epochs_for(count) if technique.epochs is None else technique.epochs
    return TRAINING * speed.token_s * count * epochs * (tokens + speed.output_tokens)


def _from_scratch_s(technique: Any, plan: Plan, speed: Speed) -> float:
    if not speed.num_parameters:
        return 0.0
    width = WIDTH_A_LAYER * technique.depth
    parameters = 12 * technique.depth * width**2 + technique.vocab_size * width
    share = SMALL_NETWORK * parameters / speed.num_parameters
    passes = technique.epochs + (
        technique.text_epochs if plan.data.documents is None else 4 * technique.text_epochs
    )
    return (
        TRAINING
        * speed.token_s
        * share
        * len(plan.data.train)
        * passes
        * (speed.tokens + speed.output_tokens)
    )


def _letters(plan: Plan) -> tuple[float, float]:
    """Tokens of a bare request and of one example, guessed by their letters."""
    some = list(plan.data.train[:50]) or list(plan.data.test[:50])
    prompt = sum(len(e.prompt) for e in some) / len(some) / LETTERS_A_TOKEN
    shown = sum(len(e.prompt) + len(e.completion) for e in some) / len(some) / LETTERS_A_TOKEN
    return prompt + len(plan.task.instruction) / LETTERS_A_TOKEN, shown


def _probed(state: Path, plan: Plan, base: Base) -> Speed:
    """What the base takes for a few requests, bare and with examples in front."""
    set_threads()
    from tailorbird.models.model import weights_of

    model = open_reference(state, base.reference, base.key_env).model
    requests = [plan.task.ask(example) for example in (plan.data.dev or plan.data.train)[: PROBED + 1]]
    pool = plan.data.train
    # Others for each: what requests have in common is read once, and would make examples look cheap.
    with_examples = [
        replace(
            request, examples=tuple(pool[(n * SHOWN + i) % len(pool)] for i in range(SHOWN)) if pool else ()
        )
        for n, request in enumerate(requests)
    ]
    model.answer([requests[0], with_examples[0]])
    bare, shown = requests[1:] or requests, with_examples[1:] or with_examples
    (whole_s, answers) = _timed(model, bare)
    # Of the same length: one token each, so that what differs is what was read.
    (bare_s, few), (shown_s, more) = _timed(model, _short(bare)), _timed(model, _short(shown))
    tokens, longer = _inputs(few), _inputs(more)
    token_s = max(0.0, shown_s - bare_s) / max(1.0, longer - tokens)
    output = sum(answer.usage.output_tokens for answer in answers) / len(answers)
    written = plan.task.kind != "classify"
    return Speed(
        request_s=max(0.0, (bare_s if written else whole_s) - token_s * tokens),
        token_s=token_s,
        tokens=tokens,
        example_tokens=(longer - tokens) / SHOWN,
        output_tokens=output if written else min(output, _written(plan)),
        num_parameters=int(getattr(weights_of(model), "num_parameters", 0) or 0),
        write_s=max(0.0, whole_s - bare_s) / max(1.0, output - 1) if written else 0.0,
    )


def _written(plan: Plan) -> float:
    """Tokens of an answer like those of the examples, guessed by their letters."""
    some = plan.data.train[:50]
    return 2 + sum(len(e.completion) for e in some) / max(1, len(some)) / LETTERS_A_TOKEN


def _short(requests: Sequence[Request]) -> list[Request]:
    return [replace(r, sampling=replace(r.sampling, max_tokens=1)) for r in requests]


def _timed(model: Model, requests: Sequence[Request]) -> tuple[float, list[Completion]]:
    """Seconds of one answer in a batch, and the answers."""
    began = time.perf_counter()
    answers = model.answer(requests)
    return (time.perf_counter() - began) / len(requests), answers


def _inputs(answers: Sequence[Completion]) -> float:
    """Tokens of one request that were read for it; those of a common beginning are not."""
    return sum(answer.usage.input_tokens - answer.usage.cached_tokens for answer in answers) / len(answers)


def _earlier(state: Path, plan: Plan) -> dict[str, Mapping[str, Any]]:
    """What the project's earlier comparisons measured of the same arms on the same bases, the latest first."""
    found: dict[str, Mapping[str, Any]] = {}
    wanted = {
        (spec.name.partition(AT)[0], plan.base_of(spec).reference if spec.on_base else ""): spec.name
        for spec in plan.arms
    }
    records = sorted((state / "runs").glob("[!.]*/comparison.json"), key=lambda p: -p.stat().st_mtime)
    for path in records:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            for arm in record["arms"]:
                base = arm.get("base", record["reproduce"].get("base"))
                name = wanted.get((arm["name"].partition(AT)[0], base))
                if name and arm["score"] is not None and arm["latency_p50_s"]:
                    found.setdefault(name, {**arm, "num_train": record["data"]["num_train"]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # one that can't be read tells nothing
    return found


def _scaled(spec: ArmSpec, arm: Mapping[str, Any], plan: Plan, price_per_hour: float) -> Forecast:
    make_s = (arm["train_s"] or 0.0) * len(plan.data.train) / max(1, arm["num_train"])
    answers_s = _num_answers(plan) * arm["latency_p50_s"] / SINGLE
    cost = (make_s + answers_s) * price_per_hour / 3600
    if spec.on_base and plan.base_of(spec).price is not None:
        cost = arm["cost_per_1k"] / 1000 * _num_answers(plan)
    return Forecast(spec.name, make_s, answers_s, cost, known=True)
