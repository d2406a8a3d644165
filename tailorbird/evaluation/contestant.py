"""One arm while it is being measured: its model made, asked block by block, and timed; no answer is asked for twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tailorbird.data.task import Data
from tailorbird.errors import TailorbirdError
from tailorbird.evaluation.answer_cache import AnswerCache
from tailorbird.evaluation.arms import Arm, ArmRun, Begun, Made, OnEvent, Stage, StageProgress
from tailorbird.evaluation.budget import Budget, BudgetSpent
from tailorbird.evaluation.evaluate import Evaluation, Latency, Mismatch, Row, evaluate, measure_latency
from tailorbird.evaluation.metrics import Metric
from tailorbird.evaluation.predicting import measure_surprise
from tailorbird.models.model import Likelihood, Model, Pieces, weights_of
from tailorbird.records import Completion, Example, Request, content_hash


@dataclass(frozen=True)
class Measuring:
    """What all arms of a comparison are measured on, and how."""

    data: Data
    metrics: Mapping[str, Metric]
    budget: Budget
    cache: AnswerCache | None = None
    on_event: OnEvent | None = None
    latency_requests: int = 12
    batch_size: int = 32
    surprise: bool = True
    """Whether to measure how surprising the completions are that should come."""
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set where the comparison is stopped: arms that are asked in other threads ask for nothing more."""


@dataclass
class Contestant:
    """An arm on its way through a comparison.

    An error that a user may see (`TailorbirdError`) fails the arm and is kept in `failed`; any other exception is a
    defect and goes on up, and so does a budget that is spent.

    Args:
        arm: what is measured.
        measuring: on what, and how.
    """

    arm: Arm
    measuring: Measuring
    made: Made | None = None
    failed: str = ""
    spent_s: float = 0.0
    """Seconds in which its answers were given, whenever that was; for an estimate of what is left."""
    num_answers: int = 0
    dev: dict[int, Row] = field(default_factory=dict[int, Row])
    test: Evaluation = field(default_factory=lambda: Evaluation(()))
    latency: Latency = field(default_factory=lambda: Latency(()))
    surprise: Likelihood | None = None
    num_parameters: int | None = None
    begun: Begun | None = None
    """How far `begin` came; None where its model was made whole."""
    begun_s: float = 0.0
    """Seconds that `begin` took, all calls together."""
    _model: Model | None = None
    _began: float = field(default_factory=time.perf_counter)

    def begin(self, share: float) -> bool:
        """Trains this part of its model's steps, unless it has come as far; False where the arm failed."""
        return (self.begun is not None and self.begun.share >= share) or self._tried(
            lambda: self._begin(share)
        )

    def make(self) -> bool:
        """Makes the model, unless it is there; False where the arm failed."""
        return self._tried(self._make)

    def answer_dev(self, indices: Sequence[int]) -> bool:
        """Asks the dev examples with these indices that were not asked yet; False where the arm failed."""
        return self._tried(lambda: self._answer_dev([i for i in indices if i not in self.dev]))

    def answer_test(self) -> bool:
        """Asks all test examples; False where the arm failed."""
        return self._tried(self._answer_test)

    def finish(self) -> bool:
        """Asks the test examples that were not asked, and times single answers; False where the arm failed."""
        return self._tried(self._finish)

    @property
    def answer_s(self) -> float:
        """Seconds of one answer, of those given so far; 0 where there are none."""
        return self.spent_s / self.num_answers if self.num_answers else 0.0

    @property
    def dev_rows(self) -> Evaluation:
        """The dev answers so far, in the examples' order."""
        return Evaluation(tuple(self.dev[index] for index in sorted(self.dev)))

    def run(self) -> ArmRun:
        """What was measured so far."""
        train_s = self.made.train_s if self.made else time.perf_counter() - self._began
        if self.failed:
            return ArmRun(self.arm.name, train_s, failed=self.failed)
        return ArmRun(
            self.arm.name,
            train_s,
            self.dev_rows,
            self.test,
            self.latency,
            self.num_parameters,
            surprise=self.surprise,
        )

    def close(self) -> None:
        """Lets the model go."""
        self._model = None

    def tell(self, stage: Stage, done: int, total: int) -> None:
        if self.measuring.on_event:
            self.measuring.on_event(StageProgress(self.arm.name, stage, done, total))

    def _tried(self, do: Callable[[], None]) -> bool:
        try:
            do()
        except TailorbirdError as error:
            self.failed = str(error) or type(error).__name__
        return not self.failed

    def _begin(self, share: float) -> None:
        self.tell("build", 0, 1)
        began = time.perf_counter()
        try:
            self.begun = self.arm.begin(share) if self.arm.begin else None
        finally:
            self.begun_s += time.perf_counter() - began
        if self.begun:
            self.tell("paused", round(100 * self.begun.share), 100)

    def _make(self) -> None:
        self.tell("build", 0, 1)
        began = time.perf_counter()
        if self.arm.make:
            self.made = self.arm.make()
        else:
            self.opened()
            self.made = Made(time.perf_counter() - began)
        self.tell("build", 1, 1)

    def opened(self) -> Model:
        """The model, opened when it is first asked."""
        if self._model is None:
            self._model = self.arm.build()
        return self._model

    def _answer_dev(self, indices: Sequence[int]) -> None:
        dev = self.measuring.data.dev
        found = self._asked([dev[i] for i in indices], "dev", len(self.dev), len(dev))
        self.dev |= dict(zip(indices, found.rows, strict=True))

    def _answer_test(self) -> None:
        test = self.measuring.data.test
        self.test = self._asked(test, "test", 0, len(test))

    def _finish(self) -> None:
        if not self.test.rows:
            self._answer_test()
        self.latency = self._timed()
        self.surprise = self._surprised() if self.measuring.surprise else None
        found = getattr(weights_of(self.opened()), "num_parameters", None)
        self.num_parameters = found if isinstance(found, int) else None

    def _asked(self, examples: Sequence[Example], stage: Stage, before: int, total: int) -> Evaluation:
        """Answers with their scores; a budget that is spent between two batches ends it."""

        def told(done: int, _: int) -> None:
            self.tell(stage, before + done, total)
            if self.measuring.given_up.is_set():
                raise BudgetSpent
            if done < len(examples):
                self.measuring.budget.check()

        model, measuring = _Remembering(self), self.measuring
        found = evaluate(
            model,
            examples,
            measuring.data.task,
            measuring.metrics,
            batch_size=measuring.batch_size,
            on_progress=told,
        )
        self.spent_s += sum(row.completion.seconds for row in found.rows)
        self.num_answers += len(found.rows)
        return found

    def _surprised(self) -> Likelihood | None:
        """How surprising the completions that should come are, asked once of every model."""
        cache, key = self.measuring.cache, self.made.key if self.made else ""
        name = f"{key} surprised by {content_hash([row.example_id for row in self.test.rows])}"
        if cache and key and (kept := cache.timing(name)) is not None:
            return Likelihood(**kept["found"]) if kept["found"] else None
        found = measure_surprise(self.opened(), self.test.rows)
        if cache and key:
            cache.keep_timing(name, {"found": asdict(found) if found else None})
        return found

    def _timed(self) -> Latency:
        cache, key = self.measuring.cache, self.made.key if self.made else ""
        requests = [self.measuring.data.task.ask(example) for example in self.measuring.data.test]
        wanted = self.measuring.latency_requests
        if (
            cache
            and key
            and (kept := cache.timing(key))
            and len(kept["seconds"]) >= min(wanted, len(requests))
        ):
            return Latency(tuple(kept["seconds"]), tuple(Mismatch(**m) for m in kept["mismatches"]))
        found = measure_latency(
            self.opened(),
            requests,
            wanted,
            batched=[row.completion for row in self.test.rows],
            on_progress=lambda done, total: self.tell("latency", done, total),
        )
        if cache and key and wanted:
            cache.keep_timing(
                key, {"seconds": found.seconds, "mismatches": [asdict(m) for m in found.mismatches]}
            )
        return found


class _Remembering:
    """The contestant's model, asked only what is not known from before."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.name = contestant.arm.name

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        contestant = self.contestant
        cache, key = contestant.measuring.cache, contestant.made.key if contestant.made else ""
        if cache is None or not key:
            return self._ask(requests)
        known = cache.known(key, requests)
        new = [request for request, answer in zip(requests, known, strict=True) if answer is None]
        if not new:
            return [answer for answer in known if answer is not None]
        fresh = self._ask(new)
        if len(fresh) == len(new):
            cache.keep(key, new, fresh)
        given = iter(fresh)
        return [answer if answer is not None else next(given) for answer in known]

    def stream(self, request: Request) -> Pieces:
        return self.contestant.opened().stream(request)

    def _ask(self, requests: Sequence[Request]) -> list[Completion]:
        answers = self.contestant.opened().answer(requests)
        if price := self.contestant.arm.price:
            self.contestant.measuring.budget.spend(sum(price.of(answer.usage) for answer in answers))
        return answers


def run_arm(arm: Arm, measuring: Measuring) -> ArmRun:
    """Makes one arm's model and measures it on dev, on test and one request at a time, without a race."""
    contestant = Contestant(arm, measuring)
    everything = range(len(measuring.data.dev))
    if contestant.make() and contestant.answer_dev(everything):
        contestant.finish()
    return contestant.run()
