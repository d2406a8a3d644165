from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from test_training import SEQUENCES, SETTINGS, SHAPE, Dropping, assert_equal, run
from torch import nn

from tailorbird.network import estimate
from tailorbird.network import probe as module
from tailorbird.network.decoder import Decoder
from tailorbird.network.estimate import (
    PlannedSteps,
    Sizes,
    TrainingEstimate,
    Work,
    estimate_of,
    evaluations_in,
)
from tailorbird.network.probe import probe, unprobed
from tailorbird.network.run import Run


def planned(decoder=None, settings=SETTINGS, sequences=SEQUENCES, dev_score=None):
    decoder = decoder or Decoder(SHAPE, seed=1)
    return PlannedSteps(Run(decoder, dict(decoder.named_parameters()), sequences, settings, dev_score))


def estimated(plan, **rest):
    return estimate_of(plan, Sizes.of(plan.run.network), **rest)


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, epochs=2.5, max_batch_tokens=40)])
@pytest.mark.parametrize("kind", [Decoder, Dropping])
def test_the_tokens_are_those_that_training_counts(kind, settings):
    told = estimated(planned(kind(SHAPE), settings))
    _, result = run(kind(SHAPE), settings=settings)
    assert (told.steps, told.tokens, told.shared_tokens) == (
        result.steps,
        result.tokens,
        result.shared_tokens,
    )
    assert (told.shared_tokens > 0) == (kind is Decoder)


def test_of_a_long_run_evenly_spread_steps_are_counted(monkeypatch):
    settings = replace(SETTINGS, epochs=40)
    whole = estimated(planned(settings=settings))
    monkeypatch.setattr(estimate, "MOST_STEPS", 50)
    some = planned(settings=settings)
    assert len(some.numbers) == 50
    assert estimated(some).tokens == pytest.approx(whole.tokens, rel=0.05)


@pytest.mark.parametrize("per_epoch", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("first", [True, False])
def test_evaluations_are_as_many_as_training_asks_for(per_epoch, first):
    settings = replace(SETTINGS, epochs=2.6, evaluations_per_epoch=per_epoch, evaluate_first=first)
    asked = []
    run(settings=settings, dev_score=lambda: asked.append(1) or 0.5)
    plan = planned(settings=settings)
    assert evaluations_in(plan.run.total_steps, plan.run) == len(asked)


class Padding(Decoder):
    """A decoder that takes no packs."""

    packs = False


@pytest.mark.parametrize("kind", [Decoder, Padding])
def test_work_counts_a_shared_prefix_once_and_padding_where_there_is_any(kind):
    plan = planned(kind(SHAPE), settings=replace(SETTINGS, max_steps=1))
    batch = plan.batches[0][0]
    sequences = plan.sequences(0)
    longest = max(len(s.inputs) for s in sequences)
    assert batch.tokens == sum(len(s.inputs) for s in sequences)
    own = 8 * (longest - 10) if kind is Padding else sum(len(s.inputs) - 10 for s in sequences)
    assert batch.computed == 10 + own
    assert batch.shared == 10 * 7
    assert batch.labels == 16


def test_costs_follow_from_the_shapes_of_the_weights():
    decoder = Decoder(SHAPE)
    sizes = Sizes.of(decoder)
    embedding = decoder.embedding.weight
    assert (sizes.vocabulary, sizes.head) == (32, embedding.numel())
    assert sizes.body == sum(p.numel() for p in decoder.parameters() if p.ndim == 2) - embedding.numel()
    assert sizes.multiply_adds(Work(9, 0, 10, 2.0)) == 10 * sizes.body + 2 * sizes.head
    told = estimated(planned(decoder))
    assert told.flops == pytest.approx(6 * sizes.multiply_adds(planned(decoder).total), rel=0.01)


def test_probing_changes_nothing_that_training_depends_on():
    expected = run(Dropping(SHAPE))
    decoder = Dropping(SHAPE)
    torch.manual_seed(3)
    probe(planned(decoder))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert not decoder.training
    trained = run(decoder)
    assert trained[1].losses == expected[1].losses
    assert_equal(trained[0], expected[0])


class Wide(nn.Module):
    """A network whose memory is that of one wide layer."""

    shares_prefix = False

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.up = nn.Linear(16, 300_000, bias=False)
        self.down = nn.Linear(300_000, 16, bias=False)

    def hidden(self, ids_BT, **rest):
        return self.down(torch.relu(self.up(self.embedding(ids_BT)))), None

    def logits(self, hidden_NC):
        return nn.functional.linear(hidden_NC, self.embedding.weight)


def test_what_a_token_holds_is_measured():
    found = probe(planned(Wide(), replace(SETTINGS, epochs=1)))
    # What relu gave is saved once for itself and for the layer after it.
    assert 4 * 300_000 <= found.sizes.token_bytes <= 1.6 * 4 * 330_000
    assert found.step_s > 0


@pytest.mark.parametrize(("pays", "recording_s"), [(0, 4.0), (1000, 0.0)], ids=["long run", "short run"])
def test_what_recording_takes_is_counted_once_for_every_size(pays, recording_s, monkeypatch):
    """Each timing is of one second: of what is recorded then, and of what is repeated."""
    monkeypatch.setattr(module, "PAYS", pays)
    monkeypatch.setattr(module, "_timed", lambda *_: 1.0)
    monkeypatch.setattr(module, "_measured", lambda run, sequences, batches, sizes: (1.0, sizes))
    monkeypatch.setattr(module, "_optimizer_seconds", lambda run: 0.0)
    monkeypatch.setattr(module, "TIMED", 1)
    plan = planned()
    clock = iter(range(100))
    monkeypatch.setattr(module, "time", Mock(perf_counter=lambda: next(clock) * 4.0))
    by_steps = probe(plan).step_s
    plan.run.replays = object()
    assert probe(plan).step_s == pytest.approx(by_steps + recording_s / plan.run.total_steps)


def test_memory_is_gradients_moments_best_weights_and_the_largest_batch():
    plan = planned()
    size = sum(p.numel() * 4 for p in plan.run.parameters.values())
    told = estimated(plan, held_bytes=1000)
    assert told.state_bytes == 4 * size
    assert told.peak_bytes == 1000 + told.state_bytes + told.activation_bytes
    sizes = Sizes.of(plan.run.network)
    most = max(sizes.activation_bytes(batch) for batches in plan.batches for batch in batches)
    assert told.activation_bytes == round(most)
    muon = estimated(planned(settings=replace(SETTINGS, optimizer="muon")))
    assert muon.state_bytes == 3 * size


def test_smaller_batches_hold_less():
    less = estimated(planned(settings=replace(SETTINGS, max_batch_tokens=20)))
    more = estimated(planned())
    assert less.largest_batch_tokens <= 20 < more.largest_batch_tokens
    assert less.activation_bytes < 0.7 * more.activation_bytes
    assert less.tokens == more.tokens


def test_without_probing_there_are_no_times():
    plan = planned()
    found = unprobed(plan)
    assert (found.step_s, found.sizes) == (0.0, Sizes.of(plan.run.network))


def test_an_estimate_comes_back_from_json():
    told = estimated(planned(), step_s=0.5, evaluation_s=2.0)
    assert TrainingEstimate.from_json(told.to_json()) == told
    assert told.seconds == 10 * 0.5 + 2 * 2.0
