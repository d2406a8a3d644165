"""The one training loop: fine-tuning and training from scratch both call `train`.

    for each step:   gradient of the objective's loss  →  clip  →  optimizer step at the scheduled rate
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
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from tailorbird.errors import DataError
from tailorbird.network import processes
from tailorbird.network.interruption import postponed_signals
from tailorbird.network.keeper import Keeper, identity_of
from tailorbird.network.network import Network, set_mode
from tailorbird.network.randomness import own_randomness
from tailorbird.network.run import Run
from tailorbird.network.sequences import Unit
from tailorbird.network.settings import StepReport, TrainResult, TrainSettings
from tailorbird.network.untrained import referenced

T = TypeVar("T")


def train(
    network: Network,
    parameters: Mapping[str, nn.Parameter],
    sequences: Sequence[Unit],
    settings: TrainSettings,
    *,
    dev_score: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    on_step: Callable[[StepReport], None] | None = None,
) -> TrainResult:
    """Train `parameters` of `network` in place on `sequences`, or on preferences where settings say so.

    Args:
        network: Anything that computes hidden states; put into training mode for steps and into
            evaluation mode for `dev_score` and afterwards, if it has a method `train`.
        parameters: What is trained, by unique names; all on one device, where the work is done.
        sequences: What is learnt; those without a label are passed over. Preferences without a reference get
            it from the network as it is now.
        settings: How the run goes.
        dev_score: The task's metric on held-out examples, higher is better. With it, the parameters
            with the best score are put back at the end; without it, the last ones stay.
        checkpoint: A folder for checkpoints and `metrics.jsonl`. A run that is already in it is taken up.
            Ctrl-C and SIGTERM then wait for the step under way to be kept. Delete it when done.
        identity: Names what else the run depends on, such as the hash of frozen weights.
        on_step: Told about every step, in the first process. If it raises, training ends there, and what was
            done is kept unless layers are shared out.

    Raises:
        DataError: No sequence has a token to learn.
        RecipeError: The loss, the gradient or the score is no longer a finite number; or other processes
            would train something else; or the settings ask for the other kind of `sequences`.
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
    run.sequences = referenced(
        network,
        learnt,
        settings,
        run.device,
        folder=checkpoint,
        identity=identity,
        everywhere=run.parts.sharded,
    )
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
                        try:
                            on_step(report)
                        except BaseException:
                            if keeper and not run.parts.sharded:
                                keeper.keep()
                            raise
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
