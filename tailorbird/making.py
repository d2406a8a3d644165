"""Making an arm's model: built, saved, and read back, so that what is measured is what is served."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tailorbird import plugins
from tailorbird.catalogue import model_folder
from tailorbird.data.storage import atomic_folder, write_atomic
from tailorbird.errors import TailorbirdError
from tailorbird.learnt import keep_learnt
from tailorbird.opening import open_reference, set_threads
from tailorbird.planning import Plan, asked_live, default_metric_name, described
from tailorbird.recipe_file import TRAINS, ArmSpec, Step
from tailorbird.records import content_hash
from tailorbird.references import STARTER, is_remote
from tailorbird.trainings import (
    UNCHECKED,
    GeneralCheck,
    TrainingPaused,
    TrainingWatch,
    apply_watched,
    keep_trainings,
)

if TYPE_CHECKING:
    from tailorbird.evaluation.arms import Arm, Begun
    from tailorbird.models.model import Model

T = TypeVar("T")
MANIFEST = "model.json"
SPENT = "spent.json"

REPLAYED = 32
"""Held-out examples kept with a model, and asked again of every export of it."""


def arm_of(state: Path, plan: Plan, spec: ArmSpec, watch: TrainingWatch) -> Arm:
    """An arm of a comparison: how its model is made, what it is made of, and what an endpoint takes for it."""
    from tailorbird.evaluation.arms import Arm, Begun, Made, TokenPrice

    folder = plan.folder / "models" / spec.name

    def make() -> Made:
        if not spec.floor:
            set_threads()
        make_model(state, plan, spec, folder, watch, UNCHECKED)
        from tailorbird.models.folders import read_record

        train_s = read_record(folder)["lineage"].get("made_s", 0.0)
        # What changes between two questions, and what takes no time, is not kept.
        lasting = not spec.floor and not asked_live([spec])
        return Made(train_s, content_hash((folder / MANIFEST).read_text(), 32) if lasting else "")

    def build() -> Model:
        if not spec.floor:
            set_threads()
        from tailorbird.models.folders import load_model

        return load_model(folder, plugins.rewrite_loaders()).model

    pauses = plan.folder / "paused" / f"{spec.name}.json"

    def paused(share: float) -> Begun | None:
        kept = _read_pauses(pauses, _model_key(state, plan, spec))
        reached = [done for done in kept if done >= share]
        return Begun(min(reached), kept[min(reached)]) if reached else None

    def begin(share: float) -> Begun | None:
        if (before := paused(share)) is not None:
            return before
        set_threads()
        try:
            make_model(state, plan, spec, folder, replace(watch, pause_at=share), UNCHECKED)
        except TrainingPaused as at:
            _keep_pause(pauses, _model_key(state, plan, spec), at)
            return Begun(at.share, at.scores)
        return None

    price = None
    base = plan.base_of(spec)
    if base.price is not None and spec.on_base:
        price = TokenPrice(base.price["input"], base.price["output"], base.price.get("cached"))
    key = content_hash([base_identity(state, base.reference), described(spec, plan.seed)])
    remote = base.remote and spec.on_base
    return Arm(
        spec.name,
        build,
        key,
        spec.floor,
        price,
        make,
        base.reference if spec.on_base else "",
        remote,
        *((begin, paused) if _raced_by_steps(plan, spec) else ()),
    )


def _read_pauses(path: Path, key: str) -> dict[float, Mapping[str, float]]:
    """The scores at which the training of this model was paused, by the share of its steps; none of another model."""
    try:
        noted = json.loads(path.read_text())
        return {float(share): scores for share, scores in noted["pauses"]} if noted["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _keep_pause(path: Path, key: str, at: TrainingPaused) -> None:
    pauses = {**_read_pauses(path, key), at.share: dict(at.scores)}
    write_atomic(path, json.dumps({"key": key, "pauses": list(pauses.items())}).encode())


def _raced_by_steps(plan: Plan, spec: ArmSpec) -> bool:
    """Whether what training scores on dev is what the arm would score: it is trained last, by the deciding metric."""
    trained = [step.technique for step in spec.steps if step.technique in TRAINS]
    last = bool(spec.steps) and spec.steps[-1].technique == "fine_tune"
    alike = plan.metric == default_metric_name(plan.task)
    return trained == ["fine_tune"] and last and alike and not plan.base_of(spec).remote


def _from_first(find: Callable[[], T]) -> T:
    """What the first of a group's processes finds; a process that hasn't loaded torch is in no group."""
    if "torch" not in sys.modules:
        return find()
    from tailorbird.network.processes import from_first

    return from_first(find)


def make_model(  # noqa: PLR0917 - where, what, and who is told
    state: Path, plan: Plan, spec: ArmSpec, folder: Path, watch: TrainingWatch, check: GeneralCheck
) -> None:
    """Makes the arm's model and saves it, unless it is there. Many processes make one; the first saves it.

    One that was made of the same by another comparison of the project is taken over, and one whose first steps are
    another's begins where that one ends.
    """
    from tailorbird.models.folders import save_model

    key = _model_key(state, plan, spec)
    if _from_first(lambda: _kept_key(folder) == key):
        return
    if _from_first(lambda: not check.wanted and _taken_over(state, plan, key, folder)):
        return
    began = time.perf_counter()
    checkpoint = plan.folder / "checkpoints" / spec.name
    before_s = _spent_before(checkpoint, key)
    base, rest = _beginning(state, plan, spec)
    try:
        model = apply_watched(replace(spec, steps=rest), plan, base, watch, checkpoint)
    except BaseException:
        _keep_spent(checkpoint, key, before_s + time.perf_counter() - began)
        raise

    def add_files(building: Path) -> None:
        keep_trainings(checkpoint, building, name=spec.name, base=base, model=model, check=check)
        base_folder = model_folder(state, plan.base_of(spec).reference) if spec.on_base else None
        keep_learnt(building, plan.data if spec.steps else None, base_folder)

    def save() -> None:
        lineage = {
            "key": key,
            "base": plan.base_of(spec).reference,
            "recipe": spec.name,
            "steps": described(spec, plan.seed),
            "project": plan.name,
            "created": int(time.time()),
            "made_s": before_s + time.perf_counter() - began,
        }
        save_model(
            model,
            folder,
            task=plan.task,
            lineage=lineage,
            replay=(plan.data.dev or plan.data.train)[:REPLAYED],
            replace_old=True,
            add_files=add_files,
        )
        shutil.rmtree(checkpoint, ignore_errors=True)

    _from_first(save)


def _spent_before(checkpoint: Path, key: str) -> float:
    """Seconds in which the same model was begun by calls that were stopped."""
    try:
        noted = json.loads((checkpoint / SPENT).read_text())
        return float(noted["seconds"]) if noted["key"] == key else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _keep_spent(checkpoint: Path, key: str, seconds: float) -> None:
    if checkpoint.is_dir():
        with suppress(OSError):  # what ended it is what should be told
            write_atomic(checkpoint / SPENT, json.dumps({"key": key, "seconds": seconds}).encode())


def _model_key(state: Path, plan: Plan, spec: ArmSpec) -> str:
    """What the model depends on: its base, its steps, and the data that techniques may read."""
    from tailorbird.evaluation.run_folder import data_fingerprint

    read = {part: found for part, found in data_fingerprint(plan.data).items() if part != "test"}
    return content_hash(
        [base_identity(state, plan.base_of(spec).reference), described(spec, plan.seed), read]
    )


def _kept_key(folder: Path) -> str | None:
    """What the model in this folder was made of; None where there is none."""
    if not (folder / MANIFEST).is_file():
        return None
    from tailorbird.models.folders import read_record

    return read_record(folder)["lineage"].get("key")


def _made_elsewhere(state: Path, plan: Plan, key: str) -> Path | None:
    """A whole model that was made of the same in this project, this comparison's own first."""
    others = sorted((state / "runs").glob("[!.]*/models/[!.]*/" + MANIFEST))
    own = sorted((plan.folder / "models").glob("[!.]*/" + MANIFEST))
    return next((path.parent for path in [*own, *others] if _is_whole(path.parent, key)), None)


def _is_whole(folder: Path, key: str) -> bool:
    """Whether this model is the one looked for, and as it was written; what is wrong with others is their affair."""
    from tailorbird.models.folders import verify

    try:
        if _kept_key(folder) != key:
            return False
        verify(folder)
    except (TailorbirdError, OSError):
        return False
    return True


def _taken_over(state: Path, plan: Plan, key: str, folder: Path) -> bool:
    """Puts an equal model of another comparison here; its files are shared where the disk can."""
    found = _made_elsewhere(state, plan, key)
    if found is None:
        return False
    try:
        with atomic_folder(folder, replace=True) as building:
            shutil.copytree(found, building, copy_function=_linked, dirs_exist_ok=True)
    except OSError:  # removed meanwhile, perhaps by `tailor runs remove`: made anew
        return False
    return True


def _linked(source: str, target: str) -> str:
    """Weights, which nobody writes to, are shared; everything else is copied."""
    try:
        if source.endswith(".safetensors"):
            os.link(source, target)
            return target
    except OSError:
        pass
    shutil.copy2(source, target)
    return target


def _beginning(state: Path, plan: Plan, spec: ArmSpec) -> tuple[Model, tuple[Step, ...]]:
    """What the recipe starts from, and the steps that are left: what another arm begins with too is made once."""
    from tailorbird.models.folders import load_model

    for done in range(len(spec.steps) - 1, 0, -1):
        first = replace(spec, steps=spec.steps[:done])
        if found := _made_elsewhere(state, plan, _model_key(state, plan, first)):
            return load_model(found, plugins.rewrite_loaders()).model, spec.steps[done:]
    return base_for(state, spec, plan), spec.steps


def base_for(state: Path, spec: ArmSpec, plan: Plan) -> Model:
    """What the recipe starts from; where its first step brings weights of its own, none are loaded."""
    if not spec.on_base:
        from tailorbird.models.blank import Blank

        return Blank()
    base = plan.base_of(spec)
    return open_reference(state, base.reference, base.key_env).model


def base_identity(state: Path, base: str) -> str:
    """What tells bases apart: the reference, of a saved model what is in it, of files here when they were written.

    A folder whose weights were replaced is another base: nothing that was made of the old ones is taken over.
    """
    folder = model_folder(state, base)
    if folder is not None:
        return content_hash([base, (folder / MANIFEST).read_text()])
    place = Path(base).expanduser()
    if base == STARTER or is_remote(base) or not place.exists():
        return base
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    facts = [(path.name, path.stat()) for path in files if path.is_file()]
    return content_hash([base, [[name, stat.st_size, stat.st_mtime_ns] for name, stat in facts]])
