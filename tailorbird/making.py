"""Making an arm's model: built, saved, and read back, so that what is measured is what is served."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tailorbird import plugins
from tailorbird.catalogue import model_folder
from tailorbird.opening import open_reference, set_threads
from tailorbird.planning import Plan, described
from tailorbird.recipe_file import ArmSpec
from tailorbird.records import content_hash
from tailorbird.trainings import UNCHECKED, GeneralCheck, TrainingWatch, apply_watched, keep_trainings

if TYPE_CHECKING:
    from tailorbird.evaluation.arms import Arm
    from tailorbird.models.model import Model

T = TypeVar("T")

REPLAYED = 32
"""Held-out examples kept with a model, and asked again of every export of it."""


def arm_of(state: Path, plan: Plan, spec: ArmSpec, watch: TrainingWatch) -> Arm:
    """An arm of a comparison: how its model is made, what it is made of, and what an endpoint takes for it."""
    from tailorbird.evaluation.arms import Arm, TokenPrice

    def build() -> Model:
        if not spec.floor:
            set_threads()
        return made_model(state, plan, spec, plan.folder / "models" / spec.name, watch)

    price = None
    if plan.price is not None and not spec.floor:
        price = TokenPrice(plan.price["input"], plan.price["output"], plan.price.get("cached"))
    key = content_hash([base_identity(state, plan.base), described(spec, plan.seed)])
    return Arm(spec.name, build, key, spec.floor, price)


def made_model(  # noqa: PLR0917 - where, what, and who is told
    state: Path,
    plan: Plan,
    spec: ArmSpec,
    folder: Path,
    watch: TrainingWatch,
    check: GeneralCheck = UNCHECKED,
) -> Model:
    """The arm's model: made, saved, and read back, so that what is measured is what is served."""
    from tailorbird.models.folders import load_model

    make_model(state, plan, spec, folder, watch, check)
    return load_model(folder, plugins.rewrite_loaders()).model


def _from_first(find: Callable[[], T]) -> T:
    """What the first of a group's processes finds; a process that hasn't loaded torch is in no group."""
    if "torch" not in sys.modules:
        return find()
    from tailorbird.network.processes import from_first

    return from_first(find)


def make_model(  # noqa: PLR0917 - where, what, and who is told
    state: Path, plan: Plan, spec: ArmSpec, folder: Path, watch: TrainingWatch, check: GeneralCheck
) -> None:
    """Makes the arm's model and saves it, unless it is there. Many processes make one; the first saves it."""
    from tailorbird.evaluation.run_folder import data_fingerprint
    from tailorbird.models.folders import read_record, save_model

    key = content_hash(
        [base_identity(state, plan.base), described(spec, plan.seed), data_fingerprint(plan.data)]
    )
    if not _from_first(lambda: folder.is_dir() and read_record(folder)["lineage"].get("key") == key):
        lineage = {
            "key": key,
            "base": plan.base,
            "recipe": spec.name,
            "steps": described(spec, plan.seed),
            "project": plan.name,
            "created": int(time.time()),
        }
        checkpoint = plan.folder / "checkpoints" / spec.name
        base = base_for(state, spec, plan)
        model = apply_watched(spec, plan, base, watch, checkpoint)

        def save() -> None:
            save_model(
                model,
                folder,
                task=plan.task,
                lineage=lineage,
                replay=(plan.data.dev or plan.data.train)[:REPLAYED],
                replace_old=True,
                add_files=lambda building: keep_trainings(
                    checkpoint, building, name=spec.name, base=base, model=model, check=check
                ),
            )
            shutil.rmtree(checkpoint, ignore_errors=True)

        _from_first(save)


def base_for(state: Path, spec: ArmSpec, plan: Plan) -> Model:
    """What the recipe starts from; where its first step brings weights of its own, none are loaded."""
    if spec.steps and spec.steps[0].technique in (*plugins.FLOORS, "from_scratch"):
        from tailorbird.models.blank import Blank

        return Blank()
    return open_reference(state, plan.base, plan.key_env).model


def base_identity(state: Path, base: str) -> str:
    """What tells bases apart: the reference, and for a saved model what is in it."""
    folder = model_folder(state, base)
    return base if folder is None else content_hash([base, (folder / "model.json").read_text()])
