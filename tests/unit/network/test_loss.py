import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tailorbird.network.batches import Batch
from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.loss import completion_loss, shared_prefix
from tailorbird.network.sequences import TokenSequence

VOCAB = 23
SHAPE = DecoderShape(VOCAB, 16, 2, 2, 1, 24, 64)
DECODER = Decoder(SHAPE, seed=3).double()
with torch.no_grad():
    for weight in DECODER.parameters():
        weight.mul_(8 if weight.ndim > 1 else 1)

tokens = st.lists(st.integers(0, VOCAB - 1), max_size=5).map(tuple)
completions = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4).map(tuple)


@st.composite
def batches(draw):
    """Batches with a long common beginning, which may reach into completions or be a whole prompt."""
    common = tuple(draw(st.lists(st.integers(0, VOCAB - 1), min_size=8, max_size=12)))
    extras = [draw(st.one_of(st.just(()), tokens)) for _ in range(draw(st.integers(2, 4)))]
    weights = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    if draw(st.booleans()):
        return Batch(tuple(TokenSequence(common + e, draw(completions), draw(weights)) for e in extras))
    cut = draw(st.integers(0, len(common)))
    return Batch(
        tuple(
            TokenSequence(common[:cut], common[cut:] + e + draw(completions), draw(weights)) for e in extras
        )
    )


class Unpacked:
    """The decoder as a network that takes no packs."""

    hidden, logits, expand_past = DECODER.hidden, DECODER.logits, DECODER.expand_past


def loss_and_gradients(batch, *, share, network=DECODER):
    DECODER.zero_grad()
    loss, num_labels = completion_loss(network, batch, share=share)
    if loss.requires_grad:
        loss.backward()
    return loss.item(), num_labels, [p.grad for p in DECODER.parameters()]


def textbook(batch):
    """One sequence at a time, all logits, nothing clever."""
    total, count = 0.0, 0.0
    for sequence in batch.sequences:
        ids = torch.tensor([sequence.prompt + sequence.completion])
        nll = functional.cross_entropy(DECODER(ids[:, :-1])[0], ids[0, 1:], reduction="none")
        kept = nll[max(len(sequence.prompt) - 1, 0) :]
        total += sequence.weight * kept.sum().item()
        count += sequence.weight * len(kept)
    return total, count


@given(batches())
@settings(max_examples=60, deadline=None)
def test_the_shared_prefix_changes_neither_loss_nor_gradients(batch):
    assert not batch.num_labels or shared_prefix(DECODER, batch) >= 8
    plain = loss_and_gradients(batch, share=False, network=Unpacked())
    for network, share in ((DECODER, True), (DECODER, False), (Unpacked(), True)):
        found = loss_and_gradients(batch, share=share, network=network)
        assert found[0] == pytest.approx(plain[0], rel=1e-9)
        assert found[1] == plain[1]
        for one, other in zip(found[2], plain[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@given(batches())
@settings(max_examples=40, deadline=None)
def test_the_loss_is_that_of_the_textbook(batch):
    loss, num_labels = completion_loss(DECODER, batch)
    expected, expected_labels = textbook(batch)
    assert num_labels == pytest.approx(expected_labels)
    assert loss.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_gradients_agree_in_single_precision_too():
    decoder = Decoder(SHAPE, seed=3)
    batch = Batch(tuple(TokenSequence((*range(20), n), (n + 1, 0)) for n in range(6)))
    gradients = []
    for share in (True, False):
        decoder.zero_grad()
        completion_loss(decoder, batch, share=share)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in decoder.parameters()]))
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-5


def test_identical_sequences_are_computed_once_and_counted_each():
    same = TokenSequence(tuple(range(9)), (3, 4))
    counted = Counted()
    loss, num_labels = completion_loss(counted, Batch((same, same, same)))
    assert counted.shapes == [(1, 10)]
    assert num_labels == 6
    assert loss.item() == pytest.approx(3 * completion_loss(DECODER, Batch((same,)))[0].item())


class Counted:
    """A network that records which batches went through it and how many rows reached the head."""

    def __init__(self, *, shares_prefix=True):
        self.shares_prefix = shares_prefix
        self.shapes, self.rows = [], 0

    def hidden(self, ids_BT, **rest):
        self.shapes.append(tuple(ids_BT.shape))
        return DECODER.hidden(ids_BT, **rest)

    def logits(self, hidden_NC):
        self.rows += len(hidden_NC)
        return DECODER.logits(hidden_NC)

    def expand_past(self, past, batch):
        return DECODER.expand_past(past, batch)


LONG = Batch((TokenSequence((1,) * 10, (2, 3)), TokenSequence((1,) * 10, (4, 5, 6))))


def test_the_prefix_goes_through_the_network_once():
    counted = Counted()
    completion_loss(counted, LONG)
    assert counted.shapes == [(1, 10), (2, 2)]


def test_the_head_is_computed_only_where_a_label_is_predicted():
    counted = Counted()
    completion_loss(counted, LONG)
    # The last prompt token predicts both first completion tokens, then 1 + 2 more.
    assert counted.rows == 4


def test_a_network_that_cannot_share_takes_the_plain_path():
    counted = Counted(shares_prefix=False)
    loss, _ = completion_loss(counted, LONG)
    assert counted.shapes == [(2, 12)]
    assert shared_prefix(counted, LONG) == 0
    assert loss.item() == pytest.approx(completion_loss(DECODER, LONG)[0].item())


def test_a_short_prefix_or_a_single_sequence_takes_the_plain_path():
    short = Batch((TokenSequence((1,) * 7, (2,)), TokenSequence((1,) * 7, (3,))))
    assert shared_prefix(DECODER, short) == 0
    assert shared_prefix(DECODER, Batch(LONG.sequences[:1])) == 0


def test_a_batch_without_labels_has_no_loss():
    loss, num_labels = completion_loss(DECODER, Batch((TokenSequence((1, 2), ()), TokenSequence((), ()))))
    assert (loss.item(), num_labels) == (0.0, 0.0)


def test_an_undecided_network_loses_the_logarithm_of_the_vocabulary():
    decoder = Decoder(SHAPE)
    with torch.no_grad():
        decoder.norm.weight.zero_()
    loss, num_labels = completion_loss(decoder, LONG)
    assert loss.item() / num_labels == pytest.approx(math.log(VOCAB), rel=1e-6)


def test_the_loss_is_summed_in_single_precision_even_for_a_half_precision_network():
    loss, _ = completion_loss(Decoder(SHAPE).bfloat16(), LONG)
    assert loss.dtype == torch.float32
