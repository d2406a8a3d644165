"""The finished comparisons of a project: to list, show and remove, and to hold a new one against.

folder/.tailorbird/runs/NAME-KEY/          one run: comparison.json, every answer, run.json, examples.npz
                                 before/   what it held before it was run again with other settings
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tailorbird.data.storage import atomic_folder
from tailorbird.errors import InputError, IntegrityError, NotFound
from tailorbird.evaluation.changes import Made
from tailorbird.evaluation.comparison import Comparison
from tailorbird.evaluation.run_folder import arm_key, kept_keys, load_run
from tailorbird.evaluation.run_record import load_examples, load_record
from tailorbird.planning import NAME

LAST = "LAST"
BEFORE = "before"
RESULT = "comparison.json"
REPORT = "report.html"


@dataclass(frozen=True)
class RunInfo:
    """A run in short. What only a finished one has is None, or empty, where it is not finished.

    `date` is in seconds since 1970; `best` is the arm of the best score, which with its 95 % interval is in [0, 1];
    `arm` is what the verdict says to use. `is_last` where it is the one whose arms `winner` and their names open.
    """

    name: str
    date: float
    folder: Path
    base: str = ""
    num_test: int | None = None
    metric: str = ""
    verdict: str = ""
    arm: str | None = None
    best: str | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    report: Path | None = None
    is_last: bool = False


@dataclass(frozen=True)
class Earlier:
    """A run that another is held against: `key` names it, or `BEFORE` for what the same folder held.

    `date` is when it was finished, as people write it.
    """

    key: str
    name: str
    date: str
    comparison: Comparison
    made: Made


@dataclass(frozen=True)
class History:
    """The comparisons that a project keeps.

    Args:
        state: the project's state folder.
    """

    state: Path

    @property
    def folder(self) -> Path:
        """Where the runs are."""
        return self.state / "runs"

    @property
    def last(self) -> str | None:
        """The name of the run that was the last to finish; None where none was, or it was removed."""
        try:
            name = json.loads((self.state / "last_run").read_text())["run"]
        except (OSError, ValueError, KeyError):
            return None
        return name if (self.folder / name / RESULT).is_file() else None

    def runs(self) -> list[RunInfo]:
        """All runs, the newest first."""
        last = self.last
        folders = [path for path in self.folder.glob("[!.]*") if path.is_dir()]
        found = [replace(_info(path), is_last=path.name == last) for path in folders]
        return sorted(found, key=lambda info: (-info.date, info.name))

    def run(self, name: str) -> RunInfo:
        """One run, by its name or as `LAST`.

        Raises:
            NotFound: there is none of that name.
        """
        wanted = self.last if name == LAST else name
        for info in self.runs():
            if info.name == wanted:
                return info
        raise NotFound(f"run {name!r}: there is none of this name. There are: {self._known()}.")

    def comparison(self, name: str) -> Comparison:
        """What a run found, without its answers.

        Raises:
            NotFound: there is none of that name, or it was not finished.
        """
        info = self.run(name)
        if not info.verdict:
            raise NotFound(
                f"run {info.name!r}: it was not finished. Run the same `tailor compare` again to finish it."
            )
        return _result(info.folder / RESULT)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Deletes a run with its answers and its arms' models; which test sets it opened stays known.

        Raises:
            NotFound: there is none of that name.
            InputError: it is the last, whose models are opened by name, and `force` is False.
        """
        info = self.run(name)
        if info.is_last and not force:
            raise InputError(
                f"run {info.name!r}: it is the last, and `winner` and its arms' names open its models. Keep it, or "
                "give --force."
            )
        going = info.folder.with_name(f".{info.name}.removed")
        shutil.rmtree(going, ignore_errors=True)
        info.folder.rename(going)  # at once gone for whoever looks, however long deleting takes
        shutil.rmtree(going)

    def earlier(self, reference: str, folder: Path, keys: Mapping[str, str]) -> Earlier:
        """The run that a comparison is to be held against, read before anything of it can be replaced.

        The run may be the comparison's own, with other settings or documents: what it held is then set aside first.
        Where nothing is to be run anew it is what that run was held against itself, so that repeating a command
        tells the same.

        Args:
            reference: `LAST`, a run's name, or the path of a comparison.json or of its folder.
            folder: where the comparison is kept.
            keys: of the arms that are to be measured, by name: see `run_folder.arm_key`.

        Raises:
            NotFound: there is no such run, or it was not finished.
        """
        place = self._place(reference)
        if place.parent.resolve() != folder.resolve():
            return self._read(place)
        result = _result(place)
        of_result, measured = _keys_of(result), {arm.name for arm in result.arms if arm.ran}
        kept = kept_keys(folder)
        aside = folder / BEFORE
        if any(kept.get(name) != of_result.get(name) for name in measured):
            # A run that was cut short has replaced answers already; what they were was set aside when it began.
            return self._read(aside / RESULT, BEFORE) if (aside / RESULT).is_file() else _bare(result, folder)
        if of_result != keys:
            _set_aside(folder, aside)
            return self._read(aside / RESULT, BEFORE)
        return self._as_before(folder, place)

    def _as_before(self, folder: Path, place: Path) -> Earlier:
        """What the finished run in the folder was held against; itself where that is unknown or gone."""
        record = load_record(folder)
        key = record.against if record else ""
        other = (folder if key == BEFORE else self.folder) / key / RESULT if key else place
        return self._read(other, key) if other.is_file() else self._read(place)

    def _place(self, reference: str) -> Path:
        """The comparison.json that is meant."""
        if reference == LAST:
            if self.last is None:
                raise NotFound(
                    f"--against {LAST}: no comparison has been finished here yet. Run one without --against first, or "
                    "give the path of a comparison.json."
                )
            return self.folder / self.last / RESULT
        if NAME.fullmatch(reference) and (self.folder / reference / RESULT).is_file():
            return self.folder / reference / RESULT
        path = Path(reference)
        path = path / RESULT if path.is_dir() else path
        if not path.is_file():
            raise NotFound(
                f"--against {reference}: there is no such run, and no such file or folder with a {RESULT}. Runs here: "
                f"{self._known()}."
            )
        return path

    def _read(self, place: Path, key: str = "") -> Earlier:
        """A run from its comparison.json, with the answers beside it or in the project's run of that name."""
        result = _result(place)
        folder = place.parent
        if not (folder / "arms").is_dir():
            name = str(result.reproduce.get("run", ""))
            own = self.folder / name / RESULT
            if NAME.fullmatch(name) and own.is_file() and _keys_of(_result(own)) == _keys_of(result):
                folder = own.parent
        # Where answers are damaged, the scores in comparison.json are still there, and they are compared.
        with suppress(NotFound, IntegrityError):
            result = load_run(folder) if (folder / "arms").is_dir() else result
        return _earlier(result, folder, key or folder.name)

    def _known(self) -> str:
        return ", ".join(info.name for info in self.runs() if info.verdict) or "none"


def _earlier(result: Comparison, folder: Path, key: str) -> Earlier:
    record = load_record(folder)
    examples = load_examples(folder.parent if folder.name == BEFORE else folder)
    name = str(result.reproduce.get("run") or folder.name)
    date = record.finished if record and record.finished else (folder / RESULT).stat().st_mtime
    made = Made(result.reproduce, record, examples)
    return Earlier(key, name, time.strftime("%Y-%m-%d %H:%M", time.localtime(date)), result, made)


def _bare(result: Comparison, folder: Path) -> Earlier:
    """The scores alone: the answers that they are of are no longer there."""
    return _earlier(replace(result, evaluations={}), folder, folder.name)


def _set_aside(folder: Path, aside: Path) -> None:
    with atomic_folder(aside, replace=True) as temp:
        for name in (RESULT, "run.json"):
            if (folder / name).is_file():
                shutil.copy2(folder / name, temp / name)
        shutil.copytree(folder / "arms", temp / "arms", ignore=shutil.ignore_patterns(".*"))


def _keys_of(result: Comparison) -> dict[str, str]:
    """The keys of a comparison's arms, as they were when its result was written."""
    made: Mapping[str, Any] = result.reproduce
    if not {"arms", "data", "metrics"} <= made.keys():
        return {}
    return {name: arm_key(name, key, made["data"], made["metrics"]) for name, key in made["arms"].items()}


def _result(path: Path) -> Comparison:
    try:
        return Comparison.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not what `tailor compare` writes ({type(error).__name__}: {error}). Give a comparison.json."
        ) from error


def _info(folder: Path) -> RunInfo:
    record = load_record(folder)
    page = Path(record.report) if record and record.report else folder / REPORT
    info = RunInfo(
        name=folder.name,
        date=(record and (record.finished or record.started)) or folder.stat().st_mtime,
        folder=folder,
        base=record.base if record else "",
        report=next((path for path in (page, folder / REPORT) if path.is_file()), None),
    )
    try:
        result = _result(folder / RESULT)
    except (OSError, InputError):
        return info
    ran = [arm for arm in result.arms if arm.score is not None]
    best = max(ran, key=lambda arm: arm.score or 0.0) if ran else None
    return replace(
        info,
        date=record.finished if record and record.finished else (folder / RESULT).stat().st_mtime,
        base=info.base or str(result.reproduce.get("base", "")),
        num_test=result.num_test,
        metric=result.metric,
        verdict=result.verdict.kind,
        arm=result.verdict.arm,
        best=best.name if best else None,
        score=best.score if best else None,
        low=best.low if best else None,
        high=best.high if best else None,
    )
