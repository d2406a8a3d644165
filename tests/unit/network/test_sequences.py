import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.errors import DataError
from tailorbird.network.sequences import TokenSequence, blocks


def test_only_the_completion_carries_loss():
    sequence = TokenSequence((1, 2, 3), (4, 5))
    assert (sequence.inputs, sequence.first_label, sequence.num_labels) == ((1, 2, 3, 4), 3, 2)


def test_the_first_token_of_an_empty_prompt_cannot_be_predicted():
    assert TokenSequence((), (4, 5, 6)).num_labels == 2
    assert TokenSequence((), (4,)).num_labels == 0
    assert TokenSequence((), ()).num_labels == 0


def test_a_weight_of_zero_carries_no_loss():
    assert TokenSequence((1,), (2,), weight=0.0).num_labels == 0


def test_a_negative_weight_is_refused():
    with pytest.raises(DataError, match=r"weight must be at least 0. Got -1"):
        TokenSequence((1,), (2,), weight=-1)


@given(st.lists(st.integers(0, 70_000), max_size=50), st.integers(1, 9))
def test_blocks_predict_every_token_but_the_first_once_and_in_order(ids, context):
    cut = blocks(ids, context)
    predicted = [token for block in cut for token in block.completion[1:]]
    assert predicted == ids[1:]
    assert all(block.prompt == () and len(block.inputs) <= context for block in cut)
    assert all(block.num_labels for block in cut)


def test_bytes_are_token_ids_too():
    assert blocks(b"abcdef", 5)[0].completion == tuple(b"abcdef")


def test_blocks_can_be_sliced_and_indexed_from_the_end():
    cut = blocks(range(10), 3)
    assert len(cut) == 3
    assert cut[-1].completion == (6, 7, 8, 9)
    assert cut[1:] == [cut[1], cut[2]]
    with pytest.raises(IndexError):
        cut[3]


def test_a_context_below_one_is_refused():
    with pytest.raises(DataError, match=r"context must be at least 1 token. Got 0"):
        blocks([1], 0)
