"""The order in which arms are made, raced on dev and measured on test, within a budget.

1. Every arm is made and answers a first block of dev, in the order in which they are named, but those that are
   fine-tuned come last: they are trained to a quarter and to half of their steps, and what is clearly behind the
   others at the same share is trained no further. Baselines are measured to the end.
2. The others answer further blocks; those clearly behind stop (`racing`).
3. What is left is measured on test, the best on dev first.

Arms that other machines answer for are asked in threads of their own while this one works on the rest; single
answers are timed alone, one arm after another.

Answers are kept as they come (`answer_cache`), so a contest that was cut short asks for none of them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from tailorbird.evaluation.arms import Arm, ArmRun, ArmStarted, Event
from tailorbird.evaluation.budget import BudgetSpent
from tailorbird.evaluation.contestant import Contestant, Measuring
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.racing import FEWEST, Stopped, behind, behind_in_training, blocks

OUT_OF_BUDGET = "The budget was used up before this arm's turn."
CUT_SHORT = "The budget was used up while it was measured."
TRAINED = (0.25, 0.5)
"""Shares of a training after which those that are trained alike are held against each other."""


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
    _started: set[str] = field(default_factory=set[str])
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        # Several threads may tell; who is told need not know.
        tell, lock = self.measuring.on_event, self._lock

        def told(event: Event) -> None:
            with lock:
                if tell:
                    tell(event)

        self.measuring = replace(self.measuring, on_event=told)

    def run(self) -> dict[str, ArmRun]:
        """What was measured of every arm that was not finished before."""
        waiting = [Contestant(a, self.measuring) for a in self.arms if a.name not in self.finished]
        race = self.race and sum(not c.arm.floor for c in waiting) + len(self._finished_others()) >= FEWEST
        if not race:
            self._together(waiting, self._measure_alone)
            self._time_what_is_remote(waiting)
            return self.runs
        dev = self.measuring.data.dev
        rungs = blocks(dev, self.measuring.data.task.kind, self.seed)
        # What trains may begin where an arm without training ends.
        self._together([c for c in waiting if not c.arm.begin], lambda c: self._enter(c, rungs[0]))
        trained = self._race_trainings([c for c in waiting if c.arm.begin])
        self._together(trained, lambda c: self._enter(c, rungs[0]))
        # As they were named, whichever machine was the first to answer.
        order = [c.arm.name for c in waiting]
        self._racing.sort(key=lambda c: order.index(c.arm.name))
        for rung in rungs[1:]:
            self._stop_those_behind()
            self._together(self._racing, lambda c, r=rung: self._guarded(c, lambda: c.answer_dev(r)))
        self._stop_those_behind()
        best_first = sorted(self._racing, key=self._by_dev)
        self._together(best_first, self._finish)
        self._time_what_is_remote(best_first)
        return self.runs

    def _together(self, contestants: Sequence[Contestant], do: Callable[[Contestant], object]) -> None:
        """Does it with each in order, and meanwhile, in threads, with those that other machines answer for."""
        contestants = tuple(contestants)
        remote = [c for c in contestants if c.arm.remote]
        with ThreadPoolExecutor(max(1, len(remote))) as pool:
            asked = [pool.submit(do, contestant) for contestant in remote]
            try:
                for contestant in contestants:
                    if not contestant.arm.remote:
                        do(contestant)
                for each in asked:
                    each.result()
            except BaseException:
                self.measuring.given_up.set()  # the threads end with the batch that is under way
                raise

    def _time_what_is_remote(self, contestants: Sequence[Contestant]) -> None:
        """Single answers of other machines are timed when this one does nothing else."""
        for contestant in contestants:
            if contestant.arm.remote and contestant.arm.name not in self.runs:
                self._time(contestant)

    def _race_trainings(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        """Trains what is trained alike to the same share of its steps, and ends what is clearly behind there.

        Returns those that are to be trained to the end.
        """
        trained = list(contestants)
        finished = [arm for arm in self.arms if arm.name in self.finished]
        for share in TRAINED:
            # Of arms that an earlier run has finished too: stopped and run again, it must end as if it never had been.
            before = {arm.name: begun for arm in finished if arm.paused and (begun := arm.paused(share))}
            if not trained or len(trained) + len(before) < 2:
                break
            for contestant in trained:
                if self._begins(contestant):
                    self._guarded(contestant, lambda c=contestant, s=share: c.begin(s))
            trained = [c for c in trained if c.begun is not None and c.arm.name not in self.runs]
            found = behind_in_training(
                {**before, **{c.arm.name: c.begun for c in trained if c.begun}},
                self.measuring.data.dev,
                groups=_groups(self.measuring),
                seed=self.seed,
            )
            for contestant in tuple(trained):
                if why := found.get(contestant.arm.name):
                    trained.remove(contestant)
                    self._end(contestant, replace(_so_far(contestant), stopped=_sentence(why), behind=True))
        return [c for c in contestants if c.arm.name not in self.runs]

    def _finished_others(self) -> list[str]:
        """Arms that are no baselines and that an earlier run has finished."""
        floors = {arm.name for arm in self.arms if arm.floor}
        return [name for name in self.finished if name not in floors]

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
            with self._lock:
                self._racing.append(contestant)
        elif self._finish(contestant):  # at once: it takes no time, and is there whatever the budget
            self._opponents.append(contestant)

    def _begins(self, contestant: Contestant) -> bool:
        """Whether there is time to begin with an arm, and to measure on test what leads."""
        names = [arm.name for arm in self.arms]
        name = contestant.arm.name
        if name not in self._started and self.measuring.on_event:
            self._started.add(name)
            self.measuring.on_event(ArmStarted(name, names.index(name), len(names)))
        left = self.measuring.budget.left_s - self._reserved()
        expected = max(0.0, self.expected_s.get(name, 0.0) - contestant.begun_s)
        if left > expected and not self.measuring.budget.spent:
            return True
        why = OUT_OF_BUDGET
        if expected and left > 0:
            why = f"It would take about {expected:.0f} s, and {left:.0f} s of the budget were left for it."
        self._end(contestant, ArmRun(name, 0.0, stopped=why))
        return False

    def _reserved(self) -> float:
        """Seconds that the best arm so far needs on test."""
        with self._lock:
            racing = list(self._racing)
        if not racing:
            return 0.0
        return min(racing, key=self._by_dev).answer_s * len(self.measuring.data.test)

    def _finish(self, contestant: Contestant) -> bool:
        """Test and timing, of what other machines answer test alone; False where they could not be done."""
        if contestant.arm.remote:
            return self._guarded(contestant, contestant.answer_test)
        return self._time(contestant)

    def _time(self, contestant: Contestant) -> bool:
        """What is left to measure, and the end of it; False where it could not be done."""
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
            if self.measuring.given_up.is_set():  # it was interrupted, whatever is left of the budget
                return False
            run = replace(_so_far(contestant), stopped=CUT_SHORT)
        self._end(contestant, run)
        return False

    def _stop_those_behind(self) -> None:
        groups = _groups(self.measuring)
        others = [*self._opponents, *self._racing]
        scores = {c.arm.name: {i: row.scores[self.primary] for i, row in c.dev.items()} for c in others}
        for name, run in self.finished.items():
            scores[name] = dict(enumerate(run.dev.scores(self.primary)))
        # Arms that an earlier run has finished were in this race to its end, so they count where it is halved.
        names = [*(c.arm.name for c in self._racing), *self._finished_others()]
        num_dev = len(self.measuring.data.dev)
        found = behind(scores, names, num_dev=num_dev, groups=groups, seed=self.seed)
        for contestant in tuple(self._racing):
            if why := found.get(contestant.arm.name):
                self._end(contestant, replace(_so_far(contestant), stopped=_sentence(why), behind=True))

    def _by_dev(self, contestant: Contestant) -> tuple[float, float, str]:
        """Best first; between equals the faster one."""
        return (-contestant.dev_rows.mean(self.primary), contestant.answer_s, contestant.arm.name)

    def _end(self, contestant: Contestant, run: ArmRun) -> None:
        contestant.close()
        with self._lock:
            self._racing = [c for c in self._racing if c is not contestant]
            self.runs[contestant.arm.name] = run
            self.on_finished(contestant.arm, run)


def _so_far(contestant: Contestant) -> ArmRun:
    """A run that was not measured to the end, without opening its model once more."""
    train_s = contestant.made.train_s if contestant.made else contestant.begun_s
    return ArmRun(contestant.arm.name, train_s, contestant.dev_rows, Evaluation(()))


def _sentence(why: Stopped) -> str:
    return why.sentence[0].upper() + why.sentence[1:] + "."


def _groups(measuring: Measuring) -> list[str] | None:
    """The cluster of every dev example, as `Evaluation.groups` tells it."""
    named = [example.document for example in measuring.data.dev]
    if len({name for name in named if name}) == sum(name is not None for name in named):
        return None
    return [example.document or f"example {example.id}" for example in measuring.data.dev]
