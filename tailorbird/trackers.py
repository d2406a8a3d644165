"""Where a training's curves may be sent besides `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow.

Each is an optional package. A tracker is begun for every training of a recipe, told of every step, and
ended whether or not the training was.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tailorbird.errors import NotFound

if TYPE_CHECKING:
    from tailorbird.network.settings import StepReport


class Tracker(Protocol):
    """Told how a training goes."""

    def begin(self, stage: str, facts: Mapping[str, Any]) -> None:
        """A training of this name starts; `facts` are plain numbers and words about it."""
        ...

    def step(self, report: StepReport) -> None:
        """A step was done."""
        ...

    def end(self) -> None:
        """Nothing more will be told."""
        ...


def tensorboard(folder: Path, name: str) -> Tracker:
    """Event files in `folder`, one folder a training: `tensorboard --logdir FOLDER` shows them.

    Raises:
        NotFound: the package is not installed.
    """
    return TensorBoard(_package("tensorboardX", "tensorboard"), folder / name)


def wandb(folder: Path, name: str) -> Tracker:
    """Runs of Weights & Biases; WANDB_MODE=offline keeps them in `folder`, for `wandb sync`.

    Raises:
        NotFound: the package is not installed.
    """
    return WeightsAndBiases(_package("wandb", "wandb"), folder, name)


def mlflow(folder: Path, name: str) -> Tracker:
    """Runs of MLflow; without MLFLOW_TRACKING_URI in a database in `folder`.

    Raises:
        NotFound: the package is not installed.
    """
    return MLflow(_package("mlflow", "mlflow"), folder, name)


def values_of(report: StepReport) -> dict[str, float]:
    """What is drawn of a step."""
    values = {
        "loss": report.loss,
        "learning_rate": report.learning_rate,
        "gradient_norm": report.gradient_norm,
        "tokens": float(report.tokens),
        "shared_tokens": float(report.shared_tokens),
        "seconds": report.seconds,
        "epoch": report.epoch,
    }
    rest = {
        "dev_score": report.score,
        "reward_margin": report.reward_margin,
        "reward_accuracy": report.reward_accuracy,
    }
    return values | {name: value for name, value in rest.items() if value is not None}


class TensorBoard:
    """Writes event files."""

    def __init__(self, package: Any, folder: Path) -> None:
        self._package, self._folder = package, folder
        self._writer: Any = None
        self._stage = ""
        self._facts: dict[str, Any] = {}

    def begin(self, stage: str, facts: Mapping[str, Any]) -> None:
        self.end()
        self._stage, self._facts = stage, dict(facts)

    def step(self, report: StepReport) -> None:
        if self._writer is None:
            # A training that goes on repeats some steps: those told before are taken back.
            place = self._folder / self._stage.replace(", ", "-")
            self._writer = self._package.SummaryWriter(str(place), purge_step=report.step)
            listed = "\n".join(f"| {key} | {value} |" for key, value in self._facts.items())
            self._writer.add_text("settings", f"| | |\n|-|-|\n{listed}", report.step)
        for key, value in values_of(report).items():
            self._writer.add_scalar(key, value, report.step)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """Sends to, or keeps for, Weights & Biases."""

    def __init__(self, package: Any, folder: Path, name: str) -> None:
        self._package, self._folder, self._name = package, folder, name
        self._run: Any = None

    def begin(self, stage: str, facts: Mapping[str, Any]) -> None:
        self.end()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = self._package.init(
            project="tailorbird", name=f"{self._name}, {stage}", dir=str(self._folder), config=dict(facts)
        )

    def step(self, report: StepReport) -> None:
        self._run.log(values_of(report), step=report.step)

    def end(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


class MLflow:
    """Sends to an MLflow server, or into a database of its own."""

    def __init__(self, package: Any, folder: Path, name: str) -> None:
        import os

        self._package, self._name = package, name
        self._run: Any = None
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            folder.mkdir(parents=True, exist_ok=True)
            package.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        package.set_experiment("tailorbird")

    def begin(self, stage: str, facts: Mapping[str, Any]) -> None:
        self.end()
        self._run = self._package.start_run(run_name=f"{self._name}, {stage}")
        self._package.log_params(dict(facts))

    def step(self, report: StepReport) -> None:
        self._package.log_metrics(values_of(report), step=report.step)

    def end(self) -> None:
        if self._run is not None:
            self._package.end_run()
            self._run = None


def _package(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise NotFound(
            f"tracker {extra!r}: the package {module} is not installed. "
            f"Install it with: pip install 'tailorbird[{extra}]'."
        ) from None
