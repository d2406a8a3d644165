"""The one training loop: fine-tuning and training from scratch both call `train`.

    for each step:   gradient of  Σ nll / Σ labels  →  clip  →  optimizer step at the scheduled rate
    now and then:    dev_score?  keep the best parameters, stop if they no longer improve
                     checkpoint: all that the rest of the run depends on

A run that was killed and is called again with the same arguments ends in the same parameters, bit by bit
on a CPU, as one that was not. Where several processes call it together (see `processes`), each computes a
part of every step, and what comes of it is what one process gives, but for the order of sums. Their number,
and whether layers are shared out between them (`sharding`), is no part of the run: it may be taken up by more
of them, or fewer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import signal
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tailorbird.errors import DataError, RecipeError, TrainingDiverged
from tailorbird.network import processes
from tailorbird.network.batches import plan_epoch, share_out, split
from tailorbird.network.checkpoints import latest_checkpoint, save_checkpoint
from tailorbird.network.interruption import postponed_signals
from tailorbird.network.loss import completion_loss, shared_prefix
from tailorbird.network.metrics_file import METRICS_FILE, MetricsFile
from tailorbird.network.network import Network, set_mode
from tailorbird.network.optimizer import make_optimizers, moved_by, set_learning_rate
from tailorbird.network.randomness import own_randomness, random_state, seed_of, set_random_state
from tailorbird.network.schedule import schedule_factor
from tailorbird.network.sequences import TokenSequence
from tailorbird.network.settings import StepReport, TrainResult, TrainSettings
from tailorbird.network.sharding import Parts

T = TypeVar("T")

NOT_PART_OF_IDENTITY = ("checkpoint_every_s", "checkpoint_every_steps")


def train(
    network: Network,
    parameters: Mapping[str, nn.Parameter],
    sequences: Sequence[TokenSequence],
    settings: TrainSettings,
    *,
    dev_score: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainResult:
    """Train `parameters` of `network` in place on the completions of `sequences`.

    Args:
        network: Anything that computes hidden states; put into training mode for steps and into
            evaluation mode for `dev_score` and afterwards, if it has a method `train`.
        parameters: What is trained, by unique names; all on one device, where the work is done.
        sequences: What is learnt; sequences without a label are passed over.
        settings: How the run goes.
        dev_score: The task's metric on held-out examples, higher is better. With it, the parameters
            with the best score are put back at the end; without it, the last ones stay.
        checkpoint: A folder for checkpoints and `metrics.jsonl`. A run that is already in it is taken up.
            Ctrl-C and SIGTERM then wait for the step under way to be kept. Delete it when done.
        identity: Names what else the run depends on, such as the hash of frozen weights.
        on_step: Told about every step, in the first process. If it raises, training ends there.

    Raises:
        DataError: No sequence has a token to learn.
        RecipeError: The loss, the gradient or the score is no longer a finite number; or other processes
            would train something else.
        ProcessLost: Another process ended.
    """
    learnable = [n for n, sequence in enumerate(sequences) if sequence.num_labels]
    if not learnable:
        raise DataError(
            f"There is nothing to learn: none of {len(sequences)} sequences has a completion token that "
            "carries loss. Check that completions are not empty and that weights are above 0."
        )
    learnt = sequences if len(learnable) == len(sequences) else [sequences[n] for n in learnable]
    run = Run(network, dict(parameters), learnt, settings, dev_score)
    if processes.together():
        ways = f"{'kept' if checkpoint else 'not kept'}, {'sharded' if run.parts.sharded else 'whole'}"
        processes.require_alike(f"{identity_of(run, identity)}, {ways}")
    keeper = Keeper(checkpoint, run, identity) if checkpoint else None
    stop = 0
    postponed = postponed_signals() if keeper else contextlib.nullcontext(lambda: None)
    with own_randomness(run.device, settings.seed):
        try:
            with postponed as asked_to_stop:
                if keeper:
                    keeper.take_up()
                for report in run.steps():
                    if keeper:
                        keeper.add(report)
                    if on_step and processes.is_first():
                        on_step(report)
                    stop = processes.any_of(asked_to_stop() or 0, run.device) if keeper else 0
                    if keeper and stop:
                        keeper.keep()
                        break
            if stop := stop or asked_to_stop():
                signal.raise_signal(stop)
                raise KeyboardInterrupt  # whoever handles the signal may not end the process
        finally:
            set_mode(network, training=False)
            if keeper:
                keeper.metrics.close()
    run.put_back_best()
    return run.result()


@dataclass
class Progress:
    """How far a run has come; JSON-like."""

    step: int = 0
    losses: list[float] = field(default_factory=list[float])
    best_step: int | None = None
    best_score: float | None = None
    evaluations_since_best: int = 0
    stopped_early: bool = False
    tokens: int = 0
    shared_tokens: int = 0
    seconds: float = 0.0


class Run:
    """A training run under way: what is trained, on what, and how far it has come."""

    def __init__(
        self,
        network: Network,
        parameters: dict[str, nn.Parameter],
        sequences: Sequence[TokenSequence],
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
        self.lengths = [len(sequence) for sequence in sequences]
        self.steps_per_epoch = -(-len(sequences) // settings.batch_size)
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
            progress.step, self.total_steps, loss, learning_rate, norm, progress.tokens, progress.seconds
        )

    def next_sequences(self) -> list[TokenSequence]:
        """The sequences of the coming step."""
        epoch, number = divmod(self.progress.step, self.steps_per_epoch)
        if self._epoch_plan[0] != epoch:
            settings = self.settings
            plan = plan_epoch(self.lengths, settings.batch_size, seed=settings.seed, epoch=epoch)
            self._epoch_plan = (epoch, plan)
        return [self.sequences[n] for n in self._epoch_plan[1][number]]

    def gradients_of(self, sequences: list[TokenSequence]) -> float:
        """Set the gradients of the mean loss over all labels of the step; that loss."""
        progress = self.progress
        before = progress.tokens, progress.shared_tokens
        loss = self.own_gradients_of(sequences)
        self.parts.sum_gradients()
        found = (loss, progress.tokens - before[0], progress.shared_tokens - before[1])
        loss, tokens, shared = processes.summed(found, self.device)
        progress.tokens, progress.shared_tokens = before[0] + int(tokens), before[1] + int(shared)
        return loss

    def own_gradients_of(self, sequences: list[TokenSequence]) -> float:
        """Set this process's summand of the gradients of a step; its summand of the loss."""
        self.parts.forget_gradients()
        share = self.settings.share_prefix and getattr(self.network, "shares_prefix", True)
        num_labels = sum(sequence.weight * sequence.num_labels for sequence in sequences)
        part = self.own_part(sequences, share=share)
        batches = split(part, self.settings.max_batch_tokens, share=share) if part else []
        step_loss = 0.0
        for batch, counts in self.parts.rounds(batches, sequences, self.device):
            with processes.lost_if_group_fails():
                with self.precision():
                    nll, _ = completion_loss(self.network, batch, device=self.device, share=share)
                (nll / num_labels if counts else 0.0 * nll).backward()
            if not counts:
                continue
            step_loss += float(nll.detach()) / num_labels
            self.progress.tokens += batch.num_tokens
            if share:
                self.progress.shared_tokens += shared_prefix(self.network, batch) * (len(batch) - 1)
        return step_loss

    def own_part(self, sequences: list[TokenSequence], *, share: bool) -> list[TokenSequence]:
        """Those sequences of a step that this process computes."""
        if not processes.together():
            return sequences
        return share_out(sequences, processes.num_processes(), share=share)[processes.rank()]

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Automatic bfloat16 on a CUDA device, if wished for."""
        if self.settings.bf16_on_cuda and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

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
            patience = self.settings.patience
            progress.stopped_early = patience is not None and progress.evaluations_since_best >= patience
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


class Keeper:
    """Writes a run's checkpoints and takes a run up from them; of many processes the first alone writes."""

    def __init__(self, folder: Path, run: Run, identity: str) -> None:
        self.folder = folder
        self.run = run
        self.identity = identity_of(run, identity)
        self.metrics = MetricsFile(folder / METRICS_FILE, facts_of(run, self.identity))
        self.last_step = 0
        self.last_time = time.perf_counter()

    def add(self, report: StepReport) -> None:
        """Note a step, and write a checkpoint if one is due."""
        if processes.is_first():
            self.metrics.add(report)
        if processes.is_first() or self.run.parts.sharded:
            self.keep_if_due()

    def keep_if_due(self) -> None:
        """Write a checkpoint if the settings ask for one now, and always when the run has ended."""
        settings, progress = self.run.settings, self.run.progress
        every = settings.checkpoint_every_steps
        late = time.perf_counter() - self.last_time >= settings.checkpoint_every_s
        due = self.run.by_first(lambda: late) if every is None else progress.step - self.last_step >= every
        if due or progress.stopped_early or progress.step == self.run.total_steps:
            self.keep()

    def keep(self) -> None:
        """Write a checkpoint, if the last one is of an earlier step; where parts are sharded, all together."""
        run, first = self.run, processes.is_first()
        if self.last_step == run.progress.step or not (first or run.parts.sharded):
            return
        whole = {name: run.parts.whole(tensor, part) for name, tensor, part in self._kept()}
        if first:
            self.metrics.sync()
            whole |= {f"random.{kind}": state for kind, state in random_state(run.device).items()}
            save_checkpoint(self.folder, self.identity, run.progress.step, whole, asdict(run.progress))
        self.last_step = run.progress.step
        self.last_time = time.perf_counter()

    def _kept(self) -> Iterator[tuple[str, Tensor, nn.Parameter]]:
        """What goes into a checkpoint, by name, with the part that it goes with."""
        run = self.run
        yield from ((f"parameter.{name}", part, part) for name, part in run.parts.own.items())
        yield from ((f"best.{name}", tensor, run.parts.own[name]) for name, tensor in run.best.items())
        for number, optimizer in enumerate(run.optimizers):
            moved = moved_by(optimizer)
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    yield f"optimizer.{number}.{index}.{key}", value, moved[index]

    def take_up(self) -> None:
        """Put the run where its newest whole checkpoint left it, if there is one."""
        tensors: dict[str, Tensor] = {}
        facts = processes.from_first(lambda: self._read(tensors))
        if facts is not None:
            self._restore(processes.each_from_first(tensors), facts)
        if processes.is_first():
            self.metrics.take_up(self.run.progress.step)

    def _read(self, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
        """The newest checkpoint's facts, and into `tensors` its tensors."""
        found = latest_checkpoint(self.folder, self.identity)
        tensors.update(found[0] if found else {})
        return found[1] if found else None

    @torch.no_grad()
    def _restore(self, tensors: Iterable[tuple[str, Tensor]], facts: Mapping[str, Any]) -> None:
        run = self.run
        own, cut = run.parts.own, run.parts.cut
        run.progress, run.best = Progress(**facts), {}
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in run.optimizers]
        moved = [moved_by(optimizer) for optimizer in run.optimizers]
        random: dict[str, Tensor] = {}
        for place, tensor in tensors:
            kind, _, name = place.partition(".")
            if kind == "parameter":
                own[name].copy_(cut(tensor, own[name]))
            elif kind == "best":
                run.best[name] = cut(tensor, own[name]).to(run.device)
            elif kind == "optimizer":
                number, index, key = name.split(".")
                state = states[int(number)].setdefault(int(index), {})
                state[key] = cut(tensor, moved[int(number)][int(index)])
            else:
                random[name] = tensor
        for optimizer, state in zip(run.optimizers, states, strict=True):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        set_random_state(random)
        self.last_step = run.progress.step


def facts_of(run: Run, identity: str) -> dict[str, Any]:
    """What a run is, for the first line of its `metrics.jsonl`."""
    return {
        "run": identity,
        "total_steps": run.total_steps,
        "steps_per_epoch": run.steps_per_epoch,
        "num_sequences": len(run.sequences),
        "num_trained": sum(parameter.numel() for parameter in run.parameters.values()),
        "settings": {
            key: value for key, value in asdict(run.settings).items() if key not in NOT_PART_OF_IDENTITY
        },
    }


def identity_of(run: Run, identity: str) -> str:
    """A hash of all that decides how a run goes: its settings, sequences, parameters' names and shapes."""
    settings = {key: value for key, value in asdict(run.settings).items() if key not in NOT_PART_OF_IDENTITY}
    shapes = {name: list(tensor.shape) for name, tensor in run.parameters.items()}
    digest = hashlib.blake2b(json.dumps([identity, settings, shapes], sort_keys=True).encode(), digest_size=8)
    for sequence in run.sequences:
        digest.update(f"{len(sequence.prompt)},{len(sequence.completion)},{sequence.weight!r}:".encode())
        digest.update(array("q", sequence.prompt + sequence.completion).tobytes())
    return digest.hexdigest()
