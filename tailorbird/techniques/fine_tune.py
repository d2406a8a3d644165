"""Fine-tuning: train the weights on examples, seen through the model's wrappers.

What is learnt, by `objective`:

    supervised   completions: loss is on the completion and its stop token alone
    dpo          preferences: completions above rejected ones        Rafailov et al. 2023, arXiv 2305.18290

What is trained, by `method`:

    lora     W stays, W + (α/r)·B·A answers, at every linear layer     Hu et al. 2021, arXiv 2106.09685
    rslora   LoRA, scaled by α/√r, so that high ranks learn as fast    Kalajdzievski 2023, arXiv 2312.03732
    dora     LoRA for the direction, lengths of W's rows beside it     Liu et al. 2024, arXiv 2402.09353
    pissa    LoRA that starts at W's greatest singular directions      Meng et al. 2024, arXiv 2404.02948
    eva      LoRA whose A starts at the layers' inputs' directions     Paischer et al. 2024, arXiv 2410.07170
    qlora    LoRA on a copy of the base whose layers are in four bits  Dettmers et al. 2023, arXiv 2305.14314
    full     every weight, of a copy of the model
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from tailorbird.data.storage import write_atomic
from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.adapter_starts import second_half_kept, start_at_inputs, start_at_weights
from tailorbird.models.four_bits import require_four_bits
from tailorbird.models.local import LocalWeights, new_adapter_name
from tailorbird.models.model import Model, retrained
from tailorbird.models.sharded import sharded_training
from tailorbird.network.precision import Precision, check_precision
from tailorbird.network.processes import from_first
from tailorbird.network.sharding import require_others
from tailorbird.techniques.prompt_noise import DEFAULT_NOISE, FEWEST_PASSES, Lessons, num_views, with_views
from tailorbird.techniques.rate_race import (
    RACE,
    RATE,
    RATES,
    SHORT,
    SHORT_SHARE,
    WIDTH,
    Trials,
    at_width,
    race,
    rounds,
)
from tailorbird.techniques.through_wrappers import (
    OnDev,
    OnEstimate,
    OnStep,
    dev_score,
    to_preferences,
    to_sequences,
)

if TYPE_CHECKING:
    from tailorbird.models.engine import Engine
    from tailorbird.models.training_network import TrainingNetwork
    from tailorbird.network.sequences import Unit
    from tailorbird.network.settings import TrainSettings

log = logging.getLogger(__name__)

Method = Literal["lora", "rslora", "dora", "pissa", "eva", "qlora", "full"]
"""What is trained; see the top of this file."""

Objective = Literal["supervised", "dpo"]
"""What is learnt; see the top of this file."""

SEEN_EXAMPLES = 3000
"""Examples shown in all, by default: small sets are passed over more often than large ones."""
DPO_SHARE = 0.1
"""The part of the supervised learning rates at which preferences are learnt."""
DPO_EPOCHS = 3
"""Passes over preferences, at most, by default."""


@dataclass(frozen=True)
class FineTune:
    """Trains the weights beneath the wrappers; the given model stays as it is.

    A model that has LoRA layers goes on from a copy of them, of whatever method they are; "full" and "qlora"
    merge them into the weights first.

    Args:
        objective: what is learnt: "supervised", the completions; or "dpo", to prefer them to the rejected
            answers, which every training example must then have.
        method: what is trained: "lora", "rslora", "dora", "pissa", "eva", "qlora" or "full". All but the last
            two leave the base's weights alone and share them. "dora" is slower, and is the one whose layers
            can't be merged for export; "pissa" stores layers of twice the rank; "qlora" takes the least
            memory, of which the base's layers need a quarter of what they do in 16 bits, and is slow
            without a CUDA device.
        rank: of the low-rank update, 1–512.
        alpha: scale of the update; None is twice the rank, for "rslora" 8, which at rank 16 is the same.
        learning_rate: peak rate of AdamW. None is 1e-3, in fewer than 100 steps of fresh layers 2e-3 (but for
            "pissa"), for "full" 1e-4, for "dpo" a tenth of 1e-3 or of that. Several rates, or "auto" for 3e-4, 1e-3
            and 3e-3 (or those tenths), race on dev first. What is not given is lower for models of more than 576
            dimensions, in proportion (`at_width`).
        prompt_noise: the part of a prompt's words, from 0 up to 1, that is left out in every pass but the first,
            other ones each time; None is 0.15 where labels are learnt in 3 passes or more, and else 0.
        epochs: passes over the training examples; None chooses by their number (`epochs_for`), for "dpo" 3 of
            them at most.
        beta: of "dpo", above 0: the larger, the nearer the model stays to what it was.
        batch_size: examples a step.
        max_examples: examples to train on, at most; None is all of them.
        patience: evaluations on dev without a better score before it stops.
        max_dev: dev examples that early stopping looks at, at most.
        precision: what matrix products are computed in: "float32", "bfloat16", or "auto", which measures
            what is faster here. The layers themselves stay in float32.
        max_batch_tokens: tokens computed at once, at most; fewer take less memory and give the same result.
        seed: of the order of examples and the fresh layers.
        shard: share the layers out between the processes that train together, so that each holds a part of
            their weights, gradients and moments; what comes of it differs by rounding.
        checkpoint: folder for checkpoints, so that a killed training goes on; None keeps none.
        on_step: told about every step.
        on_estimate: told what it will take before it starts; if it gives False, nothing is trained.
        on_dev: told the score of every dev example whenever dev is asked.

    Raises:
        RecipeError: a setting out of its range; or `shard` with "qlora", or where this process is alone.
        OutOfMemory: it would need more memory than there is.
        Unsupported: the model's weights can't be trained here (a remote endpoint, a floor); or "qlora" without
            bitsandbytes.
    """

    objective: Objective = "supervised"
    method: Method = "lora"
    rank: int = 16
    alpha: int | None = None
    learning_rate: float | str | tuple[float, ...] | None = None
    prompt_noise: float | None = None
    epochs: float | None = None
    beta: float = 0.1
    batch_size: int = 8
    max_examples: int | None = None
    patience: int = 3
    max_dev: int = 64
    precision: Precision = "auto"
    max_batch_tokens: int = 16_384
    seed: int = 0
    shard: bool = field(default=False, compare=False)
    checkpoint: Path | None = field(default=None, compare=False)
    on_step: OnStep | None = field(default=None, compare=False, repr=False)
    on_estimate: OnEstimate | None = field(default=None, compare=False, repr=False)
    on_dev: OnDev | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 512:
            raise RecipeError(f"fine_tune: rank is {self.rank}; expected 1 to 512. 8 to 64 are usual.")
        if self.objective not in get_args(Objective):
            raise RecipeError(
                f"fine_tune: objective is {self.objective!r}; expected one of {list(get_args(Objective))}."
            )
        if not 0 < self.beta < math.inf:
            raise RecipeError(f"fine_tune: beta is {self.beta}; expected above 0. 0.05 to 0.5 are usual.")
        if self.prompt_noise is not None and not 0 <= self.prompt_noise < 1:
            raise RecipeError(
                f"fine_tune: prompt_noise is {self.prompt_noise}; expected 0 to below 1. 0.1 to 0.3 are usual."
            )
        if self.prompt_noise and self.objective == "dpo":
            raise RecipeError(
                f"fine_tune: prompt_noise is {self.prompt_noise} with objective 'dpo', whose reference is of the "
                "prompts as they are. Leave prompt_noise out."
            )
        check_method(self.method)
        check_precision(self.precision)
        if self.shard and self.method == "qlora":
            raise RecipeError(
                "fine_tune: method 'qlora' with shard; layers in four bits can't be shared out between processes. "
                "Leave --shard out, or use method 'lora'."
            )
        if not self._rates() or not all(rate > 0 for rate in self._rates()):
            raise RecipeError(
                f"fine_tune: learning_rate is {self.learning_rate}; expected above 0, such as 1e-3; several such "
                'rates; or "auto".'
            )

    def _rates(self, width: int = WIDTH, *, short: bool = False) -> tuple[float, ...]:
        """The rates to choose from, for a model so wide and maybe few steps; empty where what was given is none."""
        share = (0.1 if self.method == "full" else 1.0) * (DPO_SHARE if self.objective == "dpo" else 1.0)
        match self.learning_rate:
            case None:
                return at_width([RATE * share * (SHORT_SHARE if short else 1.0)], width)
            case "auto":
                return at_width([rate * share for rate in RATES], width)
            case str():
                return ()
            case tuple() as several:
                return several
            case one:
                return (one,)

    def apply(self, model: Model, data: Data) -> Model:
        return retrained(model, data, lambda weights, bare: self._train(weights, bare, data))

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
        if len(self._rates()) > 1 and not data.dev:
            raise DataError(
                f"fine_tune: learning_rate is {self.learning_rate!r}, which is chosen on dev, and there are no dev "
                "examples. Give one rate, such as 1e-3."
            )
        if self.shard:
            require_others()
        with weights.engine.lock:
            lessons = self._lessons(weights, model, data)
            if self.method == "full":
                return self._train_copy(weights, lessons, model, data)
            if self.method == "qlora":
                from tailorbird.models.own_copy import in_four_bits

                weights = in_four_bits(weights)
            return self._train_layers(weights, lessons, model, data)

    def _lessons(self, weights: LocalWeights, model: Model, data: Data) -> Lessons:
        """The training examples as the weights see them, and again with noise where there is to be some."""
        examples = data.train[: self.max_examples]
        if self.objective == "dpo":
            return Lessons(to_preferences(weights, model, data, examples))
        plain = to_sequences(weights, model, data, examples)
        epochs, noise = self.settings(len(plain)).epochs, self.prompt_noise
        if noise is None:
            noise = DEFAULT_NOISE if data.task.kind == "classify" and epochs >= FEWEST_PASSES else 0.0
        views = num_views(epochs) if noise else 1
        return Lessons(with_views(weights, model, data, examples, plain, views, noise, self.seed), views)

    def _train_copy(self, weights: LocalWeights, lessons: Lessons, model: Model, data: Data) -> LocalWeights:
        from tailorbird.models.own_copy import own_copy

        base = weights.engine
        # What is shared out goes to its device in parts.
        trained = own_copy(weights, torch.device("cpu") if self.shard else None)
        self._learn(trained, base, lessons, model, data)
        # As the base is held, which is how they come back when they are saved and loaded.
        trained.engine.model.to(base.model.dtype)
        trained.engine.move_to(base.device)
        return trained

    def _train_layers(
        self, weights: LocalWeights, lessons: Lessons, model: Model, data: Data
    ) -> LocalWeights:
        engine, adapter = weights.engine, new_adapter_name()
        trained = replace(weights, adapter=adapter)
        if weights.adapter is None:
            self._add_fresh_layers(engine, adapter)
        else:
            engine.copy_adapter(weights.adapter, adapter)
        try:
            if weights.adapter is None:
                self._set_start(engine, adapter, lessons.plain)
            fresh = weights.adapter is None
            half = self.method == "pissa" and fresh
            self._learn(trained, engine, lessons, model, data, half=half, fresh=fresh)
        except BaseException:
            engine.remove_adapter(adapter)
            raise
        return trained

    def _learn(
        self,
        weights: LocalWeights,
        base: Engine,
        lessons: Lessons,
        model: Model,
        data: Data,
        *,
        half: bool = False,
        fresh: bool = True,
    ) -> None:
        """Trains these weights, made from those of `base`, in place.

        With `half` the first half of the ranks; `fresh` where they were not trained before.
        """
        from tailorbird.techniques.measured_training import Watch, dev_seconds, train_measured

        engine, dev, layers = weights.engine, data.dev[: self.max_dev], weights.adapter is not None
        start = f"{engine.fingerprint()} {_hash(trained_in(weights))} {self.method} alpha {self.alpha}"
        with self._running(weights, base) as (trained, network), ExitStack() as hooks:
            log.info("Training runs %s.", network.path)
            parameters = trained_in(trained)
            if half:
                hooks.enter_context(second_half_kept(parameters))
            identity = f"{start} {network.path_when_whole}"
            settings = self.settings(len(lessons.plain), lessons.views, network.width, fresh=fresh)
            rates = self._rates(network.width)
            num_learnt = sum(s.num_labels > 0 for s in lessons.plain)
            total_steps = settings.max_steps or math.ceil(
                settings.epochs * -(-num_learnt // settings.batch_size)
            )

            def score_on_dev() -> float:
                return dev_score(trained, model, data, dev, on_dev=self.on_dev)

            def search(settings: TrainSettings, sequences: Sequence[Unit]) -> TrainSettings:
                trials = Trials(
                    network, parameters, sequences, settings, score_on_dev, self.checkpoint, identity
                )
                record = self.checkpoint / RACE if self.checkpoint else None
                rate = race(rates, total_steps, trials.score, record)
                trials.put_back()
                return replace(settings, learning_rate=rate)

            planned = rounds(len(rates), total_steps)
            train_measured(
                Watch(
                    "fine_tune",
                    on_estimate=self.on_estimate,
                    dev_seconds=(lambda: dev_seconds(trained, model, data, dev)) if dev else None,
                    dial=("rank", self.rank, 1) if layers else ("base model", 1, 1),
                    search=search if planned else None,
                    searched=(sum(n * steps for n, steps in planned), sum(n for n, _ in planned)),
                ),
                network,
                parameters,
                lessons.units,
                settings,
                dev_score=score_on_dev if dev else None,
                checkpoint=self.checkpoint,
                identity=identity,
                on_step=self.on_step,
            )

    @contextmanager
    def _running(
        self, weights: LocalWeights, base: Engine
    ) -> Generator[tuple[LocalWeights, TrainingNetwork]]:
        """The weights and their network as they are while they are trained: a sharded twin, or themselves."""
        dtype = from_first(lambda: self._compute_type(base))
        if self.shard:
            with sharded_training(weights, dtype, base) as running:
                yield running
        else:
            with weights.engine.training(weights.adapter, dtype) as network:
                yield weights, network

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

    def _add_fresh_layers(self, engine: Engine, adapter: str) -> None:
        from peft import LoraConfig

        alpha = self.alpha or (8 if self.method == "rslora" else 2 * self.rank)
        halves = 2 if self.method == "pissa" else 1
        config = LoraConfig(
            r=halves * self.rank,
            lora_alpha=halves * alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            use_rslora=self.method == "rslora",
            use_dora=self.method == "dora",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            engine.add_adapter(adapter, config)

    def _set_start(self, engine: Engine, adapter: str, sequences: Sequence[Unit]) -> None:
        if self.method == "pissa":
            start_at_weights(engine, adapter, self.seed)
        elif self.method == "eva":
            read = [s.prompt + s.completion for unit in sequences for s in unit.sequences]
            start_at_inputs(engine, adapter, read, self.seed)

    def settings(
        self, num_examples: int, views: int = 1, width: int = WIDTH, *, fresh: bool = True
    ) -> TrainSettings:
        """The loop's settings for so many examples and views of each, a model so wide, and fresh layers or not."""
        from tailorbird.network.settings import TrainSettings

        epochs = self._default_epochs(num_examples) if self.epochs is None else self.epochs
        steps = epochs * math.ceil(num_examples / max(1, self.batch_size))
        # PiSSA's layers start elsewhere; preferences were not tried at more.
        from_nothing = self.objective == "supervised" and self.method not in {"full", "pissa"}
        return TrainSettings(
            learning_rate=self._rates(width, short=steps < SHORT and fresh and from_nothing)[0],
            epochs=epochs,
            batch_size=self.batch_size,
            max_batch_tokens=self.max_batch_tokens,
            patience=self.patience,
            seed=self.seed,
            checkpoint_every_s=20.0,
            beta=self.beta if self.objective == "dpo" else None,
            views=views,
        )

    def _default_epochs(self, num_examples: int) -> int:
        epochs = epochs_for(num_examples)
        return min(epochs, DPO_EPOCHS) if self.objective == "dpo" else epochs


def trained_in(weights: LocalWeights) -> dict[str, torch.nn.Parameter]:
    """What is trained in weights, by name: their layers if they have some, else all.

    The adapter's own name, which differs from run to run and must not keep one from being taken up, is left out.
    """
    named = weights.engine.model.named_parameters()
    if weights.adapter is None:
        return dict(named)
    place = f".{weights.adapter}."
    return {name.replace(place, "."): parameter for name, parameter in named if place in name}


def check_method(method: str) -> None:
    """Raises RecipeError for a method that there isn't, Unsupported for one that needs what isn't installed."""
    if method not in get_args(Method):
        raise RecipeError(f"fine_tune: method is {method!r}; expected one of {list(get_args(Method))}.")
    if method == "qlora":
        require_four_bits()


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
