import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tailorbird.network import branched_attention as module
from tailorbird.network.branched_attention import branched_attention
from tailorbird.network.packing import Pack, pack

lengths = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def test_a_pack_holds_the_shared_tokens_once_and_numbers_every_token_as_in_its_sequence():
    packed = pack([(7, 8, 1), (7, 8), (7, 8, 2, 3)], 2)
    assert packed.ids == (7, 8, 1, 2, 3)
    assert packed.positions == (0, 1, 2, 2, 3)
    assert packed.starts == (2, 3, 3)
    assert packed.rectangle.tolist() == [[2, 2], [3, 3], [3, 4]]
    assert packed.own_rows.tolist() == [0, 4, 5]


def test_lengths_that_do_not_add_up_are_a_defect():
    with pytest.raises(AssertionError):
        Pack((1, 2, 3), 1, (1,))


def attention_of_each(query_HND, key_KND, value_KND, packed):
    """Each sequence laid out whole and attended to by itself."""
    out_HND = torch.empty_like(query_HND)
    for start, length in zip(packed.starts, packed.lengths, strict=True):
        rows = [*range(packed.prefix), *range(start, start + length)]
        parts = [x[:, rows][None] for x in (query_HND, key_KND, value_KND)]
        whole = functional.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
        out_HND[:, rows] = whole[0]
    return out_HND


@pytest.mark.parametrize("written_out", [10**9, 0], ids=["written_out", "streamed"])
@given(prefix=st.integers(0, 6), lengths=lengths)
@settings(max_examples=40, deadline=None)
def test_every_branch_attends_to_the_prefix_and_to_itself_alone(written_out, prefix, lengths):
    count = prefix + sum(lengths)
    if not count:
        return
    packed = Pack(tuple(range(count)), prefix, tuple(lengths))
    generator = torch.Generator().manual_seed(count)
    query, key, value = (
        torch.randn(heads, count, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WRITTEN_OUT", written_out)
        found = branched_attention(query, key, value, packed, 8**-0.5)
        gradients = torch.autograd.grad(found.square().sum(), (query, key, value))
    expected = attention_of_each(query, key, value, packed)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients, torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True
    ):
        torch.testing.assert_close(one, other)
