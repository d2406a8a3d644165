"""The comparisons of a project: planned from files and flags, run, and kept.

folder/.tailorbird/runs/NAME-KEY/   one comparison; its arms' models in models/
folder/.tailorbird/last_run         which comparison was the last to finish
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.data.storage import write_atomic
from tailorbird.forecast import Forecast, forecast
from tailorbird.history import History
from tailorbird.judges import check_judge, judged
from tailorbird.kept_runs import kept_run
from tailorbird.knowledge_bases import KnowledgeBases
from tailorbird.learnt import seen_before
from tailorbird.making import arm_of
from tailorbird.measuring import metrics_of
from tailorbird.planning import Flags, Plan, default_metric_name, make_plan, overlay
from tailorbird.recipe_file import ArmSpec, RecipeFile, read_recipe_file
from tailorbird.trainings import TrainingWatch, trackers_for, within
from tailorbird.wanted import JudgeChoice

if TYPE_CHECKING:
    from tailorbird.evaluation.comparison import Comparison

CONFIG = "tailor.toml"

OnEvent = Callable[[Any], None]
"""Gets `evaluation.arms.Event`s, `TrainingEstimated` and `TrainingProgress`."""


@dataclass(frozen=True)
class Outcome:
    """A finished comparison and where its files lie."""

    comparison: Comparison
    report: Path
    json: Path
    folder: Path
    name: str = ""


@dataclass(frozen=True)
class Comparisons:
    """What is compared in a project.

    Args:
        state: the project's state folder.
        folder: the project's.
        knowledge: the documents that it knows by name.
    """

    state: Path
    folder: Path
    knowledge: KnowledgeBases

    @property
    def history(self) -> History:
        """The runs that are kept."""
        return History(self.state)

    def plan(
        self, flags: Flags | None = None, *, config: Path | None = None, judge: JudgeChoice | None = None
    ) -> Plan:
        """Resolves flags and tailor.toml (flags win) into a plan; reads and splits the data.

        Raises:
            NotFound: a file is not there.
            DataError: the examples can't be used.
            RecipeError: an arm or a setting makes no sense.
        """
        flags = flags or Flags()
        file = config_of(self.folder, config, given=flags.examples)
        file = overlay(self.knowledge.with_tables(file, flags.sources), flags)
        plan = make_plan(replace(file, documents=self.knowledge.folder(file.documents, self.folder)))
        if (judge := judge or plan.judge) is not None:
            check_judge(self.state, judge)
            plan = replace(plan, judge=judge)
        plan = replace(plan, problems=(*seen_before(self.state, plan), *plan.problems))
        return replace(plan, folder=self.state / "runs" / f"{plan.name}-{plan.key}")

    def forecast(self, plan: Plan) -> list[Forecast]:
        """About what every arm will take, from earlier comparisons here or from a few answers of the base.

        Raises:
            NotFound: the base is not there.
        """
        return forecast(self.state, plan, price_of_an_hour(plan))

    def run(
        self,
        plan: Plan,
        *,
        expected: Sequence[Forecast] = (),
        out: Path | None = None,
        on_event: OnEvent | None = None,
        track: Sequence[str] = (),
        against: str | None = None,
    ) -> Outcome:
        """Runs a plan; killed and run again it goes on, and repeats no finished arm.

        Args:
            plan: from `plan`.
            expected: from `forecast`; an arm that can't be done within the budget is then not begun.
            out: folder that gets report.html and comparison.json; default: the run's own.
            on_event: told about every step.
            track: trackers that are told about every training step.
            against: an earlier run to hold it against: `LAST`, a run's name, or the path of a comparison.json.

        Raises:
            NotFound: a tracker is unknown or not installed, or there is no such earlier run.
            InputError: the earlier run was judged by another metric.
        """
        from tailorbird.evaluation.answer_cache import AnswerCache
        from tailorbird.evaluation.budget import Budget
        from tailorbird.evaluation.compare import compare
        from tailorbird.evaluation.run_folder import save_comparison
        from tailorbird.extras import with_extras

        metrics = metrics_of(plan.task, plan.measured)
        cache = None if plan.fresh else AnswerCache(self.state / "answers.db")
        budget = Budget(plan.budget_s, plan.budget_usd, price_of_an_hour(plan))

        told = within(budget, on_event)
        watches = {spec.name: watch_of(self.state, plan, spec, told, track) for spec in plan.arms}
        plan.folder.mkdir(parents=True, exist_ok=True)
        arms = [arm_of(self.state, plan, spec, watches[spec.name]) for spec in plan.arms]
        kept = kept_run(self.state, plan, arms, metrics, against)
        result = compare(
            arms,
            plan.data,
            metrics,
            primary=plan.metric,
            folder=plan.folder,
            on_event=kept.hear(on_event),
            price_per_hour=price_of_an_hour(plan),
            budget=budget,
            expected_s={each.arm: each.seconds for each in expected},
            race=plan.race,
            cache=cache,
            seed=plan.seed,
            reproduce={
                "command": plan.command,
                "base": plan.base,
                **bases_told(plan),
                "name": plan.name,
                "run": plan.folder.name,
            },
        )
        result = kept.told(result)
        if plan.judge is not None:
            result = judged(self.state, plan, plan.judge, result, cache=cache, on_event=on_event)
        if plan.extras:  # which take long: the verdict is there meanwhile
            self._keep(plan, result, out)
        result = with_extras(self.state, plan, result, metrics, cache=cache, on_event=on_event, budget=budget)
        save_comparison(plan.folder, result)
        outcome = self._keep(plan, result, out)
        kept.finish(result, outcome.report)
        return outcome

    def _keep(self, plan: Plan, result: Comparison, out: Path | None) -> Outcome:
        """Writes the report and the numbers where they are wanted, and makes this the last comparison."""
        from tailorbird.evaluation.report import write_report

        out = out or plan.folder
        out.mkdir(parents=True, exist_ok=True)
        report = write_report(result, result.evaluations, out, title=plan.name, data_notes=plan.notes)
        content = json.dumps(result.to_json(), indent=1, ensure_ascii=False).encode()
        write_atomic(out / "comparison.json", content)
        write_atomic(self.state / "last_run", json.dumps({"run": plan.folder.name}).encode())
        return Outcome(result, report, out / "comparison.json", plan.folder, plan.name)


def bases_told(plan: Plan) -> dict[str, Any]:
    """Several bases by the names that arms have them under; nothing where there is one."""
    if len(plan.bases) == 1:
        return {}
    return {"bases": {base.name: base.reference for base in plan.bases}}


def price_of_an_hour(plan: Plan) -> float:
    """US dollars that an hour of this machine costs, as the plan says, or as is usual."""
    from tailorbird.evaluation.compare import PRICE_PER_HOUR

    return PRICE_PER_HOUR if plan.price_per_hour is None else plan.price_per_hour


def watch_of(
    state: Path, plan: Plan, spec: ArmSpec, on_event: OnEvent | None, track: Sequence[str] = ()
) -> TrainingWatch:
    """What is told of an arm's trainings."""
    trackers = trackers_for(track, state / "tracking", f"{plan.name}-{spec.name}")
    # Training is watched by the task's own metric, whichever decides in the end.
    return TrainingWatch(spec.name, default_metric_name(plan.task), on_event, trackers)


def config_of(folder: Path, config: Path | None, *, given: Path | None) -> RecipeFile:
    """The named file, else the project's tailor.toml; nothing where examples were given by a flag."""
    if config is not None:
        return read_recipe_file(config)
    path = folder / CONFIG
    return read_recipe_file(path) if given is None and path.is_file() else RecipeFile()
