"""A project folder's state and verbs: all that a shell may call.

    folder/tailor.toml            what to compare (optional)
    folder/.tailorbird/models/    models saved by name
    folder/.tailorbird/runs/      one folder a comparison; its arms' models in models/
    folder/.tailorbird/last_run   which comparison was the last to finish

$TAILORBIRD_HOME takes the place of `.tailorbird`. torch is imported only when a model is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird import plugins
from tailorbird.catalogue import ModelInfo, list_models, model_folder, package_time
from tailorbird.data.storage import state_folder, write_atomic
from tailorbird.data.task import Task
from tailorbird.errors import InputError, NotFound, RecipeError, TailorbirdError
from tailorbird.planning import (
    NAME,
    Flags,
    Plan,
    described,
    make_plan,
    overlay,
    plan_single,
    valid_name,
)
from tailorbird.recipe_file import INITIAL_CONFIG, ArmSpec, RecipeFile, read_recipe_file, steps_of
from tailorbird.records import Completion, Message, Request, Sampling, content_hash
from tailorbird.references import is_reference, open_base
from tailorbird.trainings import (
    CHECKED,
    UNCHECKED,
    GeneralCheck,
    TrainingEstimated,
    TrainingProgress,
    TrainingWatch,
    apply_watched,
    keep_trainings,
    trackers_for,
)

if TYPE_CHECKING:
    from tailorbird.data.report import DatasetReport
    from tailorbird.evaluation.arms import Arm
    from tailorbird.evaluation.comparison import Comparison
    from tailorbird.models.model import Model
    from tailorbird.network.estimate import TrainingEstimate

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


@dataclass(frozen=True)
class OpenModel:
    """A model ready to be asked, with the task it was made for."""

    id: str
    model: Model
    task: Task | None = None
    created: int = 0

    def request(
        self,
        messages: Sequence[Message],
        *,
        sampling: Sampling | None = None,
        choices: tuple[str, ...] | None = None,
    ) -> Request:
        """The request that the model was measured with; what the caller gives takes its place."""
        request = self.task.request(messages) if self.task else Request(tuple(messages))
        if sampling is not None:
            request = replace(request, sampling=sampling)
        return replace(request, choices=choices) if choices is not None else request

    def ask(self, text: str, *, sampling: Sampling | None = None) -> Completion:
        """Answers one message."""
        return self.model.answer([self.request([Message("user", text)], sampling=sampling)])[0]


class Workbench:
    """The verbs of a project.

    Args:
        folder: the project's; it must exist. Nothing is written before a verb needs to.

    Raises:
        NotFound: no such folder.
    """

    def __init__(self, folder: Path = Path()) -> None:
        if not folder.is_dir():
            raise NotFound(f"{folder}: no such project folder. `tailor init {folder}` makes one.")
        self.folder = folder
        self.state = state_folder(folder)

    # -- data ---------------------------------------------------------------------------------

    def init(self) -> Path:
        """Writes a commented tailor.toml.

        Raises:
            InputError: there is one already.
        """
        path = self.folder / CONFIG
        if path.exists():
            raise InputError(f"{path} exists already. Edit it, or delete it and run `tailor init` again.")
        write_atomic(path, INITIAL_CONFIG.encode())
        return path

    def check(
        self, examples: Path, documents: Path | None = None, test: Path | None = None, base: str | None = None
    ) -> DatasetReport:
        """The data set report; with a base its tokenizer counts the lengths, else they are estimates."""
        from tailorbird.data.report import check

        return check(
            examples, documents=documents, test=test, count_tokens=_token_counter(base) if base else None
        )

    # -- comparing ----------------------------------------------------------------------------

    def plan(
        self,
        *,
        config: Path | None = None,
        examples: Path | None = None,
        test: Path | None = None,
        documents: Path | None = None,
        base: str | None = None,
        arms: Sequence[str] | None = None,
        budget_s: float | None = None,
        seed: int | None = None,
        name: str | None = None,
        key_env: str | None = None,
        limit_test: int | None = None,
    ) -> Plan:
        """Resolves flags and tailor.toml (flags win) into a plan; reads and splits the data.

        Raises:
            NotFound: a file is not there.
            DataError: the examples can't be used.
            RecipeError: an arm or a setting makes no sense.
        """
        flags = Flags(examples, test, documents, base, arms, seed, name, key_env, limit_test)
        plan = make_plan(overlay(self._config(config, given=examples), flags))
        return replace(plan, budget_s=budget_s, folder=self.state / "runs" / f"{plan.name}-{plan.key}")

    def compare(
        self,
        plan: Plan,
        *,
        out: Path | None = None,
        on_event: OnEvent | None = None,
        track: Sequence[str] = (),
    ) -> Outcome:
        """Runs a plan; killed and run again it goes on, and repeats no finished arm.

        Args:
            plan: from `plan`.
            out: folder that gets report.html and comparison.json; default: the run's own.
            on_event: told about every step.
            track: trackers that are told about every training step.

        Raises:
            NotFound: a tracker is unknown or not installed.
        """
        from tailorbird.evaluation.compare import compare
        from tailorbird.evaluation.metrics import default_metrics
        from tailorbird.evaluation.report import write_report

        _set_threads()
        metrics = default_metrics(plan.task)
        if plan.metric not in metrics:
            metrics = {**metrics, plan.metric: plugins.part("tailorbird.metrics", plan.metric)}
        watches = {spec.name: self._watch(plan, spec, on_event, track) for spec in plan.arms}
        plan.folder.mkdir(parents=True, exist_ok=True)
        result = compare(
            [self._arm(plan, spec, watches[spec.name]) for spec in plan.arms],
            plan.data,
            metrics,
            primary=plan.metric,
            folder=plan.folder,
            on_event=on_event,
            budget_s=plan.budget_s,
            seed=plan.seed,
            reproduce={"command": plan.command, "base": plan.base, "name": plan.name},
        )
        out = out or plan.folder
        out.mkdir(parents=True, exist_ok=True)
        report = write_report(result, result.evaluations, out, title=plan.name, data_notes=plan.notes)
        content = json.dumps(result.to_json(), indent=1, ensure_ascii=False).encode()
        write_atomic(out / "comparison.json", content)
        write_atomic(self.state / "last_run", json.dumps({"run": plan.folder.name}).encode())
        return Outcome(result, report, out / "comparison.json", plan.folder)

    def _watch(
        self, plan: Plan, spec: ArmSpec, on_event: OnEvent | None, track: Sequence[str] = ()
    ) -> TrainingWatch:
        trackers = trackers_for(track, self.state / "tracking", f"{plan.name}-{spec.name}")
        return TrainingWatch(spec.name, plan.metric, on_event, trackers)

    def _arm(self, plan: Plan, spec: ArmSpec, watch: TrainingWatch) -> Arm:
        from tailorbird.evaluation.arms import Arm

        def build() -> Model:
            return self._build(plan, spec, plan.folder / "models" / spec.name, watch)

        return Arm(
            spec.name,
            build,
            content_hash([self._base_identity(plan.base), described(spec, plan.seed)]),
            spec.floor,
        )

    def _build(
        self,
        plan: Plan,
        spec: ArmSpec,
        folder: Path,
        watch: TrainingWatch,
        check: GeneralCheck = UNCHECKED,
    ) -> Model:
        """The arm's model: made, saved, and read back, so that what is measured is what is served."""
        from tailorbird.evaluation.run_folder import data_fingerprint
        from tailorbird.models.folders import load_model, read_record, save_model

        key = content_hash(
            [self._base_identity(plan.base), described(spec, plan.seed), data_fingerprint(plan.data)]
        )
        if not (folder.is_dir() and read_record(folder)["lineage"].get("key") == key):
            lineage = {
                "key": key,
                "base": plan.base,
                "recipe": spec.name,
                "steps": described(spec, plan.seed),
                "project": plan.name,
                "created": int(time.time()),
            }
            checkpoint = plan.folder / "checkpoints" / spec.name
            base = self._base_for(spec, plan)
            model = apply_watched(spec, plan, base, watch, checkpoint)
            save_model(
                model,
                folder,
                task=plan.task,
                lineage=lineage,
                replace_old=True,
                add_files=lambda building: keep_trainings(
                    checkpoint, building, name=spec.name, base=base, model=model, check=check
                ),
            )
            shutil.rmtree(checkpoint, ignore_errors=True)
        return load_model(folder, plugins.rewrite_loaders()).model

    def _base_for(self, spec: ArmSpec, plan: Plan) -> Model:
        """What the recipe starts from; where its first step brings weights of its own, none are loaded."""
        if spec.steps and spec.steps[0].technique in (*plugins.FLOORS, "from_scratch"):
            from tailorbird.models.blank import Blank

            return Blank()
        return self.open(plan.base, plan.key_env).model

    def _base_identity(self, base: str) -> str:
        """What tells bases apart: the reference, and for a saved model what is in it."""
        folder = model_folder(self.state, base)
        return base if folder is None else content_hash([base, (folder / "model.json").read_text()])

    # -- one model ----------------------------------------------------------------------------

    def plan_one(
        self,
        *,
        name: str,
        steps: Sequence[str] | None = None,
        recipe: Path | None = None,
        examples: Path | None = None,
        documents: Path | None = None,
        base: str | None = None,
        key_env: str | None = None,
    ) -> Plan:
        """Resolves what `customize` makes: a plan of one arm.

        Raises:
            InputError: the name is not usable.
            RecipeError: neither or both of `steps` and `recipe`, or a recipe file without steps.
        """
        folder = self.state / "models" / f".making-{valid_name(name)}"
        if (steps is None) == (recipe is None):
            raise RecipeError(
                'customize: give either --steps "few_shot,fine_tune" or --recipe FILE, and not both.'
            )
        file = read_recipe_file(recipe) if recipe else self._config(None, given=examples)
        if recipe and file.steps is None:
            raise RecipeError(
                f'{recipe}: it names no steps. Add, for example, steps = ["few_shot", "fine_tune"].'
            )
        file = overlay(file, Flags(examples=examples, documents=documents, base=base, key_env=key_env))
        spec = ArmSpec(name, steps_of(steps, file) if steps else file.steps or ())
        return replace(plan_single(name, file, spec), folder=folder)

    def customize(
        self,
        plan: Plan,
        *,
        on_event: OnEvent | None = None,
        overwrite: bool = False,
        track: Sequence[str] = (),
        check: GeneralCheck = CHECKED,
    ) -> ModelInfo:
        """Applies a plan's one recipe and saves the model under its name.

        Args:
            plan: from `plan_one`.
            on_event: told about every step.
            overwrite: replace the model of this name.
            track: trackers that are told about every training step.
            check: whether to look at what training made the model forget.

        Raises:
            InputError: the name is taken and `overwrite` is False.
            NotFound: a tracker is unknown or not installed, or the general text is not there.
        """
        _set_threads()
        folder = self.state / "models" / plan.name
        if folder.exists() and not overwrite:
            raise InputError(f"model {plan.name!r} exists already. Choose another name, or give --replace.")
        if check.text:
            check.read()  # before, not after an hour of training
        spec = plan.arms[0]
        self._build(plan, spec, folder, self._watch(plan, spec, on_event, track), check)
        shutil.rmtree(plan.folder, ignore_errors=True)
        return next(info for info in self.models() if info.id == plan.name)

    def estimates(self, plan: Plan) -> dict[str, list[TrainingEstimate]]:
        """What the trainings of every arm will take, by arm; probed by some of their steps, none is trained.

        Raises:
            OutOfMemory: one needs more memory than is free.
        """
        _set_threads()
        watches = [TrainingWatch(spec.name, estimate_only=True) for spec in plan.arms]
        for spec, watch in zip(plan.arms, watches, strict=True):
            if any(hasattr(step.build(), "on_estimate") for step in spec.steps):
                apply_watched(spec, plan, self._base_for(spec, plan), watch)
        return {watch.arm: watch.estimates for watch in watches}

    def open(self, reference: str, key_env: str | None = None) -> OpenModel:
        """A model by saved name, arm of the last comparison, `winner`, or any MODEL reference.

        Raises:
            NotFound: nothing of that name; the message lists what there is.
        """
        folder = model_folder(self.state, reference)
        if folder is not None:
            _set_threads()
            from tailorbird.models.folders import load_model

            saved = load_model(folder, plugins.rewrite_loaders())
            return OpenModel(reference, saved.model, saved.task, int(saved.lineage.get("created", 0)))
        if not is_reference(reference):
            names = ", ".join(info.id for info in self.models())
            raise NotFound(
                f"model {reference!r}: no saved model, arm of the last comparison, folder or file of that name. "
                f"There are: {names}. A MODEL may also be a .gguf file, hf:org/name or URL#model."
            )
        return OpenModel(reference, open_base(reference, key_env), created=package_time())

    def models(self) -> list[ModelInfo]:
        """Everything that can be opened by name here, saved models first."""
        return list_models(self.state)

    def remove_model(self, name: str) -> None:
        """Deletes a saved model.

        Raises:
            NotFound: no saved model of that name.
        """
        folder = self.state / "models" / name
        if not NAME.fullmatch(name) or not (folder / "model.json").is_file():
            saved = ", ".join(info.id for info in self.models() if info.origin == "saved") or "none"
            raise NotFound(f"model {name!r} is not saved here. Saved: {saved}.")
        from tailorbird.models.folders import remove_model

        remove_model(folder)

    def _config(self, config: Path | None, *, given: Path | None) -> RecipeFile:
        """The named file, else the project's tailor.toml, else nothing.

        Examples given by a flag have nothing to do with a tailor.toml that happens to lie about.
        """
        if config is not None:
            return read_recipe_file(config)
        path = self.folder / CONFIG
        return read_recipe_file(path) if given is None and path.is_file() else RecipeFile()


def _token_counter(base: str) -> Callable[[str], int]:
    model = open_base(base, None)
    engine = getattr(model, "engine", None)
    if engine is None:
        raise InputError(
            f"base {base!r}: an endpoint's tokenizer is not at hand. Leave --base out for estimates."
        )
    return lambda text: len(engine.template.text(text))


def _set_threads() -> None:
    """As many threads as OMP_NUM_THREADS says, else as there are cores this process may use."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cores))


__all__ = [
    "INITIAL_CONFIG",
    "GeneralCheck",
    "ModelInfo",
    "OnEvent",
    "OpenModel",
    "Outcome",
    "Plan",
    "TailorbirdError",
    "TrainingEstimated",
    "TrainingProgress",
    "Workbench",
]
