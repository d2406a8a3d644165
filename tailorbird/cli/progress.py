"""Live progress of long work: one line an arm on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from tailorbird.cli.durations import clock_time
from tailorbird.cli.estimating import estimate_text
from tailorbird.cli.output import is_terminal, printable
from tailorbird.evaluation.arms import ArmFinished, ArmStarted, ExtrasStarted, StageProgress, VerdictSoFar
from tailorbird.workbench import TrainingEstimated, TrainingProgress

if TYPE_CHECKING:
    from rich.console import Group

WORDS = {
    "build": "building",
    "train": "training",
    "dev": "choosing",
    "test": "testing",
    "latency": "timing",
    "judge": "comparing answers",
}
QUICK_S = 2.0
"""A stage that began less than this after the last line of its arm is not worth a line of its own."""
QUIET_S = 15.0
"""No longer than this passes between two lines while a stage goes on."""


@dataclass
class ArmLine:
    """What is to be shown of one arm. `status` is waiting, running, done, failed or stopped."""

    name: str
    status: str = "waiting"
    stage: str = "build"
    done: int = 0
    total: int = 0
    training: TrainingProgress | None = None
    score: str = ""
    message: str = ""
    reused: bool = False
    started_s: float = 0.0
    ended_s: float = 0.0

    def elapsed_s(self, now: float) -> float:
        """How long the arm has run."""
        if self.status == "waiting":
            return 0.0
        return (self.ended_s or now) - self.started_s


@dataclass
class Board:
    """The state of all arms, as the events tell it."""

    names: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    lines: dict[str, ArmLine] = field(default_factory=dict[str, ArmLine])
    verdict: str = ""

    def __post_init__(self) -> None:
        self.lines = {name: ArmLine(name) for name in self.names}

    def line(self, arm: str) -> ArmLine:
        """The line of an arm; begun if this is the first word of it."""
        line = self.lines.setdefault(arm, ArmLine(arm))
        if line.status == "waiting":
            line.status, line.started_s = "running", self.clock()
        return line

    def apply(self, event: Any) -> None:
        """Takes an event in."""
        match event:
            case ArmStarted(arm=arm):
                self.line(arm)
            case StageProgress(arm=arm, stage=stage, done=done, total=total):
                line = self.line(arm)
                line.stage, line.done, line.total, line.training = stage, done, total, None
            case TrainingEstimated(arm=arm):
                self.line(arm)
            case TrainingProgress(arm=arm, step=step, total_steps=total):
                line = self.line(arm)
                line.stage, line.done, line.total, line.training = "train", step, total, event
            case ArmFinished():
                self._finish(event)
            case VerdictSoFar(verdict=verdict, num_finished=finished, num_arms=num_arms):
                # One arm alone is compared with nothing, and the last verdict is no longer "so far".
                if 1 < finished < num_arms:
                    self.verdict = f"So far, {finished} of {num_arms} arms: {verdict.sentence}"
            case ExtrasStarted(names=names, verdict=verdict):
                self.lines.update({name: ArmLine(name) for name in names})
                self.verdict = verdict.sentence
            case _:  # an event of a newer workbench: nothing to show
                pass

    def _finish(self, event: ArmFinished) -> None:
        line = self.line(event.arm)
        line.status, line.message, line.reused = event.status, event.message, event.reused
        line.ended_s = self.clock()
        if event.score is not None:
            line.score = score_text(event.score, event.low, event.high)


def score_text(score: float, low: float | None, high: float | None) -> str:
    """A score in percent with its interval, such as `81.2 % (75.0 to 86.1)`."""
    interval = "" if low is None or high is None else f" ({low * 100:.1f} to {high * 100:.1f})"
    return f"{score * 100:.1f} %{interval}"


def step_text(line: ArmLine) -> str:
    """What an arm is doing, such as `training 12 of 640, loss 0.412, 310 tokens/s, 2 min 05 s left`."""
    if line.stage == "paused":
        return f"paused, {line.done} % trained, until the others are as far"
    counted = f" {line.done} of {line.total}" if line.total > 1 else ""
    told = [f"{WORDS.get(line.stage, line.stage)}{counted}"]
    if training := line.training:
        told.append(f"loss {training.loss:.3f}")
        if training.score is not None:
            told.append(f"dev score {training.score:.3f} ({training.metric})")
        if training.tokens_per_s is not None:
            told.append(f"{training.tokens_per_s:,.0f} tokens/s")
        if training.left_s is not None:
            told.append(f"{clock_time(training.left_s)} left")
    return ", ".join(told)


class Progress(Protocol):
    """Shows events while its block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, event: Any) -> None: ...


def progress_on(stream: TextIO, arms: Sequence[str]) -> Progress:
    """Live lines if the stream is a terminal, else plain ones."""
    return LiveProgress(stream, arms) if is_terminal(stream) else PlainProgress(stream, arms)


class PlainProgress:
    """One printed line a notable step; never a control character."""

    def __init__(
        self, stream: TextIO, arms: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream, clock
        self._board = Board(arms, clock)
        self._said_s: dict[str, float] = {}
        self._said_stage: dict[str, str] = {}
        self._verdict = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()

    def __call__(self, event: Any) -> None:
        """Prints the event if it is worth a line."""
        self._board.apply(event)
        match event:
            case ArmStarted(arm=arm):
                self._say(arm, "started")
            case StageProgress(arm=arm) | TrainingProgress(arm=arm):
                line = self._board.line(arm)
                if self._is_news(line):
                    self._say(arm, step_text(line))
                    self._said_stage[arm] = line.stage
            case TrainingEstimated(arm=arm, estimate=estimate):
                self._say(arm, f"{estimate.stage} takes {estimate_text(estimate)}")
            case ArmFinished(arm=arm):
                self._say(arm, finished_text(self._board.line(arm), self._clock()))
            case ExtrasStarted(names=names, verdict=verdict):
                self._write(f"{verdict.sentence}\nNow what more would buy, in {len(names)} measurements:")
            case _:
                self._say_verdict()

    def _is_news(self, line: ArmLine) -> bool:
        silent_s = self._clock() - self._said_s.get(line.name, line.started_s)
        changed = self._said_stage.get(line.name) != line.stage
        return silent_s >= (QUICK_S if changed else QUIET_S)

    def _say(self, arm: str, text: str) -> None:
        self._said_s[arm] = self._clock()
        number = [*self._board.lines].index(arm) + 1 if arm in self._board.lines else 0
        prefix = f"[{number}/{len(self._board.lines)}] " if number else ""
        self._write(f"{prefix}{arm}: {text}")

    def _say_verdict(self) -> None:
        if self._board.verdict and not self._verdict:
            self._verdict = self._board.verdict
            self._write(self._verdict)

    def _write(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)


def finished_text(line: ArmLine, now: float) -> str:
    """How an arm ended, such as `81.2 % (75.0 to 86.1), 34 s`."""
    if line.status != "done":
        return f"{line.status}: {line.message}" if line.message else line.status
    took = "from an earlier run" if line.reused else clock_time(line.elapsed_s(now))
    return f"{line.score or 'done'}, {took}"


class LiveProgress:
    """A table that is redrawn in place; it stays on the screen only where the work was cut short."""

    def __init__(self, stream: TextIO, arms: Sequence[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._board = Board(arms)
        if len(arms) == 1:  # nothing else can be running, whether or not it tells of it
            self._board.line(arms[0])
        console = Console(file=stream, highlight=False)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.transient = error is None
        self._live.__exit__(kind, error, trace)

    def __call__(self, event: Any) -> None:
        """Takes the event in; the next drawing shows it. What training will take stays on the screen."""
        self._board.apply(event)
        if isinstance(event, TrainingEstimated):
            told = f"{event.arm}: {event.estimate.stage} takes {estimate_text(event.estimate)}"
            self._live.console.print(printable(told), style="dim", markup=False)

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        now = self._board.clock()
        for line in [*self._board.lines.values()]:
            table.add_row(*_cells(line, now))
        verdict = Text(printable(self._board.verdict), style="dim")
        return Group(table, verdict) if self._board.verdict else Group(table)


_MARKS = {"done": "✓", "failed": "✗", "stopped": "–"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def _cells(line: ArmLine, now: float) -> list[Any]:
    """One row of the live table: mark, arm, what it does, bar, time."""
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    running, waiting = line.status == "running", line.status == "waiting"
    mark = _SPINNER[int(now * 8) % len(_SPINNER)] if running else _MARKS.get(line.status, " ")
    bar = ProgressBar(line.total, line.done, width=20) if running and line.total > 1 else Text()
    took = "" if waiting else clock_time(line.elapsed_s(now))
    name = Text(line.name, style="dim" if waiting else "")
    return [
        Text(mark),
        name,
        Text(_doing(line), style="dim" if waiting else ""),
        bar,
        Text(took, style="dim"),
    ]


def _doing(line: ArmLine) -> str:
    """What an arm does or how it ended, in one short line."""
    if line.status == "running":
        return step_text(line)
    ended = line.score if line.status == "done" else line.message
    return printable(ended or line.status).partition("\n")[0][:60]
