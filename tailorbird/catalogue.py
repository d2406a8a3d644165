"""What a project has: saved models and the arms of the last comparison, known without loading any."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tailorbird.planning import NAME
from tailorbird.references import STARTER

WINNER = "winner"
DAMAGED = "damaged"
TRAINING_REPORT = "training.html"


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    `score` is its test score where it was compared, `report` the page on its training where it was trained. The recipe
    of one whose `model.json` can't be read is `damaged`; opening it says what is wrong.
    """

    id: str
    origin: Literal["built in", "saved", "comparison"]
    base: str = ""
    recipe: str = ""
    created: int = 0
    size_bytes: int = 0
    folder: Path | None = None
    score: float | None = None
    report: Path | None = None


def list_models(state: Path) -> list[ModelInfo]:
    """Everything that can be opened by name in the project of this state folder, saved models first.

    A saved model hides an arm of the same name.
    """
    found = [_info(folder, folder.name, "saved") for folder in _model_folders(state / "models")]
    taken = {info.id for info in found}
    if (run := _last_run(state)) is not None:
        scores, winner = _scores(run)
        folders = {f.name: f for f in _model_folders(run / "models") if f.name in scores}
        if winner in folders:
            folders = {WINNER: folders[winner], **folders}
        for name, folder in folders.items():
            if name not in taken:
                found.append(replace(_info(folder, name, "comparison"), score=scores.get(folder.name)))
    return [*found, ModelInfo(STARTER, "built in", base="SmolLM2-135M-Instruct", created=package_time())]


def model_folder(state: Path, name: str) -> Path | None:
    """The folder of the model of this name, if there is one."""
    if not NAME.fullmatch(name):
        return None
    found = [info.folder for info in list_models(state) if info.id == name]
    return found[0] if found else None


def package_time() -> int:
    """When this package was installed: as good a date as any for what it has built in."""
    return int(Path(__file__).stat().st_mtime)


def _last_run(state: Path) -> Path | None:
    try:
        folder = state / "runs" / json.loads((state / "last_run").read_text())["run"]
    except (OSError, ValueError, KeyError):
        return None
    return folder if folder.is_dir() else None


def _model_folders(parent: Path) -> list[Path]:
    return [folder for folder in sorted(parent.glob("[!.]*")) if (folder / "model.json").is_file()]


def _info(folder: Path, name: str, origin: Literal["saved", "comparison"]) -> ModelInfo:
    """What model.json says; read without the models layer, which needs torch. One that is damaged is listed as that."""
    try:
        lineage = json.loads((folder / "model.json").read_text())["lineage"]
    except (ValueError, KeyError, TypeError):
        return ModelInfo(name, origin, recipe=DAMAGED, folder=folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    steps = "+".join(step["technique"] for step in lineage.get("steps", ())) or "base"
    page = folder / TRAINING_REPORT
    return ModelInfo(
        name,
        origin,
        lineage.get("base", ""),
        steps,
        lineage.get("created", 0),
        size,
        folder,
        report=page if page.is_file() else None,
    )


def _scores(run: Path) -> tuple[dict[str, float], str | None]:
    """Every arm's test score and the arm that the verdict says to use."""
    try:
        record = json.loads((run / "comparison.json").read_text())
    except (OSError, ValueError):
        return {}, None
    scores = {arm["name"]: arm["score"] for arm in record["arms"] if arm["score"] is not None}
    return scores, record["verdict"]["arm"]
