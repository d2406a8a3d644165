"""Watching the trainings inside a recipe, and keeping with a model how it was trained.

model/training.json                what each training was said to take and took; what was forgotten
      training/<step>/metrics.jsonl    every step
      training.html                the same as a page
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird import plugins
from tailorbird.data.storage import write_atomic
from tailorbird.errors import DocumentError, NotFound
from tailorbird.planning import Plan, build_recipe
from tailorbird.recipe_file import ArmSpec

if TYPE_CHECKING:
    from tailorbird.evaluation.budget import Budget
    from tailorbird.models.model import Model
    from tailorbird.network.estimate import TrainingEstimate
    from tailorbird.network.settings import StepReport
    from tailorbird.trackers import Tracker

WORTH_TOKENS = 10_000
"""Trainings of fewer are not paused to be held against others: taking one up again takes seconds, too. No clock decides
it, so that a run repeated ends alike."""
RECENT = 12
"""Steps whose speed is told."""
SHIPPED = "shipped with Tailorbird"


@dataclass(frozen=True)
class TrainingEstimated:
    """What a training inside an arm's build will take; told before it starts."""

    arm: str
    estimate: TrainingEstimate


@dataclass(frozen=True)
class TrainingProgress:
    """How far the training inside an arm's build is.

    `loss` is in nats a token. `score` is the latest on dev, by `metric`, plus up to a hundredth for how
    sure the answers are. `tokens_per_s` is of the last steps; `left_s` is None where nothing was estimated.
    """

    arm: str
    step: int
    total_steps: int
    loss: float
    score: float | None = None
    metric: str = ""
    tokens_per_s: float | None = None
    left_s: float | None = None


class TrainingPaused(Exception):  # noqa: N818 - no error: the rest comes later
    """A training was kept where it was to pause: the share of its steps, and there the scores of dev examples by id."""

    def __init__(self, share: float, scores: Mapping[str, float]) -> None:
        super().__init__()
        self.share, self.scores = share, scores


@dataclass(frozen=True)
class GeneralCheck:
    """Whether to look at what was forgotten, and on which text; None takes the one shipped."""

    wanted: bool = False
    text: Path | None = None

    def read(self) -> tuple[str, str]:
        """The text and where it is from.

        Raises:
            NotFound: no such file.
            DocumentError: it is not UTF-8 text, or empty.
        """
        if self.text is None:
            from tailorbird.models.general_ability import shipped_text

            return shipped_text(), SHIPPED
        try:
            text = self.text.read_text(encoding="utf-8")
        except OSError as error:
            raise NotFound(
                f"{self.text}: it cannot be read ({error.strerror}). Give a text file with --general-text."
            ) from None
        except UnicodeDecodeError:
            raise DocumentError(
                f"{self.text}: not UTF-8 text. Give a plain text file with --general-text."
            ) from None
        if not text.strip():
            raise DocumentError(
                f"{self.text}: it is empty. Give some pages of plain text with --general-text."
            )
        return text, self.text.name


UNCHECKED, CHECKED = GeneralCheck(), GeneralCheck(wanted=True)


@dataclass
class TrainingWatch:
    """Told by the techniques how trainings go; tells the shell and the trackers.

    `estimate_only` keeps every training from starting; what they would take is then in `estimates`. With `pause_at`
    a training is paused where dev is asked after this share of its steps, unless it has fewer than `WORTH_TOKENS`.
    """

    arm: str
    metric: str = ""
    on_event: Callable[[Any], None] | None = None
    trackers: Sequence[Tracker] = ()
    estimate_only: bool = False
    pause_at: float | None = None
    estimates: list[TrainingEstimate] = field(default_factory=list)  # type: ignore[assignment]
    _score: float | None = None
    _scores: Mapping[str, float] = field(default_factory=dict[str, float])
    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def on_estimate(self, estimate: TrainingEstimate) -> bool:
        """A training is about to start."""
        self.estimates.append(estimate)
        self._score = None
        self._recent.clear()
        if self.on_event:
            self.on_event(TrainingEstimated(self.arm, estimate))
        if self.estimate_only:
            return False
        facts = {"steps": estimate.steps, "tokens": estimate.tokens, "trained": estimate.num_trained}
        for tracker in self.trackers:
            tracker.begin(estimate.stage, facts)
        return True

    def on_dev(self, scores: Mapping[str, float]) -> None:
        """Dev was asked: the score of each of its examples, by id."""
        self._scores = scores

    def on_step(self, report: StepReport) -> None:
        """A step was done."""
        self._recent.append((report.tokens, report.seconds))
        if report.score is not None:
            self._score = report.score
        for tracker in self.trackers:
            tracker.step(report)
        if self.on_event:
            progress = TrainingProgress(
                self.arm,
                report.step,
                report.total_steps,
                report.loss,
                self._score,
                self.metric,
                self._tokens_per_s(),
                self._left_s(report),
            )
            self.on_event(progress)
        if self._pauses(report):
            raise TrainingPaused(report.step / report.total_steps, self._scores)

    def _pauses(self, report: StepReport) -> bool:
        """Whether it is far enough, dev was asked just now, and it is neither over nor too short to be worth it."""
        if self.pause_at is None or report.score is None or report.step >= report.total_steps:
            return False
        worth = bool(self.estimates) and self.estimates[-1].tokens >= WORTH_TOKENS
        return worth and report.step >= self.pause_at * report.total_steps

    def end(self) -> None:
        """All trainings are over, or were cut short."""
        for tracker in self.trackers:
            tracker.end()

    def _tokens_per_s(self) -> float | None:
        (first_tokens, first_s), (tokens, seconds) = self._recent[0], self._recent[-1]
        return (tokens - first_tokens) / (seconds - first_s) if seconds > first_s else None

    def _left_s(self, report: StepReport) -> float | None:
        """What was estimated of the rest, at the pace at which the beginning went."""
        if not self.estimates or not self.estimates[-1].step_s:
            return None
        estimate = self.estimates[-1]
        every = estimate.steps / max(1, estimate.evaluations)
        done = estimate.seconds_for(report.step, int(report.step / every) if estimate.evaluations else 0)
        return max(0.0, estimate.seconds - done) * report.seconds / done


def within(budget: Budget, on_event: Callable[[Any], None] | None) -> Callable[[Any], None]:
    """Passes events on, and ends the training that tells of a step when the budget is spent; what is kept stays."""

    def told(event: Any) -> None:
        if on_event:
            on_event(event)
        if isinstance(event, TrainingProgress):
            budget.check()

    return told


def apply_watched(
    spec: ArmSpec, plan: Plan, base: Model, watch: TrainingWatch, checkpoint: Path | None = None
) -> Model:
    """An arm's recipe applied to its base, with every training in it watched."""
    recipe = build_recipe(
        spec,
        seed=plan.seed,
        checkpoint=checkpoint,
        on_step=watch.on_step,
        on_estimate=watch.on_estimate,
        on_dev=watch.on_dev,
        shard=plan.shard,
    )
    try:
        return recipe.apply(base, plan.data)
    finally:
        watch.end()


def trackers_for(names: Sequence[str], folder: Path, model: str) -> list[Tracker]:
    """The trackers of these names, each with a folder of its own.

    Raises:
        NotFound: an unknown name, or its package is not installed.
    """
    return [plugins.part("tailorbird.trackers", name)(folder / name, model) for name in names]


def keep_trainings(
    checkpoints: Path, model_folder: Path, *, name: str, base: Model, model: Model, check: GeneralCheck
) -> None:
    """Writes into a model's folder how it was trained; nothing where it was not.

    Args:
        checkpoints: the folder in which its trainings kept their records.
        model_folder: where they go.
        name: of the model.
        base: what it was made from.
        model: what came of it.
        check: whether and how to look at what was forgotten.
    """
    found = sorted(checkpoints.rglob("training.json"), key=_order)
    if not found:
        return
    from tailorbird.evaluation.training_report import render_training_report
    from tailorbird.network.metrics_file import METRICS_FILE, read_metrics

    records, curves = list[dict[str, Any]](), list[list[dict[str, Any]]]()
    for path in found:
        place = Path("training") / path.parent.relative_to(checkpoints) / METRICS_FILE
        (model_folder / place).parent.mkdir(parents=True)
        shutil.copyfile(path.parent / METRICS_FILE, model_folder / place)
        records.append({**json.loads(path.read_text()), "metrics": place.as_posix()})
        curves.append(read_metrics(model_folder / place)[1])
    record = {"name": name, "trainings": records, "general": _forgotten(base, model, check)}
    content = json.dumps(record, indent=1, ensure_ascii=False)
    write_atomic(model_folder / "training.json", content.encode())
    page = render_training_report(record, curves)
    write_atomic(model_folder / "training.html", page.encode())


def _order(path: Path) -> tuple[int, float]:
    """By the recipe's step, and within it by when it ended: text before examples."""
    step = next((int(part) for part in reversed(path.parts) if part.isdecimal()), 0)
    return step, path.stat().st_mtime


def _forgotten(base: Model, model: Model, check: GeneralCheck) -> dict[str, Any] | None:
    """General ability before and after; before is None where weights were made from nothing."""
    from tailorbird.models.general_ability import QUESTIONS, beginning, general_ability
    from tailorbird.models.local import LocalWeights
    from tailorbird.models.model import weights_of

    after, before = weights_of(model), weights_of(base)
    if not check.wanted or not isinstance(after, LocalWeights):
        return None
    whole, source = check.read()
    text = beginning(whole)
    started = time.perf_counter()
    measured_before = general_ability(before, text) if isinstance(before, LocalWeights) else None
    measured_after = general_ability(after, text)
    return {
        "text": source,
        "text_bytes": len(text.encode()),
        "questions": list(QUESTIONS),
        "before": asdict(measured_before) if measured_before else None,
        "after": asdict(measured_after),
        "seconds": time.perf_counter() - started,
    }
