"""What more would buy: measured after the verdict, on the leading arms, and no part of the verdict.

    curve     the arms on a quarter and on half of the labels, in three draws: what would more labels bring?
    ablation  the arms without each of their parts: what is each part good for?
    seeds     the arms with other training seeds, and on random halves of the labels: how much is chance?

and, which needs no measuring, after how many questions an arm pays back. Each measurement is an arm of its own:

folder/.tailorbird/runs/NAME-KEY/extras/arms/   one folder each, kept and taken over as those of the comparison

so a killed run goes on where it was. Their models are deleted once they have answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tailorbird.data.subsets import nested_subset
from tailorbird.data.task import Data
from tailorbird.errors import RecipeError
from tailorbird.evaluation.ablation import Ablated, ablated
from tailorbird.evaluation.answer_cache import AnswerCache
from tailorbird.evaluation.arms import ArmFinished, ArmRun, ArmStarted, ExtrasStarted
from tailorbird.evaluation.break_even import break_evens, costed, summary
from tailorbird.evaluation.budget import Budget, BudgetSpent
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.contestant import Measuring, run_arm
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.learning_curve import LearningCurve, Measured, learning_curve
from tailorbird.evaluation.metrics import Metric
from tailorbird.evaluation.own_metrics import identities
from tailorbird.evaluation.run_folder import (
    arm_key,
    clear_unfinished,
    data_fingerprint,
    finished_arm,
    save_arm,
)
from tailorbird.evaluation.seed_spread import SeedSpread, order_sentence, seed_spread
from tailorbird.evaluation.statistics import score_interval
from tailorbird.making import arm_of
from tailorbird.planning import Plan, described
from tailorbird.recipe_file import KNOWLEDGE, ArmSpec, Step
from tailorbird.trainings import TrainingWatch, within
from tailorbird.wanted import DRAWS, SHARES

OnEvent = Callable[[Any], None]

HALF = SHARES[-1]
FEWEST_LABELS = 8
"""Models of fewer say little of models of many, and a classifier may lack its second label."""
LEARN_NO_LABELS = frozenset({"blank", "majority", KNOWLEDGE})
"""Techniques for which more labels change nothing, or next to nothing."""


def with_extras(
    state: Path,
    plan: Plan,
    result: Comparison,
    metrics: Mapping[str, Metric],
    *,
    cache: AnswerCache | None = None,
    on_event: OnEvent | None = None,
    budget: Budget | None = None,
) -> Comparison:
    """The comparison with what its plan wants measured beside it; the verdict stays as it is.

    Args:
        state: the project's state folder.
        plan: of the comparison; `plan.extras` says what is wanted.
        result: the finished comparison with its answers.
        metrics: those that it was measured by.
        cache: answers of earlier runs by the same models; None asks for all.
        on_event: told about every step, as of the comparison's arms.
        budget: what is left of the comparison's; None sets no bound.
    """
    measuring = _Measuring(state, plan, result, metrics, cache, on_event, budget or Budget())
    extras = {**measuring.extras(), "break_even": _break_even(result)}
    return replace(result, extras=json.loads(json.dumps(extras)))  # as it reads back


def leading_arms(plan: Plan, result: Comparison) -> list[ArmSpec]:
    """The verdict's arm, and the best other one that learns from labels; a floor only where nothing else does."""
    specs = {spec.name: spec for spec in plan.arms}
    use = result.verdict.arm
    others = [
        specs[arm.name]
        for arm in result.arms
        if arm.ran and arm.name != use and learns_labels(specs[arm.name])
    ]
    others.sort(key=lambda spec: spec.floor)  # stable: the best of each kind stays first
    return [*([specs[use]] if use is not None else []), *others[:1]]


def learns_labels(spec: ArmSpec) -> bool:
    """Whether more labels would make another model of it."""
    return any(step.technique not in LEARN_NO_LABELS for step in spec.steps)


def other_seed(spec: ArmSpec, plan_seed: int, number: int) -> ArmSpec | None:
    """The arm with other seeds in the steps that train, under a name of its own; None where no step does."""
    steps: list[Step] = []
    for step in spec.steps:
        known = {f.name for f in fields(step.build())}
        if {"seed", "checkpoint"} <= known:
            seed = step.settings.get("seed", plan_seed) + number
            step = replace(step, settings={**step.settings, "seed": seed})  # noqa: PLW2901
        steps.append(step)
    return (
        replace(spec, name=f"{spec.name}, training seed {number + 1}", steps=tuple(steps))
        if tuple(steps) != spec.steps
        else None
    )


def without_parts(spec: ArmSpec, *, classify: bool) -> list[tuple[str, ArmSpec]]:
    """Each part of an arm by name, and the arm without it: its techniques, or what belongs to its only one."""
    if len(spec.steps) != 1:
        names = [step.technique for step in spec.steps]
        unique = [n if names.count(n) == 1 else f"{n} (step {i})" for i, n in enumerate(names, 1)]
        rests = [spec.steps[:i] + spec.steps[i + 1 :] for i in range(len(names))]
        return [
            (n, replace(spec, name=f"{spec.name} without {n}", steps=rest))
            for n, rest in zip(unique, rests, strict=True)
        ]
    found: list[tuple[str, ArmSpec]] = []
    for name, settings in _parts_of_step(spec.steps[0], classify=classify):
        kept = {k: v for k, v in spec.steps[0].settings.items() if not ("k" in settings and k == "core")}
        step = replace(spec.steps[0], settings={**kept, **settings})
        try:
            step.build()
        except RecipeError:
            continue  # the other settings need this part: an optimizer of examples has nothing to do without
        found.append((name, replace(spec, name=f"{spec.name} without {name}", steps=(step,))))
    return found


def _parts_of_step(step: Step, *, classify: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a technique has that it could do without, and the settings that leave it out."""
    built = step.build()
    if step.technique == "few_shot":
        if built.k != 0:
            yield "the examples shown", {"k": 0}
        if classify and built.calibrate != "none":
            yield "calibration", {"calibrate": "none"}
        if built.shortlist is not None:
            yield "the shortlist", {"shortlist": None}
        if built.tune:
            yield "the search on dev", {"tune": False, "optimizer": None, "proposer": None}
    if step.technique == KNOWLEDGE:
        if built.threshold is None or built.threshold > -1:
            yield "the gate", {"threshold": -1.0}
        if built.check_answers:
            yield "the check of answers", {"check_answers": False}
        if built.rerank:
            yield "reranking", {"rerank": 0, "reranker": ""}


@dataclass(frozen=True)
class _Job:
    """A model to measure: its recipe under a name of its own, and what it learns from."""

    spec: ArmSpec
    data: Data


@dataclass
class _Measuring:
    """The measurements beside one comparison."""

    state: Path
    plan: Plan
    result: Comparison
    metrics: Mapping[str, Metric]
    cache: AnswerCache | None = None
    on_event: OnEvent | None = None
    budget: Budget = field(default_factory=Budget)
    notes: list[str] = field(default_factory=list[str])
    runs: dict[str, Evaluation] = field(default_factory=dict[str, Evaluation])

    def __post_init__(self) -> None:
        self.folder = self.plan.folder / "extras"
        self.leading = leading_arms(self.plan, self.result)
        self.learning = [spec for spec in self.leading if learns_labels(spec)]
        evaluations = self.result.evaluations.values()
        self.groups = next(iter(evaluations)).groups if evaluations else None

    def extras(self) -> dict[str, Any]:
        """All that is wanted, measured and put in words."""
        wanted = self.plan.extras
        if not wanted or not self.leading:
            return {}
        self._measure()
        found: dict[str, Any] = {}
        if wanted.curve:
            found["curve"] = [self._curve(spec).to_json() for spec in self._with_labels(SHARES[0])]
        if wanted.ablate:
            found["ablation"] = [one.to_json() for spec in self.leading for one in self._ablation(spec)]
        if wanted.seeds > 1:
            spreads = [self._spread(spec) for spec in self.learning]
            found["seeds"] = [spread.to_json() for spread in spreads]
            found["seed_order"] = order_sentence(*spreads) if len(spreads) == 2 else ""
        return {**found, "notes": self.notes}

    # -- what is measured -------------------------------------------------------------------------

    def _jobs(self) -> list[_Job]:
        """Everything to measure, each once, though two questions may need the same model."""
        wanted, data = self.plan.extras, self.plan.data
        jobs: list[_Job] = []
        if wanted.curve:
            for spec in self._with_labels(SHARES[0]):
                jobs += [self._drawn(spec, share, draw) for share in SHARES for draw in range(DRAWS)]
        if wanted.seeds > 1:
            for spec in self._with_labels(HALF):
                jobs += [self._drawn(spec, HALF, draw) for draw in range(wanted.seeds)]
            seeded = [other_seed(s, self.plan.seed, n) for s in self.learning for n in range(1, wanted.seeds)]
            jobs += [_Job(spec, data) for spec in seeded if spec is not None]
        if wanted.ablate:
            rests = [rest for spec in self.leading for _, rest in self._parts(spec)]
            jobs += [_Job(rest, data) for rest in rests if not self._same_arm(rest)]
        return list({job.spec.name: job for job in jobs}.values())

    def _drawn(self, spec: ArmSpec, share: float, draw: int) -> _Job:
        train = nested_subset(self.plan.data.train, share, seed=self.plan.seed, draw=draw)
        return _Job(replace(spec, name=_drawn_name(spec, share, draw)), replace(self.plan.data, train=train))

    def _with_labels(self, share: float) -> list[ArmSpec]:
        """The leading arms that learn from labels, if this share of them is enough."""
        return self.learning if share * len(self.plan.data.train) >= FEWEST_LABELS else []

    def _parts(self, spec: ArmSpec) -> list[tuple[str, ArmSpec]]:
        return without_parts(spec, classify=self.plan.task.kind == "classify")

    def _same_arm(self, spec: ArmSpec) -> str:
        """The arm of the comparison that is made alike and ran; empty where there is none."""
        steps = described(spec, self.plan.seed)
        return next(
            (
                arm.name
                for arm in self.plan.arms
                if arm.name in self.result.evaluations
                and described(arm, self.plan.seed) == steps
                and (arm.base == spec.base or not spec.on_base)
            ),
            "",
        )

    def _measure(self) -> None:
        if not self.learning and (self.plan.extras.curve or self.plan.extras.seeds > 1):
            self.notes.append("No arm that ran learns from labels: there is no curve, and no seed to change.")
        elif self.plan.extras.curve and not self._with_labels(SHARES[0]):
            count = len(self.plan.data.train)
            self.notes.append(
                f"No learning curve: a quarter of {count} training examples is fewer than {FEWEST_LABELS}. Add some."
            )
        jobs = self._jobs()
        self._tell(ExtrasStarted(tuple(job.spec.name for job in jobs), self.result.verdict))
        if self.folder.is_dir():
            clear_unfinished(self.folder)
        late = 0
        for index, job in enumerate(jobs):
            self._tell(ArmStarted(job.spec.name, index, len(jobs)))
            run = self._run(job)
            late += run is None
            if run and run.failed:
                self.notes.append(f"{job.spec.name} failed: {run.failed}")
            elif run:
                self.runs[job.spec.name] = run.test
        if late:
            self.notes.append(
                f"{late} of {len(jobs)} measurements were not made: the budget was used up. Run it again to go on."
            )

    def _run(self, job: _Job) -> ArmRun | None:
        """What an earlier run kept, or else measured now; None where the budget was used up."""
        name, plan = job.spec.name, replace(self.plan, data=job.data, folder=self.folder)
        arm = arm_of(
            self.state, plan, job.spec, TrainingWatch(name, plan.metric, within(self.budget, self.on_event))
        )
        key = arm_key(name, arm.key, data_fingerprint(job.data), identities(self.metrics))
        run = finished_arm(self.folder, name, key)
        reused = run is not None
        if run is None and not self.budget.spent:
            # Latency was measured with the whole arm, and dev has no part in any of this.
            asked = replace(job.data, dev=())
            measuring = Measuring(
                asked,
                self.metrics,
                self.budget,
                self.cache,
                self.on_event,
                latency_requests=0,
                surprise=False,
            )
            with suppress(BudgetSpent):
                run = run_arm(arm, measuring)
                save_arm(self.folder, run, key)
        self._forget(name)
        self._tell(self._finished(name, run, reused=reused))
        return run

    def _forget(self, name: str) -> None:
        """Deletes a model that has answered: its answers stay."""
        from tailorbird.models.folders import remove_model

        folder = self.folder / "models" / name
        if (folder / "model.json").is_file():
            remove_model(folder)

    def _finished(self, name: str, run: ArmRun | None, *, reused: bool) -> ArmFinished:
        if run is None:
            return ArmFinished(name, "stopped", message="The budget was used up.")
        if run.failed:
            return ArmFinished(name, "failed", message=run.failed)
        found = score_interval(run.test.scores(self.result.metric), groups=run.test.groups)
        return ArmFinished(name, "done", found.mean, found.low, found.high, reused)

    def _tell(self, event: Any) -> None:
        if self.on_event:
            self.on_event(event)

    # -- what follows from it ---------------------------------------------------------------------

    def _scores(self, evaluation: Evaluation) -> list[float]:
        return evaluation.scores(self.result.metric)

    def _curve(self, spec: ArmSpec) -> LearningCurve:
        measured = [Measured(len(self.plan.data.train), 0, self._scores(self.result.evaluations[spec.name]))]
        for share in SHARES:
            for draw in range(DRAWS):
                if (found := self.runs.get(_drawn_name(spec, share, draw))) is not None:
                    count = len(self._drawn(spec, share, draw).data.train)
                    measured.append(Measured(count, draw, self._scores(found)))
        return learning_curve(spec.name, measured, groups=self.groups, seed=self.plan.seed)

    def _ablation(self, spec: ArmSpec) -> Iterator[Ablated]:
        whole = self._scores(self.result.evaluations[spec.name])
        for part, rest in self._parts(spec):
            same = self._same_arm(rest)
            found = self.result.evaluations[same] if same else self.runs.get(rest.name)
            if found is not None:
                yield ablated(
                    spec.name,
                    part,
                    whole,
                    self._scores(found),
                    taken_from=same,
                    groups=self.groups,
                )

    def _spread(self, spec: ArmSpec) -> SeedSpread:
        seeds, own = self.plan.extras.seeds, self.result.evaluations[spec.name]
        draws = range(max(seeds, DRAWS))
        drawn = [self.runs.get(_drawn_name(spec, HALF, draw)) for draw in draws]
        others = [other_seed(spec, self.plan.seed, number) for number in range(1, seeds)]
        trained = [self.runs.get(other.name) for other in others if other is not None]
        return seed_spread(
            spec.name,
            self._scores(own),
            self._means([own, *trained]) if any(others) else (),
            self._means(drawn),
            groups=self.groups,
            seed=self.plan.seed,
        )

    def _means(self, found: Sequence[Evaluation | None]) -> list[float]:
        return [one.mean(self.result.metric) for one in found if one is not None]


def _drawn_name(spec: ArmSpec, share: float, draw: int) -> str:
    return f"{spec.name}, {100 * share:g} % of labels, draw {draw + 1}"


def _break_even(result: Comparison) -> dict[str, Any]:
    evaluations = list(result.evaluations.values())
    groups = evaluations[0].groups if evaluations else None
    pairs = break_evens(costed(result), margin=result.margin, groups=groups)
    return {"sentence": summary(pairs, result.verdict.arm), "pairs": [pair.to_json() for pair in pairs]}
