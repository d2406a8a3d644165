"""An arm of a comparison, what running it gives, and the events that tell a shell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tailorbird.evaluation.evaluate import Evaluation, Latency
from tailorbird.evaluation.verdict import Verdict
from tailorbird.models.model import Likelihood, Model
from tailorbird.records import Usage

Stage = Literal["build", "paused", "dev", "test", "latency", "judge"]
ArmStatus = Literal["done", "failed", "stopped"]

NO_ANSWERS = Evaluation(())
NOT_TIMED = Latency(())


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What an endpoint charges, in US dollars per million tokens; cached input as input if not given."""

    input_per_million: float
    output_per_million: float
    cached_per_million: float | None = None

    def of(self, usage: Usage) -> float:
        """The price of one answer, in US dollars."""
        return self.cost(
            {"input": usage.input_tokens, "cached": usage.cached_tokens, "output": usage.output_tokens}
        )

    def cost(self, tokens: Mapping[str, int]) -> float:
        """The price of `tokens` (input, cached as a part of it, output), in US dollars."""
        cached_price = self.input_per_million if self.cached_per_million is None else self.cached_per_million
        fresh = tokens["input"] - tokens["cached"]
        return (
            fresh * self.input_per_million
            + tokens["cached"] * cached_price
            + tokens["output"] * self.output_per_million
        ) / 1e6


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was made and kept: the seconds that took, and what tells its answers from any other model's.

    With an empty `key` its answers are not taken over by later runs, as of one that asks what changes.
    """

    train_s: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A training that was paused: the share of its steps that is done, and there the scores of dev examples by id."""

    share: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Arm:
    """A name and a callable that builds the model to judge.

    `key` says what the model is made of (recipe, settings, seed, base): a finished arm is taken from the run's
    folder as long as its key and the data stay the same. `floor` marks a simple baseline that a customization
    should beat. `price` is given for endpoints that charge by the token. With `make` the model is made and kept
    by it, and `build` only opens what was kept. `base` says what it starts from, for people; `remote` that
    another machine answers, so that this one can do something else meanwhile. `begin`, where making is a training
    that is worth racing, makes at least this share of it; None says that there is nothing left to make. `paused`
    tells what `begin` gave for this share before, in this run or one that was stopped, and makes nothing.
    """

    name: str
    build: Callable[[], Model]
    key: str = ""
    floor: bool = False
    price: TokenPrice | None = None
    make: Callable[[], Made] | None = None
    base: str = ""
    remote: bool = False
    begin: Callable[[float], Begun | None] | None = None
    paused: Callable[[float], Begun | None] | None = None


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
    surprise: Likelihood | None = None
    stopped: str = ""
    """Why it was not measured to the end; what was answered on dev until then is in `dev`."""
    behind: bool = False
    """Whether it was stopped because others were clearly better on dev."""

    @property
    def judged(self) -> bool:
        """True where it was measured to the end."""
        return not self.failed and not self.stopped

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
    """How far a stage of an arm is; `build` has one step, and of `paused` the training is done to `done` percent."""

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
