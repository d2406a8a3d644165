"""Recorded work against the same computed step by step; on a processor a recording is the work itself."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from written_kernel import Written

from tailorbird.network import decoder as decoder_module
from tailorbird.network import pack_attention as attention
from tailorbird.network import replays as module
from tailorbird.network.batches import Batch
from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.loss import completion_loss, shared_prefix
from tailorbird.network.replays import Replays, Sizes, lay_out, replays_for, rounded
from tailorbird.network.sequences import TokenSequence

SHAPE = DecoderShape(vocab_size=50, width=32, layers=2, heads=4, kv_heads=2, feed_forward=48, context=256)


@pytest.fixture(scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        for place in (attention, decoder_module):
            patch.setattr(place, "flash_kernel", lambda *_: Written())
        yield Decoder(SHAPE)


def batch_of(dice, prefix, rows):
    shared = tuple(dice.randrange(50) for _ in range(prefix))
    return Batch(
        tuple(
            TokenSequence(
                (*shared, *(dice.randrange(50) for _ in range(dice.randrange(1, 6)))),
                tuple(dice.randrange(50) for _ in range(dice.randrange(1, 4))),
                weight=dice.choice([0.5, 1.0]),
            )
            for _ in range(rows)
        )
    )


def replaying(network, **settings):
    return Replays(network, dict(network.named_parameters()), bf16=False, **settings)


def by_steps(network, batches, divisor):
    network.zero_grad()
    found = 0.0
    for batch in batches:
        loss, _ = completion_loss(network, batch)
        (loss / divisor).backward()
        found += loss.item() / divisor
    return found, [parameter.grad for parameter in network.parameters()]


@given(seed=st.integers(0, 10**6), prefix=st.sampled_from([0, 3, 8, 20]), rows=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_recorded_work_adds_the_gradients_of_every_batch(network, seed, prefix, rows):
    dice = random.Random(seed)
    batches = [batch_of(dice, prefix, rows) for _ in range(3)]
    expected_loss, expected = by_steps(network, batches, 7.0)
    network.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WORTH_IT", 1)
        replays = replaying(network, record=lambda work: work)
        found = [replays.add_gradients(b, shared_prefix(network, b), 7.0, 0.99) for b in batches]
    assert sum(found) == pytest.approx(expected_loss, rel=1e-5)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_what_was_computed_step_by_step_before_stays_in_the_gradients(network, monkeypatch):
    monkeypatch.setattr(module, "WORTH_IT", 1)
    first, second = batch_of(random.Random(1), 8, 3), batch_of(random.Random(2), 8, 3)
    _, expected = by_steps(network, [first, second, first], 5.0)
    by_steps(network, [first], 5.0)
    replays = replaying(network, record=lambda work: work)
    replays.add_gradients(second, 8, 5.0, 0.99)
    (completion_loss(network, first)[0] / 5.0).backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_sizes_are_recorded_when_they_have_come_up_often_enough_and_once(network):
    recorded = []
    replays = replaying(network, record=lambda work: recorded.append(1) or work)
    short, long = batch_of(random.Random(1), 8, 3), batch_of(random.Random(2), 40, 100)
    batches = (short, long, short, long, short, long)
    found = [replays.add_gradients(b, 8, 1.0, 0.99) is not None for b in batches]
    assert found == [False, False, True, True, True, True]
    assert len(recorded) == 2


@pytest.mark.parametrize(("part_left", "recorded"), [(0.9, True), (0.5, False), (0.0, False)])
def test_sizes_that_will_hardly_come_up_again_are_not_recorded(part_left, recorded, network):
    replays = replaying(network, record=lambda work: work)
    batch = batch_of(random.Random(1), 8, 3)
    found = [replays.add_gradients(batch, 8, 1.0, part_left) is not None for _ in range(2)]
    assert found == [False, recorded]  # met twice: 18, 2 or 0 more are likely to come


def test_no_more_than_so_many_sizes_are_recorded(network, monkeypatch):
    monkeypatch.setattr(module, "WORTH_IT", 1)
    monkeypatch.setattr(module, "MOST", 1)
    replays = replaying(network, record=lambda work: work)
    short, long = batch_of(random.Random(1), 8, 3), batch_of(random.Random(2), 40, 100)
    assert [replays.add_gradients(b, 8, 1.0, 0.99) is not None for b in (short, long, short)] == [
        True,
        False,
        True,
    ]


def other_gradients(work):
    def replay():
        loss = work()
        work()
        return loss

    return replay


def refused(work):
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (other_gradients, "gives other gradients when it is recorded (by 1)"),
        (refused, "could not be recorded: operation not permitted when stream is capturing."),
    ],
)
def test_what_cannot_be_recorded_goes_on_step_by_step_and_the_log_says_so(
    network, record, said, monkeypatch, caplog
):
    monkeypatch.setattr(module, "WORTH_IT", 1)
    batch = batch_of(random.Random(1), 8, 3)
    _, expected = by_steps(network, [batch], 1.0)
    by_steps(network, [batch], 1.0)
    replays = replaying(network, record=record)
    assert [replays.add_gradients(batch, 8, 1.0, 0.99) for _ in range(3)] == [None] * 3
    assert said in caplog.text
    assert len(caplog.records) == 1
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_batch_is_laid_out_with_what_it_is_filled_up_with_as_a_piece_of_its_own():
    sequences = (TokenSequence((7, 8, 1), (2,)), TokenSequence((7, 8), (3, 4), weight=0.5))
    laid = lay_out(Batch(sequences), 2, 4.0)
    sizes = laid.sizes
    assert sizes == Sizes(stream=256, pieces=64, labels=256, longest=1024, prefix=1024)
    ids, positions, bounds, ends, rows, which, tokens = laid.numbers.split(sizes.lengths)
    assert ids.tolist()[:5] == [7, 8, 1, 3, 0]
    assert positions.tolist()[:5] == [0, 1, 2, 2, 0]
    assert bounds.tolist() == [0, 2, 3, 4, *[256] * 61]
    assert ends.tolist() == [0, 2, 4]
    assert rows.tolist()[:4] == [1, 2, 3, 0]
    assert which.tolist()[:4] == [1, 0, 2, 0]
    assert tokens.tolist()[:4] == [2, 3, 4, 0]
    assert laid.weights_N.tolist()[:4] == [0.25, 0.125, 0.125, 0.0]


@given(st.integers(1, 10**6))
def test_sizes_are_rounded_up_the_less_the_larger_they_are(count):
    most = max(256, 2 * count) if count <= 1024 else count * (1.25 if count <= 4096 else 1.125)
    assert count <= rounded(count) <= most
    assert rounded(rounded(count)) == rounded(count)


def test_on_a_processor_nothing_is_recorded(network):
    assert replays_for(network, dict(network.named_parameters()), bf16=True) is None
