"""What is kept of a run under way, so that it can be taken up: its checkpoints, its metrics, what it is."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tailorbird.network import processes
from tailorbird.network.checkpoints import latest_checkpoint, save_checkpoint
from tailorbird.network.metrics_file import METRICS_FILE, MetricsFile
from tailorbird.network.optimizer import moved_by
from tailorbird.network.randomness import random_state, set_random_state
from tailorbird.network.run import Run
from tailorbird.network.sequences import add_to_hash
from tailorbird.network.settings import Progress, StepReport

NOT_PART_OF_IDENTITY = ("checkpoint_every_s", "checkpoint_every_steps")


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
        "num_sequences": run.num_examples,
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
    add_to_hash(digest, run.sequences)
    return digest.hexdigest()
