"""The order in which arms are made, raced on dev and measured on test, within a budget.

1. Every arm is made and answers a first block of dev, in the order in which they are named. Baselines are measured to
   the end.
2. The others answer further blocks; those clearly behind stop (`racing`).
3. What is left is measured on test, the best on dev first.

Answers are kept as they come (`answer_cache`), so a contest that was cut short asks for none of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tailorbird.evaluation.arms import Arm, ArmRun, ArmStarted
from tailorbird.evaluation.budget import BudgetSpent
from tailorbird.evaluation.contestant import Contestant, Measuring
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.racing import FEWEST, Stopped, behind, blocks

OUT_OF_BUDGET = "The budget was used up before this arm's turn."
CUT_SHORT = "The budget was used up while it was measured."


@dataclass
class Contest:
    """Runs the arms that no earlier run has finished.

    Args:
        arms: all arms, in their order.
        measuring: on what, and how.
        primary: the metric that decides.
        race: whether arms that are clearly behind on dev stop; they do where three or more are no baselines.
        seed: of the order of dev and of resampling.
        finished: arms that an earlier run has finished; they are opponents.
        on_finished: told of every arm as soon as nothing more is asked of it.
        expected_s: about how many seconds an arm will take; one that can't be done within the budget is not begun.
    """

    arms: Sequence[Arm]
    measuring: Measuring
    primary: str
    race: bool
    seed: int
    finished: dict[str, ArmRun]
    on_finished: Callable[[Arm, ArmRun], None]
    expected_s: Mapping[str, float] = field(default_factory=dict[str, float])
    runs: dict[str, ArmRun] = field(default_factory=dict[str, ArmRun])
    _racing: list[Contestant] = field(default_factory=list[Contestant])
    _opponents: list[Contestant] = field(default_factory=list[Contestant])

    def run(self) -> dict[str, ArmRun]:
        """What was measured of every arm that was not finished before."""
        waiting = [Contestant(a, self.measuring) for a in self.arms if a.name not in self.finished]
        race = self.race and sum(not c.arm.floor for c in waiting) + self._finished_others() >= FEWEST
        if not race:
            for contestant in waiting:
                self._measure_alone(contestant)
            return self.runs
        dev = self.measuring.data.dev
        rungs = blocks(dev, self.measuring.data.task.kind, self.seed)
        for contestant in waiting:
            self._enter(contestant, rungs[0])
        for rung in rungs[1:]:
            self._stop_those_behind()
            for contestant in tuple(self._racing):
                self._guarded(contestant, lambda c=contestant, r=rung: c.answer_dev(r))
        self._stop_those_behind()
        for contestant in sorted(self._racing, key=self._by_dev):
            self._finish(contestant)
        return self.runs

    def _finished_others(self) -> int:
        floors = {arm.name for arm in self.arms if arm.floor}
        return sum(name not in floors for name in self.finished)

    def _measure_alone(self, contestant: Contestant) -> None:
        """One arm from beginning to end, before the next one."""
        if not self._begins(contestant):
            return
        everything = range(len(self.measuring.data.dev))
        if self._guarded(contestant, contestant.make) and self._guarded(
            contestant, lambda: contestant.answer_dev(everything)
        ):
            self._finish(contestant)

    def _enter(self, contestant: Contestant, first: Sequence[int]) -> None:
        """A model is made and answers the first block; a baseline answers all, and then is an opponent."""
        if not self._begins(contestant) or not self._guarded(contestant, contestant.make):
            return
        floor = contestant.arm.floor
        asked = range(len(self.measuring.data.dev)) if floor else first
        if not self._guarded(contestant, lambda: contestant.answer_dev(asked)):
            return
        if not floor:
            self._racing.append(contestant)
        elif self._finish(contestant):  # at once: it takes no time, and is there whatever the budget
            self._opponents.append(contestant)

    def _begins(self, contestant: Contestant) -> bool:
        """Whether there is time to begin with an arm, and to measure on test what leads."""
        names = [arm.name for arm in self.arms]
        name = contestant.arm.name
        if self.measuring.on_event:
            self.measuring.on_event(ArmStarted(name, names.index(name), len(names)))
        left = self.measuring.budget.left_s - self._reserved()
        expected = self.expected_s.get(name, 0.0)
        if left > expected and not self.measuring.budget.spent:
            return True
        why = OUT_OF_BUDGET
        if expected and left > 0:
            why = f"It would take about {expected:.0f} s, and {left:.0f} s of the budget were left for it."
        self._end(contestant, ArmRun(name, 0.0, stopped=why))
        return False

    def _reserved(self) -> float:
        """Seconds that the best arm so far needs on test."""
        if not self._racing:
            return 0.0
        return min(self._racing, key=self._by_dev).answer_s * len(self.measuring.data.test)

    def _finish(self, contestant: Contestant) -> bool:
        """Test and timing; False where they could not be done."""
        if not self._guarded(contestant, contestant.finish):
            return False
        self._end(contestant, contestant.run())
        return True

    def _guarded(self, contestant: Contestant, do: Callable[[], bool]) -> bool:
        """Does it unless the budget is spent; an arm that fails, or is cut short, is ended here."""
        try:
            self.measuring.budget.check()
            if do():
                return True
            run = contestant.run()
        except BudgetSpent:
            run = replace(_so_far(contestant), stopped=CUT_SHORT)
        self._end(contestant, run)
        return False

    def _stop_those_behind(self) -> None:
        groups = _groups(self.measuring)
        others = [*self._opponents, *self._racing]
        scores = {c.arm.name: {i: row.scores[self.primary] for i, row in c.dev.items()} for c in others}
        for name, run in self.finished.items():
            scores[name] = dict(enumerate(run.dev.scores(self.primary)))
        names = [c.arm.name for c in self._racing]
        num_dev = len(self.measuring.data.dev)
        for name, why in behind(scores, names, num_dev=num_dev, groups=groups, seed=self.seed).items():
            contestant = next(c for c in self._racing if c.arm.name == name)
            self._end(contestant, replace(_so_far(contestant), stopped=_sentence(why), behind=True))

    def _by_dev(self, contestant: Contestant) -> tuple[float, float, str]:
        """Best first; between equals the faster one."""
        return (-contestant.dev_rows.mean(self.primary), contestant.answer_s, contestant.arm.name)

    def _end(self, contestant: Contestant, run: ArmRun) -> None:
        contestant.close()
        self._racing = [c for c in self._racing if c is not contestant]
        self.runs[contestant.arm.name] = run
        self.on_finished(contestant.arm, run)


def _so_far(contestant: Contestant) -> ArmRun:
    """A run that was not measured to the end, without opening its model once more."""
    train_s = contestant.made.train_s if contestant.made else 0.0
    return ArmRun(contestant.arm.name, train_s, contestant.dev_rows, Evaluation(()))


def _sentence(why: Stopped) -> str:
    return why.sentence[0].upper() + why.sentence[1:] + "."


def _groups(measuring: Measuring) -> list[str] | None:
    """The cluster of every dev example, as `Evaluation.groups` tells it."""
    named = [example.document for example in measuring.data.dev]
    if len({name for name in named if name}) == sum(name is not None for name in named):
        return None
    return [example.document or f"example {example.id}" for example in measuring.data.dev]
