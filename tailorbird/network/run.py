"""A training run under way: its steps, one after another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from tailorbird.errors import RecipeError, TrainingDiverged
from tailorbird.network import processes
from tailorbird.network.batches import Batch, plan_epoch, share_out, split
from tailorbird.network.loss import forks, num_shared, shared_prefix, shares
from tailorbird.network.network import Network, set_mode
from tailorbird.network.objectives import Completions, objective_of
from tailorbird.network.optimizer import make_optimizers, set_learning_rate
from tailorbird.network.precision import bfloat16_products
from tailorbird.network.randomness import own_randomness, seed_of
from tailorbird.network.replays import replays_for
from tailorbird.network.schedule import schedule_factor
from tailorbird.network.sequences import Unit
from tailorbird.network.settings import Progress, StepReport, TrainResult, TrainSettings
from tailorbird.network.sharding import Parts
from tailorbird.network.where_it_pays import compiling

T = TypeVar("T")


class Run:
    """A training run under way: what is trained, on what, and how far it has come."""

    def __init__(
        self,
        network: Network,
        parameters: dict[str, nn.Parameter],
        sequences: Sequence[Unit],
        settings: TrainSettings,
        dev_score: Callable[[], float] | None,
    ) -> None:
        if not parameters:
            raise RecipeError("There is nothing to train: no parameters were given.")
        if frozen := [name for name, parameter in parameters.items() if not parameter.requires_grad]:
            raise RecipeError(
                f"{len(frozen)} of the parameters to train are frozen, such as {frozen[0]!r}. "
                "Set requires_grad on them, or leave them out."
            )
        self.network = network
        self.parameters = parameters
        self.sequences = sequences
        self.settings = settings
        self.objective = objective_of(sequences, settings)
        self.told: dict[str, float] = {}
        self.dev_score = dev_score
        self.device = next(iter(parameters.values())).device
        self.parts = Parts(parameters, settings.optimizer)
        # A prefix of its own is one more pass through the layers, which the others would have to make too.
        alike = getattr(network, "packs", False) or not getattr(network, "shares_prefix", True)
        assert alike or not self.parts.sharded
        self.optimizers = make_optimizers(
            self.parts.own,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            optimizer=settings.optimizer,
        )
        self.replays = (
            replays_for(network, parameters, bf16=settings.bf16_on_cuda)
            if isinstance(self.objective, Completions) and not self.parts.sharded
            else None
        )
        if len(sequences) % settings.views:
            raise RecipeError(
                f"There are {len(sequences)} sequences that carry loss, which are not {settings.views} views of each "
                "example. Give every example as often, or leave views at 1."
            )
        self.num_examples = len(sequences) // settings.views
        self.lengths = [len(sequence) for sequence in sequences]
        self.steps_per_epoch = -(-self.num_examples // settings.batch_size)
        self.total_steps = settings.max_steps or math.ceil(settings.epochs * self.steps_per_epoch)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._epoch_plan: tuple[int, list[list[int]]] = (-1, [])

    def steps(self) -> Iterator[StepReport]:
        """Train from where the progress stands to the end, reporting each step."""
        if self.settings.evaluate_first and self.progress.step == 0 and self.progress.best_step is None:
            self.evaluate()
        set_mode(self.network, training=True)
        while self.progress.step < self.total_steps and not self.progress.stopped_early:
            started = time.perf_counter()
            with compiling(self.total_steps):
                report = self.take_step()
            score = self.evaluate() if self.evaluation_is_due() else None
            self.progress.seconds += time.perf_counter() - started
            yield replace(
                report,
                score=score,
                seconds=self.progress.seconds,
                shared_tokens=self.progress.shared_tokens,
                epoch=self.progress.step / self.steps_per_epoch,
            )

    def take_step(self) -> StepReport:
        """One optimizer step on the next sequences."""
        progress, settings = self.progress, self.settings
        factor = schedule_factor(
            progress.step,
            self.total_steps,
            warmup_fraction=settings.warmup_fraction,
            schedule=settings.schedule,
        )
        learning_rate = settings.learning_rate * factor
        set_learning_rate(self.optimizers, learning_rate)
        if processes.together():
            # Each draws numbers of its own, which a checkpoint, written by one of them, can't hold.
            torch.manual_seed(seed_of(settings.seed, progress.step, processes.rank()))
        loss = self.gradients_of(self.next_sequences())
        norm = self.parts.clip_gradients(settings.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(
                f"Training diverged at step {progress.step + 1} of {self.total_steps}: the loss is {loss}, "
                f"the gradient norm {norm}, at learning rate {learning_rate:.3g}. Use a learning rate of "
                f"{settings.learning_rate / 10:.1g} or less, or more warm-up."
            )
        for optimizer in self.optimizers:
            optimizer.step()
        progress.step += 1
        progress.losses.append(loss)
        return StepReport(
            progress.step,
            self.total_steps,
            loss,
            learning_rate,
            norm,
            progress.tokens,
            progress.seconds,
            reward_margin=self.told.get("reward_margin"),
            reward_accuracy=self.told.get("reward_accuracy"),
        )

    def next_sequences(self) -> list[Unit]:
        """The sequences of the coming step."""
        epoch, number = divmod(self.progress.step, self.steps_per_epoch)
        settings = self.settings
        first = epoch % settings.views * self.num_examples
        if self._epoch_plan[0] != epoch:
            lengths = self.lengths[first : first + self.num_examples]
            plan = plan_epoch(lengths, settings.batch_size, seed=settings.seed, epoch=epoch)
            self._epoch_plan = (epoch, plan)
        return [self.sequences[first + n] for n in self._epoch_plan[1][number]]

    def gradients_of(self, sequences: list[Unit]) -> float:
        """Set the gradients of the step's mean loss; that loss."""
        progress = self.progress
        before = progress.tokens, progress.shared_tokens
        own = self.own_gradients_of(sequences)
        self.parts.sum_gradients()
        found = (*own, progress.tokens - before[0], progress.shared_tokens - before[1])
        loss, *told, tokens, shared = processes.summed(found, self.device)
        progress.tokens, progress.shared_tokens = before[0] + int(tokens), before[1] + int(shared)
        self.told = dict(zip(self.objective.tells, told, strict=True))
        return loss

    def own_gradients_of(self, sequences: list[Unit]) -> list[float]:
        """Set this process's summand of the gradients of a step; its summands of the loss and what is told."""
        self.parts.forget_gradients()
        share = shares(self.network, wanted=self.settings.share_prefix)
        objective, forked = self.objective, forks(self.network, share=share)
        divisor = objective.divisor(sequences)
        part = self.own_part(sequences, share=share, forked=forked)
        batches = split(part, self.settings.max_batch_tokens, share=share, forked=forked) if part else []
        found = [0.0] * (1 + len(objective.tells))
        for batch, counts in self.parts.rounds(batches, sequences, self.device):
            replayed = self.replayed(batch, divisor, share=share)
            if replayed is not None:
                self.count(batch, share=share)
                found[0] += replayed
                continue
            sums = self.computed(batch, divisor, share=share, counts=counts)
            if not counts:
                continue
            found = [value + sum_ / divisor for value, sum_ in zip(found, sums, strict=True)]
            self.count(batch, share=share)
        return found

    def computed(self, batch: Batch, divisor: float, *, share: bool, counts: bool) -> list[float]:
        """The batch's sums of the loss and of what is told; its gradients are added, nothing where it doesn't count."""
        with processes.lost_if_group_fails():
            with bfloat16_products(self.device, wanted=self.settings.bf16_on_cuda):
                loss, told = self.objective.sums(self.network, batch, device=self.device, share=share)
            (loss / divisor if counts else 0.0 * loss).backward()
        return [float(loss.detach()), *told]

    def replayed(self, batch: Batch, divisor: float, *, share: bool) -> float | None:
        """The batch's summand of the loss, where recorded work added its gradients; else None."""
        if self.replays is None:
            return None
        prefix = shared_prefix(self.network, batch) if share else 0
        part_left = 1 - self.progress.step / self.total_steps
        return self.replays.add_gradients(batch, prefix, divisor, part_left)

    def count(self, batch: Batch, *, share: bool) -> None:
        """Count a batch's tokens."""
        self.progress.tokens += batch.num_tokens
        self.progress.shared_tokens += num_shared(self.network, batch) if share else 0

    def own_part(self, sequences: list[Unit], *, share: bool, forked: bool) -> list[Unit]:
        """Those of a step that this process computes."""
        if not processes.together():
            return sequences
        return share_out(sequences, processes.num_processes(), share=share, forked=forked)[processes.rank()]

    def evaluation_is_due(self) -> bool:
        """Whether `dev_score` is to be asked after the step just done."""
        if self.dev_score is None:
            return False
        every = max(1, round(self.steps_per_epoch / self.settings.evaluations_per_epoch))
        return self.progress.step % every == 0 or self.progress.step == self.total_steps

    def evaluate(self) -> float | None:
        """Ask for the score, remember the best parameters, and decide whether to go on."""
        dev_score = self.dev_score
        if dev_score is None:
            return None
        set_mode(self.network, training=False)
        # The score may draw random numbers; the training must not notice.
        with torch.no_grad(), own_randomness(self.device, self.settings.seed):
            score = processes.from_first(lambda: float(dev_score()), everywhere=self.parts.sharded)
        set_mode(self.network, training=True)
        progress = self.progress
        if not math.isfinite(score):
            raise RecipeError(f"dev_score gave {score} after step {progress.step}; expected a finite number.")
        if progress.best_score is None or score > progress.best_score:
            progress.best_step, progress.best_score = progress.step, score
            progress.evaluations_since_best = 0
            self.best = {name: part.detach().clone() for name, part in self.parts.own.items()}
        else:
            progress.evaluations_since_best += 1
            patience, ended = self.settings.patience, progress.step == self.total_steps
            out_of_patience = patience is not None and progress.evaluations_since_best >= patience
            progress.stopped_early = out_of_patience and not ended
        return score

    @torch.no_grad()
    def put_back_best(self) -> None:
        """Give the parameters the values that scored best, if any were scored."""
        for name, tensor in self.best.items():
            self.parts.own[name].copy_(tensor)

    def by_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, where all run the network together; else each makes its own."""
        return processes.from_first(make) if self.parts.sharded else make()

    def result(self) -> TrainResult:
        """What the run came to."""
        progress = self.progress
        return TrainResult(
            steps=progress.step,
            loss=progress.losses[-1],
            losses=tuple(progress.losses),
            best_step=progress.best_step,
            best_score=progress.best_score,
            stopped_early=progress.stopped_early,
            tokens=progress.tokens,
            shared_tokens=progress.shared_tokens,
            seconds=progress.seconds,
        )
