"""Fine-tuning: train the weights on prompt/completion pairs, seen through the model's wrappers.

LoRA (Hu et al. 2021, arXiv 2106.09685) on all linear layers: W stays, W + (α/r)·B·A answers. Loss is on
the completion and its stop token alone.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tailorbird.data.storage import write_atomic
from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.local import LocalWeights, new_adapter_name
from tailorbird.models.model import Model, on_weights
from tailorbird.network.precision import Precision, check_precision
from tailorbird.network.processes import from_first
from tailorbird.techniques.through_wrappers import OnEstimate, OnStep, dev_score, to_sequences

if TYPE_CHECKING:
    from tailorbird.models.engine import Engine
    from tailorbird.network.settings import TrainSettings

log = logging.getLogger(__name__)

SEEN_EXAMPLES = 3000
"""Examples shown in all, by default: small sets are passed over more often than large ones."""


@dataclass(frozen=True)
class FineTune:
    """Trains LoRA layers beneath the wrappers; a model that has such layers goes on from a copy of them.

    Args:
        rank: of the low-rank update, 1–512.
        alpha: scale of the update; None is twice the rank.
        learning_rate: peak rate of AdamW; above 1e-3 short runs on small models often fail to learn.
        epochs: passes over the training examples; None chooses by their number (`epochs_for`).
        batch_size: examples a step.
        max_examples: examples to train on, at most; None is all of them.
        patience: evaluations on dev without a better score before it stops.
        max_dev: dev examples that early stopping looks at, at most.
        precision: what matrix products are computed in: "float32", "bfloat16", or "auto", which measures
            what is faster here. The layers themselves stay in float32.
        max_batch_tokens: tokens computed at once, at most; fewer take less memory and give the same result.
        seed: of the order of examples and the fresh layers.
        checkpoint: folder for checkpoints, so that a killed training goes on; None keeps none.
        on_step: told about every step.
        on_estimate: told what it will take before it starts; if it gives False, nothing is trained.

    Raises:
        RecipeError: a setting out of its range.
        OutOfMemory: it would need more memory than there is.
        Unsupported: the model's weights can't be trained here (a remote endpoint, a floor).
    """

    rank: int = 16
    alpha: int | None = None
    learning_rate: float = 1e-3
    epochs: float | None = None
    batch_size: int = 8
    max_examples: int | None = None
    patience: int = 3
    max_dev: int = 64
    precision: Precision = "auto"
    max_batch_tokens: int = 16_384
    seed: int = 0
    checkpoint: Path | None = field(default=None, compare=False)
    on_step: OnStep | None = field(default=None, compare=False, repr=False)
    on_estimate: OnEstimate | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 512:
            raise RecipeError(f"fine_tune: rank is {self.rank}; expected 1 to 512. 8 to 64 are usual.")
        check_precision(self.precision)
        if self.learning_rate <= 0:
            raise RecipeError(
                f"fine_tune: learning_rate is {self.learning_rate}; expected above 0, such as 1e-3."
            )

    def apply(self, model: Model, data: Data) -> Model:
        return on_weights(model, lambda weights: self._train(weights, model, data))

    def _train(self, weights: Model, model: Model, data: Data) -> Model:
        if not isinstance(weights, LocalWeights):
            raise Unsupported(
                f"fine_tune: {weights.name!r} ({type(weights).__name__}) cannot be trained here; only "
                "local weights can. Use a local base model, or wrap this one with few_shot or knowledge."
            )
        if not data.train:
            raise DataError(
                "fine_tune: there are no training examples. Give prompt/completion lines with --examples."
            )
        from tailorbird.techniques.measured_training import Watch, dev_seconds, train_measured

        engine, adapter = weights.engine, new_adapter_name()
        with engine.lock:
            layers = self._fresh_layers(weights, adapter)
            trained = replace(weights, adapter=adapter)
            try:
                sequences = to_sequences(trained, model, data, data.train[: self.max_examples])
                dev = data.dev[: self.max_dev]
                # The adapter's name differs from run to run and must not keep one from being taken up.
                parameters = {name.replace(f".{adapter}.", "."): p for name, p in layers.items()}
                dtype = from_first(lambda: self._compute_type(engine))
                with engine.training(adapter, dtype) as network:
                    log.info("Training runs %s.", network.path)
                    train_measured(
                        Watch(
                            "fine_tune",
                            on_estimate=self.on_estimate,
                            dev_seconds=(lambda: dev_seconds(trained, model, data, dev)) if dev else None,
                            dial=("rank", self.rank, 1),
                        ),
                        network,
                        parameters,
                        sequences,
                        self.settings(len(sequences)),
                        dev_score=(lambda: dev_score(trained, model, data, dev)) if dev else None,
                        checkpoint=self.checkpoint,
                        identity=f"{engine.fingerprint()} {_hash(parameters)} alpha {self.alpha} {network.path}",
                        on_step=self.on_step,
                    )
            except BaseException:
                engine.remove_adapter(adapter)
                raise
        return trained

    def _compute_type(self, engine: Engine) -> torch.dtype:
        """What products are computed in; a run that is taken up keeps what it began with."""
        from tailorbird.network.precision import compute_type

        noted = self.checkpoint / "precision" if self.checkpoint else None
        if noted and noted.is_file():
            return getattr(torch, noted.read_text())
        dtype = compute_type(self.precision, engine.network.width, device=engine.device.type)
        if noted:
            write_atomic(noted, str(dtype).removeprefix("torch.").encode())
        return dtype

    def _fresh_layers(self, weights: LocalWeights, adapter: str) -> dict[str, torch.nn.Parameter]:
        if weights.adapter is not None:
            return weights.engine.copy_adapter(weights.adapter, adapter)
        from peft import LoraConfig

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha or 2 * self.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return weights.engine.add_adapter(adapter, config)

    def settings(self, num_examples: int) -> TrainSettings:
        """The loop's settings for so many examples."""
        from tailorbird.network.settings import TrainSettings

        return TrainSettings(
            learning_rate=self.learning_rate,
            epochs=epochs_for(num_examples) if self.epochs is None else self.epochs,
            batch_size=self.batch_size,
            max_batch_tokens=self.max_batch_tokens,
            patience=self.patience,
            seed=self.seed,
            checkpoint_every_s=20.0,
        )


def _hash(parameters: dict[str, torch.nn.Parameter]) -> str:
    """A hash of where training starts from."""
    digest = hashlib.blake2b(digest_size=16)
    for parameter in parameters.values():
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def epochs_for(num_examples: int) -> int:
    """Passes over so many examples that about `SEEN_EXAMPLES` are seen in all: at least 2, at most 10.

    >>> epochs_for(100), epochs_for(770), epochs_for(9000)
    (10, 4, 2)
    """
    return max(2, min(10, round(SEEN_EXAMPLES / max(1, num_examples))))
