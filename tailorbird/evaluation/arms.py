"""An arm of a comparison, what running it gives, and the events that tell a shell how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tailorbird.data.task import Data
from tailorbird.errors import TailorbirdError
from tailorbird.evaluation.evaluate import Evaluation, Latency, evaluate, measure_latency
from tailorbird.evaluation.metrics import Metric
from tailorbird.evaluation.verdict import Verdict
from tailorbird.models.model import Model, weights_of

Stage = Literal["build", "dev", "test", "latency"]
ArmStatus = Literal["done", "failed", "stopped"]

NO_ANSWERS = Evaluation(())
NOT_TIMED = Latency(())


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What an endpoint charges, in US dollars per million tokens; cached input as input if not given."""

    input_per_million: float
    output_per_million: float
    cached_per_million: float | None = None

    def cost(self, tokens: Mapping[str, int]) -> float:
        """The price of `tokens` (input, cached as a part of it, output), in US dollars."""
        cached_price = self.input_per_million if self.cached_per_million is None else self.cached_per_million
        fresh = tokens["input"] - tokens["cached"]
        return (
            fresh * self.input_per_million
            + tokens["cached"] * cached_price
            + tokens["output"] * self.output_per_million
        ) / 1e6


@dataclass(frozen=True)
class Arm:
    """A name and a callable that builds the model to judge.

    `key` says what the model is made of (recipe, settings, seed, base): a finished arm is taken from
    the run's folder as long as its key and the data stay the same. `floor` marks a simple baseline
    that a customization should beat. `price` is given for endpoints that charge by the token.
    """

    name: str
    build: Callable[[], Model]
    key: str = ""
    floor: bool = False
    price: TokenPrice | None = None


@dataclass(frozen=True)
class ArmRun:
    """What running an arm gave: all answers and timings, or the error that ended it."""

    name: str
    train_s: float
    dev: Evaluation = NO_ANSWERS
    test: Evaluation = NO_ANSWERS
    latency: Latency = NOT_TIMED
    num_parameters: int | None = None
    failed: str = ""

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of all test answers."""
        usages = [row.completion.usage for row in self.test.rows]
        return {
            "input": sum(u.input_tokens for u in usages),
            "cached": sum(u.cached_tokens for u in usages),
            "output": sum(u.output_tokens for u in usages),
        }


@dataclass(frozen=True, slots=True)
class ArmStarted:
    """Arm `index` (from 0) of `num_arms` is next."""

    arm: str
    index: int
    num_arms: int


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage of an arm is; `build` has one step."""

    arm: str
    stage: Stage
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ArmFinished:
    """An arm is done, failed or stopped; `reused` where it was finished in an earlier run."""

    arm: str
    status: ArmStatus
    score: float | None = None
    low: float | None = None
    high: float | None = None
    reused: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class VerdictSoFar:
    """What the verdict would be with the arms finished so far."""

    verdict: Verdict
    num_finished: int
    num_arms: int


@dataclass(frozen=True, slots=True)
class ExtrasStarted:
    """The verdict is given; what is measured beside it comes now, each under its name as an arm."""

    names: tuple[str, ...]
    verdict: Verdict


Event = ArmStarted | StageProgress | ArmFinished | VerdictSoFar | ExtrasStarted
OnEvent = Callable[[Event], None]


def run_arm(
    arm: Arm,
    data: Data,
    metrics: Mapping[str, Metric],
    *,
    latency_requests: int = 12,
    batch_size: int = 32,
    on_event: OnEvent | None = None,
) -> ArmRun:
    """Builds one arm's model and measures it on dev, on test and one request at a time.

    An error that a user may see (`TailorbirdError`) fails the arm and is kept in the result; any
    other exception is a defect and goes on up.
    """

    def tell(stage: Stage, done: int, total: int) -> None:
        if on_event:
            on_event(StageProgress(arm.name, stage, done, total))

    start = time.perf_counter()
    try:
        tell("build", 0, 1)
        model = arm.build()
        train_s = time.perf_counter() - start
        tell("build", 1, 1)
        dev = evaluate(
            model,
            data.dev,
            data.task,
            metrics,
            batch_size=batch_size,
            on_progress=lambda d, t: tell("dev", d, t),
        )
        test = evaluate(
            model,
            data.test,
            data.task,
            metrics,
            batch_size=batch_size,
            on_progress=lambda d, t: tell("test", d, t),
        )
        latency = measure_latency(
            model,
            [data.task.ask(example) for example in data.test],
            latency_requests,
            batched=[row.completion for row in test.rows],
            on_progress=lambda d, t: tell("latency", d, t),
        )
    except TailorbirdError as error:
        return ArmRun(arm.name, time.perf_counter() - start, failed=str(error) or type(error).__name__)
    return ArmRun(arm.name, train_s, dev, test, latency, _num_parameters(model))


def _num_parameters(model: Model) -> int | None:
    count = getattr(weights_of(model), "num_parameters", None)
    return count if isinstance(count, int) else None
