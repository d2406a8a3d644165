"""A project folder's state and verbs: all that a shell may call.

    folder/tailor.toml            what to compare (optional)
    folder/.tailorbird/models/    models saved by name
    folder/.tailorbird/knowledge/ knowledge bases by name
    folder/.tailorbird/runs/      one folder a comparison; its arms' models in models/
    folder/.tailorbird/last_run   which comparison was the last to finish

$TAILORBIRD_HOME takes the place of `.tailorbird`. torch is imported only when a model is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tailorbird import plugins
from tailorbird.catalogue import ModelInfo, list_models
from tailorbird.comparisons import CONFIG, Comparisons, OnEvent, Outcome, config_of, watch_of
from tailorbird.data.columns import Columns
from tailorbird.data.storage import state_folder, write_atomic
from tailorbird.data.task import infer_task
from tailorbird.errors import InputError, NotFound, RecipeError, TailorbirdError
from tailorbird.evaluation.gates import Gates
from tailorbird.evaluation.gates import judge as judge_gates
from tailorbird.evaluation.junit import junit_xml
from tailorbird.forecast import Forecast
from tailorbird.history import History, RunInfo
from tailorbird.knowledge_bases import KnowledgeBases, KnowledgeInfo, OriginReport
from tailorbird.knowledge_questions import KnowledgeQuestions
from tailorbird.making import base_for, make_model
from tailorbird.metaprompts import KeptMetaprompt, Metaprompts
from tailorbird.opening import OpenModel, open_reference, set_threads
from tailorbird.planning import (
    NAME,
    Flags,
    JudgeChoice,
    Plan,
    overlay,
    plan_single,
    valid_name,
)
from tailorbird.recipe_file import INITIAL_CONFIG, ArmSpec, RecipeFile, read_recipe_file, steps_of
from tailorbird.references import STARTER, open_template, token_counter
from tailorbird.trainings import (
    CHECKED,
    GeneralCheck,
    TrainingEstimated,
    TrainingProgress,
    TrainingWatch,
    apply_watched,
)

if TYPE_CHECKING:
    from tailorbird.data.report import DatasetReport
    from tailorbird.models.exports.export import Exported
    from tailorbird.network.estimate import TrainingEstimate
    from tailorbird.techniques.mask import MaskedToken, MaskPreview

NAMED_AS_USUAL = Columns()


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
        self,
        examples: Path,
        documents: Path | None = None,
        test: Path | None = None,
        base: str | None = None,
        columns: Columns = NAMED_AS_USUAL,
    ) -> DatasetReport:
        """The data set report; with a base its tokenizer counts the lengths, else they are estimates."""
        from tailorbird.data.report import check

        return check(
            examples,
            documents=documents,
            test=test,
            columns=columns,
            count_tokens=token_counter(base) if base else None,
        )

    def mask(
        self,
        examples: Path,
        base: str | None = None,
        num_rows: int = 3,
        columns: Columns = NAMED_AS_USUAL,
    ) -> MaskPreview:
        """The first training examples token by token, as `fine_tune` on `base` (the starter) would get them.

        Raises:
            DataError: the examples can't be used.
            InputError: the base is an endpoint, whose tokenizer is not at hand.
        """
        from tailorbird.techniques.mask import preview_mask

        file = RecipeFile(examples=examples, prompt_column=columns.prompt)
        file = replace(file, completion_column=columns.completion)
        plan = plan_single("mask", file, ArmSpec("mask", ()))
        return preview_mask(open_template(base or STARTER), plan.data, num_rows)

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
        columns: Columns = NAMED_AS_USUAL,
        sources: Sequence[str] | None = None,
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
        file = read_recipe_file(recipe) if recipe else config_of(self.folder, None, given=examples)
        if recipe and file.steps is None:
            raise RecipeError(
                f'{recipe}: it names no steps. Add, for example, steps = ["few_shot", "fine_tune"].'
            )
        flags = Flags(
            examples=examples,
            documents=documents,
            base=base,
            key_env=key_env,
            prompt_column=columns.prompt,
            completion_column=columns.completion,
            sources=sources,
        )
        file = overlay(self.knowledge.with_tables(file, sources), flags)
        file = replace(file, documents=self.knowledge.folder(file.documents, self.folder))
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

        Processes that torchrun started make it together; the first of them saves and tells.

        Args:
            plan: from `plan_one`.
            on_event: told about every step, in the first process.
            overwrite: replace the model of this name.
            track: trackers that are told about every training step.
            check: whether to look at what training made the model forget.

        Raises:
            InputError: the name is taken and `overwrite` is False.
            NotFound: a tracker is unknown or not installed, or the general text is not there.
            ProcessLost: another of the processes ended.
        """
        set_threads()
        from tailorbird.network import processes

        env = os.environ
        with processes.joined(int(env.get("WORLD_SIZE") or 1), int(env.get("LOCAL_RANK") or 0)):
            if not processes.is_first():
                on_event, track = None, ()
            return self._customize(plan, on_event, track, check, overwrite=overwrite)

    def _customize(
        self,
        plan: Plan,
        on_event: OnEvent | None,
        track: Sequence[str],
        check: GeneralCheck,
        *,
        overwrite: bool,
    ) -> ModelInfo:
        from tailorbird.models.folders import load_model
        from tailorbird.network.processes import from_first

        folder = self.state / "models" / plan.name
        if from_first(folder.exists) and not overwrite:
            raise InputError(f"model {plan.name!r} exists already. Choose another name, or give --replace.")
        if check.text:
            check.read()  # before, not after an hour of training
        spec = plan.arms[0]
        make_model(self.state, plan, spec, folder, watch_of(self.state, plan, spec, on_event, track), check)

        def finish() -> ModelInfo:
            load_model(folder, plugins.rewrite_loaders())  # what was saved can be opened
            shutil.rmtree(plan.folder, ignore_errors=True)
            return next(info for info in self.models() if info.id == plan.name)

        return from_first(finish)

    def estimates(self, plan: Plan) -> dict[str, list[TrainingEstimate]]:
        """What the trainings of every arm will take, by arm; probed by some of their steps, none is trained.

        Raises:
            OutOfMemory: one needs more memory than is free.
        """
        set_threads()
        watches = [TrainingWatch(spec.name, estimate_only=True) for spec in plan.arms]
        for spec, watch in zip(plan.arms, watches, strict=True):
            if any(hasattr(step.build(), "on_estimate") for step in spec.steps):
                apply_watched(spec, plan, base_for(self.state, spec, plan), watch)
        return {watch.arm: watch.estimates for watch in watches}

    def open(self, reference: str, key_env: str | None = None) -> OpenModel:
        """A model by saved name, arm of the last comparison, `winner`, or any MODEL reference.

        Raises:
            NotFound: nothing of that name; the message lists what there is.
        """
        return open_reference(self.state, reference, key_env)

    def export(
        self,
        reference: str,
        to: str,
        out: Path,
        *,
        dtype: str | None = None,
        examples: Path | None = None,
        replace: bool = False,
    ) -> Exported:
        """Writes a model as gguf, safetensors or vllm, and puts it in place only if it answers there as here.

        What is replayed are `examples`, or the held-out ones that were kept with the model.

        Raises:
            InputError: the folder is in use, or there are no examples to replay.
            Unsupported: the model cannot be exported in that format.
            ReplayMismatch: the export answers otherwise; nothing is put in place.
        """
        from tailorbird.data.formats import read_examples
        from tailorbird.models.exports.export import export_model

        set_threads()
        opened = self.open(reference)
        replayed = tuple(read_examples(examples)) if examples else opened.replay
        task = opened.task or infer_task(replayed)
        name = reference if NAME.fullmatch(reference) else Path(reference).resolve().stem
        return export_model(
            opened.model, task, replayed, out, form=to, name=name, dtype=dtype, replace_old=replace
        )

    def models(self) -> list[ModelInfo]:
        """Everything that can be opened by name here, saved models first."""
        return list_models(self.state)

    @property
    def comparisons(self) -> Comparisons:
        """What is compared here, and was."""
        return Comparisons(self.state, self.folder, self.knowledge)

    @property
    def knowledge(self) -> KnowledgeBases:
        """What is known here: to add to, sync and search."""
        return KnowledgeBases(self.state, self.folder / CONFIG)

    @property
    def knowledge_questions(self) -> KnowledgeQuestions:
        """What is asked of that knowledge: to find its best settings, and to write questions where none are."""
        return KnowledgeQuestions(self.state)

    @property
    def metaprompts(self) -> Metaprompts:
        """What the models here are told and shown: to read, compare and edit."""
        return Metaprompts(self.state)

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


__all__ = [
    "INITIAL_CONFIG",
    "Columns",
    "Comparisons",
    "Flags",
    "Forecast",
    "Gates",
    "GeneralCheck",
    "History",
    "JudgeChoice",
    "KeptMetaprompt",
    "KnowledgeInfo",
    "MaskPreview",
    "MaskedToken",
    "ModelInfo",
    "OnEvent",
    "OpenModel",
    "OriginReport",
    "Outcome",
    "Plan",
    "RunInfo",
    "TailorbirdError",
    "TrainingEstimated",
    "TrainingProgress",
    "Workbench",
    "judge_gates",
    "junit_xml",
]
