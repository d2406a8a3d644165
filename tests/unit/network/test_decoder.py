import math

import pytest
import torch

from tailorbird.errors import ContextTooLong, RecipeError
from tailorbird.network.decoder import Decoder, DecoderShape, shape_for


def shape(**changes):
    sizes = {"vocab_size": 61, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward": 48}
    return DecoderShape(**{**sizes, "context": 32, **changes})


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def decoder(request):
    return Decoder(shape(tied_embeddings=request.param), seed=1)


def ids(batch, tokens, seed=0):
    return torch.randint(0, 61, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def test_a_past_gives_the_same_hidden_states_as_the_whole(decoder):
    whole = ids(2, 12)
    expected, _ = decoder.hidden(whole)
    first, past = decoder.hidden(whole[:, :5], keep_past=True)
    second, past = decoder.hidden(whole[:, 5:11], past=past, keep_past=True)
    third, _ = decoder.hidden(whole[:, 11:], past=past)
    torch.testing.assert_close(torch.cat([first, second, third], 1), expected, atol=1e-5, rtol=1e-4)


def test_no_past_is_returned_unless_it_is_asked_for(decoder):
    assert decoder.hidden(ids(1, 3))[1] is None


def test_later_tokens_do_not_change_earlier_hidden_states(decoder):
    whole = ids(1, 10)
    changed = whole.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 61
    before, after = decoder.hidden(whole)[0], decoder.hidden(changed)[0]
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_an_expanded_past_serves_every_row_and_leaves_the_given_one_alone(decoder):
    whole = ids(3, 9)
    whole[:, :4] = whole[0, :4]
    _, past = decoder.hidden(whole[:1, :4], keep_past=True)
    expanded = decoder.expand_past(past, 3)
    assert past[0][0].shape[0] == 1
    rest, _ = decoder.hidden(whole[:, 4:], past=expanded)
    torch.testing.assert_close(rest, decoder.hidden(whole)[0][:, 4:], atol=1e-5, rtol=1e-4)


def test_gradients_flow_through_the_past(decoder):
    _, past = decoder.hidden(ids(1, 4), keep_past=True)
    rest, _ = decoder.hidden(ids(1, 2, seed=1), past=past)
    rest.sum().backward()
    gradient = decoder.embedding.weight.grad
    assert gradient[ids(1, 4)[0]].abs().sum() > 0


def test_left_padding_with_mask_and_positions_changes_nothing(decoder):
    tokens = ids(1, 6)
    padded = torch.cat([ids(1, 3, seed=5), tokens], 1)
    real = torch.tensor([[False] * 3 + [True] * 6])
    mask = torch.ones(9, 9, dtype=torch.bool).tril()[None] & (real[:, None] | torch.eye(9, dtype=torch.bool))
    positions = (torch.arange(9) - 3).clamp(min=0)[None]
    hidden, _ = decoder.hidden(padded, mask_BTS=mask, positions_BT=positions)
    torch.testing.assert_close(hidden[:, 3:], decoder.hidden(tokens)[0], atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_weights_and_torch_is_left_alone():
    before = torch.get_rng_state()
    one, same, other = (Decoder(shape(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_an_untrained_decoder_is_nearly_undecided():
    decoder = Decoder(shape(width=128, feed_forward=256, vocab_size=500))
    entropy = torch.distributions.Categorical(logits=decoder(ids(4, 16))).entropy()
    assert entropy.mean() > 0.97 * math.log(500)


def test_weights_that_write_into_the_residual_stream_are_drawn_smaller():
    block = Decoder(shape(width=256, layers=8)).blocks[0]
    assert block.attention.query.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attention.output.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.feed_forward.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


def test_the_dial_sets_every_size():
    assert shape_for(6, 1000) == DecoderShape(1000, 384, 6, 6, 6, 1024, 512)
    assert shape_for("small", 1000, context=64) == shape_for(4, 1000, context=64)


def test_text_longer_than_the_context_is_refused():
    decoder = Decoder(shape(context=8))
    _, past = decoder.hidden(ids(1, 6), keep_past=True)
    with pytest.raises(ContextTooLong, match=r"9 tokens do not fit a decoder made for a context of 8"):
        decoder.hidden(ids(1, 3), past=past)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "must be at least 1"),
        ({"width": 36, "heads": 4}, "multiple of twice its heads"),
        ({"kv_heads": 3}, "kv_heads must divide heads. Got 3 and 4"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        shape(**changes)


def test_unknown_sizes_are_refused():
    with pytest.raises(RecipeError, match="'huge' is no size of a decoder"):
        shape_for("huge", 100)
    with pytest.raises(RecipeError, match=r"depth must be at least 1. Got 0"):
        shape_for(0, 100)
