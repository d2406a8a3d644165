"""What a training will take, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailorbird.cli.durations import clock_time
from tailorbird.cli.output import say, size_text

if TYPE_CHECKING:
    from tailorbird.network.estimate import TrainingEstimate


def estimate_text(estimate: TrainingEstimate) -> str:
    """Time, tokens and memory, such as `about 4 min 10 s: 96 steps over 46,080 tokens …`."""
    shared = ""
    if estimate.shared_tokens:
        shared = f" ({estimate.shared_tokens / estimate.tokens:.0%} of them shared and computed once)"
    dev = ""
    if estimate.evaluations:
        times = f"{estimate.evaluations} evaluations on dev"
        dev = f", {times} of {estimate.evaluation_s:.2g} s, fewer if it stops early"
    search = ""
    if estimate.search_steps:
        took = f"about {clock_time(estimate.search_s)} for {estimate.search_steps:,} steps"
        search = f"; before that {took} to choose the learning rate"
    reference = ""
    if estimate.reference_s:
        took = clock_time(estimate.reference_s)
        reference = f"; before that about {took} to ask the model as it is about the preferences"
    where = "GPU memory" if estimate.device == "cuda" else "memory"
    shards = ""
    if estimate.shared_among > 1:
        shards = f" in each of {estimate.shared_among} processes, which share the layers out"
    return (
        f"about {clock_time(estimate.seconds)} for {estimate.steps:,} steps "
        f"over {estimate.tokens:,} tokens{shared}{dev}{reference}{search}; "
        f"up to {size_text(estimate.peak_bytes)} of {where}{shards}, {size_text(estimate.more_bytes)} more than now, "
        f"{size_text(estimate.available_bytes)} free"
    )


def show_estimates(found: Mapping[str, Sequence[TrainingEstimate]]) -> None:
    """One line a training, and their sum where there are several."""
    every = [(arm, estimate) for arm, estimates in found.items() for estimate in estimates]
    if not every:
        say("Nothing would be trained.")
    for arm, estimate in every:
        say(f"{arm}: {estimate.stage} takes {estimate_text(estimate)}.")
    if len(every) > 1:
        say(f"Together about {clock_time(sum(estimate.seconds for _, estimate in every))} of training.")


def estimates_json(found: Mapping[str, Sequence[TrainingEstimate]]) -> dict[str, Any]:
    """The estimates by arm, as `--plan --json` prints them."""
    return {arm: [estimate.to_json() for estimate in estimates] for arm, estimates in found.items()}
