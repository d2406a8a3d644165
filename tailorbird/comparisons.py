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

from tailorbird import plugins
from tailorbird.data.storage import write_atomic
from tailorbird.history import History
from tailorbird.kept_runs import kept_run
from tailorbird.knowledge_bases import KnowledgeBases
from tailorbird.making import arm_of
from tailorbird.planning import Flags, Plan, make_plan, overlay
from tailorbird.recipe_file import ArmSpec, RecipeFile, read_recipe_file
from tailorbird.trainings import TrainingWatch, trackers_for

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
        self, flags: Flags | None = None, *, config: Path | None = None, budget_s: float | None = None
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
        return replace(plan, budget_s=budget_s, folder=self.state / "runs" / f"{plan.name}-{plan.key}")

    def run(
        self,
        plan: Plan,
        *,
        out: Path | None = None,
        on_event: OnEvent | None = None,
        track: Sequence[str] = (),
        against: str | None = None,
    ) -> Outcome:
        """Runs a plan; killed and run again it goes on, and repeats no finished arm.

        Args:
            plan: from `plan`.
            out: folder that gets report.html and comparison.json; default: the run's own.
            on_event: told about every step.
            track: trackers that are told about every training step.
            against: an earlier run to hold it against: `LAST`, a run's name, or the path of a comparison.json.

        Raises:
            NotFound: a tracker is unknown or not installed, or there is no such earlier run.
            InputError: the earlier run was judged by another metric.
        """
        from tailorbird.evaluation.compare import compare
        from tailorbird.evaluation.metrics import default_metrics
        from tailorbird.evaluation.report import write_report

        metrics = default_metrics(plan.task)
        if plan.metric not in metrics:
            metrics = {**metrics, plan.metric: plugins.part("tailorbird.metrics", plan.metric)}
        watches = {spec.name: watch_of(self.state, plan, spec, on_event, track) for spec in plan.arms}
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
            budget_s=plan.budget_s,
            seed=plan.seed,
            reproduce={
                "command": plan.command,
                "base": plan.base,
                "name": plan.name,
                "run": plan.folder.name,
            },
        )
        result = kept.told(result)
        out = out or plan.folder
        out.mkdir(parents=True, exist_ok=True)
        report = write_report(result, result.evaluations, out, title=plan.name, data_notes=plan.notes)
        content = json.dumps(result.to_json(), indent=1, ensure_ascii=False).encode()
        write_atomic(out / "comparison.json", content)
        kept.finish(result, report)
        write_atomic(self.state / "last_run", json.dumps({"run": plan.folder.name}).encode())
        return Outcome(result, report, out / "comparison.json", plan.folder, plan.name)


def watch_of(
    state: Path, plan: Plan, spec: ArmSpec, on_event: OnEvent | None, track: Sequence[str] = ()
) -> TrainingWatch:
    """What is told of an arm's trainings."""
    trackers = trackers_for(track, state / "tracking", f"{plan.name}-{spec.name}")
    return TrainingWatch(spec.name, plan.metric, on_event, trackers)


def config_of(folder: Path, config: Path | None, *, given: Path | None) -> RecipeFile:
    """The named file, else the project's tailor.toml; nothing where examples were given by a flag."""
    if config is not None:
        return read_recipe_file(config)
    path = folder / CONFIG
    return read_recipe_file(path) if given is None and path.is_file() else RecipeFile()
