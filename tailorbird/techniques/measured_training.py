"""Training that is estimated before, refused where it can't fit, and measured beside its estimate.

folder of a run/estimate.json   what it was said to take; a run that goes on knows it from there
                metrics.jsonl   every step
                training.json   settings, the estimate, and what was measured
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.data.storage import write_atomic
from tailorbird.data.task import Data
from tailorbird.errors import OutOfMemory
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model
from tailorbird.network import processes
from tailorbird.network.estimate import PlannedSteps, TrainingEstimate, estimate_of, evaluations_in
from tailorbird.network.keeper import facts_of, identity_of
from tailorbird.network.memory import PeakMemory, available_bytes
from tailorbird.network.probe import Probed, probe, unprobed
from tailorbird.network.run import Run
from tailorbird.network.sharding import is_sharded
from tailorbird.network.training import train
from tailorbird.network.untrained import referenced
from tailorbird.records import Example
from tailorbird.techniques.rate_race import RACE
from tailorbird.techniques.through_wrappers import OnEstimate, OnStep, dev_score

if TYPE_CHECKING:
    from tailorbird.network.network import Network
    from tailorbird.network.sequences import Unit
    from tailorbird.network.settings import TrainResult, TrainSettings

ESTIMATE, TRAINING = "estimate.json", "training.json"
FEW, SOME = 2, 10
"""Dev examples that are asked to learn how long all of them take."""
SHORT_ANSWER = 24
"""Tokens after which the timing of a longer free answer is carried on by multiplying."""


@dataclass(frozen=True)
class Watch:
    """What one training is called, and who is told of it.

    `dev_seconds` measures how long one evaluation on dev takes. `dial` is the technique's setting that
    decides how much is trained: its name, its value, and the power with which the trained numbers grow.
    `search` chooses settings for what is learnt, after the estimate was told and before training; `searched`
    are its steps and evaluations.
    """

    stage: str
    on_estimate: OnEstimate | None = None
    dev_seconds: Callable[[], float] | None = None
    dial: tuple[str, int, int] = ("rank", 1, 1)
    search: Callable[[TrainSettings, Sequence[Unit]], TrainSettings] | None = None
    searched: tuple[int, int] = (0, 0)


def train_measured(
    watch: Watch,
    network: Network,
    parameters: Mapping[str, Any],
    sequences: Sequence[Unit],
    settings: TrainSettings,
    *,
    dev_score: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    on_step: OnStep | None = None,
) -> TrainResult | None:
    """`train`, with its estimate told first; None where whoever was told doesn't want it to start.

    Of many processes the first estimates, by its own part of the steps, and is the one to be told. Where layers
    are shared out all probe together, and the first one's numbers count.

    Without somebody to tell nothing is probed, and what can't fit by the shapes of the weights is refused.
    Preferences get their reference once, before a search for settings begins.

    Raises:
        OutOfMemory: it needs more than is free.
    """
    learnable = [sequence for sequence in sequences if sequence.num_labels]
    estimate = None
    if learnable:  # `train` says what is wrong where there is none
        run = Run(network, dict(parameters), learnable, settings, dev_score)
        run_identity = identity_of(run, identity) if checkpoint else ""
        steps, evaluations = watch.searched
        found = processes.from_first(
            lambda: replace(
                _estimate(watch, run, checkpoint, run_identity),
                search_steps=steps,
                search_evaluations=evaluations,
            ),
            everywhere=run.parts.sharded,
        )
        refuse_if_too_large(found, watch, run)
        on_estimate, estimate = watch.on_estimate, found
        if on_estimate and not processes.from_first(lambda: on_estimate(found)):
            return None
        del run
    device = next(iter(parameters.values())).device
    sequences = referenced(
        network,
        sequences,
        settings,
        device,
        folder=checkpoint,
        identity=identity,
        everywhere=any(map(is_sharded, parameters.values())),
    )
    if learnable and watch.search:
        settings = watch.search(settings, sequences)
    with PeakMemory(device) as peak:
        result = train(
            network,
            parameters,
            sequences,
            settings,
            dev_score=dev_score,
            checkpoint=checkpoint,
            identity=identity,
            on_step=on_step,
        )
    if checkpoint and estimate and processes.is_first():
        run = Run(network, dict(parameters), learnable, settings, dev_score)
        race = checkpoint / RACE if watch.search else None
        _record(checkpoint / TRAINING, run, estimate, result, peak.bytes, race=race)
    return result


def _estimate(watch: Watch, run: Run, checkpoint: Path | None, identity: str) -> TrainingEstimate:
    """Known from the run's folder, else probed if somebody is told, else from shapes alone."""
    path = checkpoint / ESTIMATE if checkpoint else None
    if known := run.by_first(lambda: _known(path, run, identity)):
        return known
    planned = PlannedSteps(run)
    probed: Probed = probe(planned) if watch.on_estimate else unprobed(planned)
    evaluation_s = None
    if watch.dev_seconds:
        evaluation_s = watch.dev_seconds() if probed.step_s else 0.0
    estimate = estimate_of(
        planned,
        probed.sizes,
        stage=watch.stage,
        step_s=probed.step_s,
        evaluation_s=evaluation_s,
        held_bytes=probed.held_bytes,
        checkpoints=checkpoint is not None,
    )
    if path and probed.step_s and processes.is_first():
        content = json.dumps({"run": identity, "estimate": estimate.to_json()}, indent=1)
        write_atomic(path, content.encode())
    return estimate


def _known(path: Path | None, run: Run, identity: str) -> TrainingEstimate | None:
    if not path or not path.is_file():
        return None
    record = json.loads(path.read_text())
    if record["run"] != identity:
        return None
    known = TrainingEstimate.from_json(record["estimate"])
    # A run may be taken up by others than those for whom it was said what each of them would hold.
    same = known.shared_among == (processes.num_processes() if run.parts.sharded else 1)
    return replace(known, available_bytes=available_bytes(run.device)) if same else None


def dev_seconds(weights: LocalWeights, model: Model, data: Data, dev: Sequence[Example]) -> float:
    """How long `dev_score` takes on all of `dev`, from asking a few of them."""
    if data.task.kind == "classify":
        if len(dev) <= SOME:
            return _seconds(weights, model, data, dev)
        few, some = (_seconds(weights, model, data, dev[:n]) for n in (FEW, SOME))
        return some + max(0.0, some - few) / (SOME - FEW) * (len(dev) - SOME)
    template = weights.engine.template
    longest = min(data.task.max_tokens, max(len(template.completion(e.completion)) for e in dev))
    asked = min(longest, SHORT_ANSWER)
    first, all_asked = (_seconds(weights, model, _capped(data, n), dev[:SOME]) for n in (1, asked))
    further = max(0.0, all_asked - first) / max(1, asked - 1) * (longest - 1)
    return (first + further) * len(dev) / min(SOME, len(dev))


def _seconds(weights: LocalWeights, model: Model, data: Data, examples: Sequence[Example]) -> float:
    started = time.perf_counter()
    dev_score(weights, model, data, examples)
    return time.perf_counter() - started


def _capped(data: Data, max_tokens: int) -> Data:
    return replace(data, task=replace(data.task, max_tokens=max_tokens))


# -- what can't fit -------------------------------------------------------------------------------


def refuse_if_too_large(estimate: TrainingEstimate, watch: Watch, run: Run) -> None:
    """Raises `OutOfMemory` where the training can't fit, with what would.

    Raises:
        OutOfMemory: it needs more than is free.
    """
    if estimate.fits:
        return
    where = "the CUDA device" if estimate.device == "cuda" else "this machine"
    raise OutOfMemory(
        f"{watch.stage}: training needs about {_size(estimate.more_bytes)} of memory besides what is held, and "
        f"{where} has {_size(estimate.available_bytes)} free. {_size(estimate.state_bytes)} are gradients, "
        f"moments and best weights of {estimate.num_trained:,} trained numbers, "
        f"{_size(estimate.activation_bytes)} the largest batch of {estimate.largest_batch_tokens:,} tokens. "
        f"What would fit: {'; or '.join(alternatives(estimate, watch, run))}."
    )


def alternatives(estimate: TrainingEstimate, watch: Watch, run: Run) -> list[str]:
    """Changes with which it would fit, with their numbers."""
    found: list[str] = []
    room = estimate.available_bytes - estimate.state_bytes
    token_bytes = estimate.activation_bytes / estimate.largest_batch_tokens
    tokens = _rounded_down(room / token_bytes)
    if tokens >= estimate.longest:
        size = _size(estimate.state_bytes + tokens * token_bytes)
        found.append(f"max_batch_tokens = {tokens}, which takes {size} and gives the same result")
    elif tokens > 0:
        lengths = run.lengths[: run.num_examples]
        longer = sum(length > tokens for length in lengths)
        found.append(
            f"shorter examples: {longer} of {len(lengths)} have more than {tokens} tokens "
            f"(with max_batch_tokens = {tokens})"
        )
    name, value, power = watch.dial
    # Half of what is free for what is trained leaves the other half for the batches.
    smaller = int(value * (estimate.available_bytes / 2 / estimate.state_bytes) ** (1 / power))
    if 1 <= smaller < value:
        found.append(f"{name} = {smaller}")
    if name == "rank":
        part = estimate.available_bytes / estimate.more_bytes
        found.append(f"a base model of about {part:.0%} of this one's size or less")
    return found or [f"a smaller {name}, or more memory"]


def _rounded_down(tokens: float) -> int:
    """To two digits, such as 1,500: the estimate is no finer.

    >>> _rounded_down(1578.3), _rounded_down(-3.0)
    (1500, 0)
    """
    whole = max(0, int(tokens))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


# -- what was measured ----------------------------------------------------------------------------


def _record(
    path: Path,
    run: Run,
    estimate: TrainingEstimate,
    result: TrainResult,
    peak_bytes: int,
    *,
    race: Path | None,
) -> None:
    """Writes what a training took beside what it was said to; the peak is the highest of all resumptions."""
    evaluations = evaluations_in(result.steps, run) if run.dev_score else 0
    before = json.loads(path.read_text())["measured"]["peak_bytes"] if path.is_file() else 0
    outcome = {key: value for key, value in asdict(result).items() if key != "losses"}
    probed = bool(estimate.step_s)
    record: dict[str, Any] = {
        "stage": estimate.stage,
        "path": getattr(run.network, "path", None),
        **{key: value for key, value in facts_of(run, "").items() if key != "run"},
        "estimate": estimate.to_json() if probed else None,
        "measured": {
            "steps": result.steps,
            "evaluations": evaluations,
            "seconds": result.seconds,
            "peak_bytes": max(peak_bytes, before),
            "tokens": result.tokens,
            "shared_tokens": result.shared_tokens,
        },
        "expected_s": estimate.seconds_for(result.steps, evaluations) if probed else None,
        "result": outcome,
        "learning_rate_race": json.loads(race.read_text()) if race else None,
    }
    write_atomic(path, json.dumps(record, indent=1).encode())
