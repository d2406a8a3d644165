from functools import partial
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from written_kernel import Written

from tailorbird.network import branched_attention as module
from tailorbird.network import pack_attention as choice
from tailorbird.network.branched_attention import branched_attention
from tailorbird.network.packing import Pack, pack, pack_pairs

lengths = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def test_a_pack_holds_the_shared_tokens_once_and_numbers_every_token_as_in_its_sequence():
    packed = pack([(7, 8, 1), (7, 8), (7, 8, 2, 3)], 2)
    assert packed.ids == (7, 8, 1, 2, 3)
    assert packed.positions == (0, 1, 2, 2, 3)
    assert packed.starts == (2, 3, 3)
    rest = [2] * 6, [3] * 6, [3] * 6
    assert packed.rectangle.tolist() == [[2, 2, *rest[0]], [3, 3, *rest[1]], [3, 4, *rest[2]]]
    assert packed.own_rows.tolist() == [0, 16, 17]


def test_lengths_that_do_not_add_up_are_a_defect():
    with pytest.raises(AssertionError):
        Pack((1, 2, 3), 1, (1,))


def test_a_pair_stands_in_one_branch_and_its_second_sequence_does_not_see_the_first():
    packed = pack_pairs([(7, 8, 9, 1, 2), (7, 8, 9, 3), (7, 8, 4), (7, 8, 4, 5)], 2)
    assert packed.ids == (7, 8, 9, 1, 2, 3, 4, 5)
    assert packed.positions == (0, 1, 2, 3, 4, 3, 2, 3)
    assert (packed.lengths, packed.forks) == ((4, 2), ((1, 3), (1, 1)))
    assert packed.pieces[1] == ((0, 0), (2, 2), (3, 5))
    seen = [[not hidden for hidden in row] for row in packed.unseen[0].tolist()]
    assert [row[:4] for row in seen[:4]] == [[True] * 4, [True] * 4, [True] * 4, [True, False, False, True]]
    assert not packed.unseen[1].any()


def test_a_fork_outside_its_branch_is_a_defect():
    with pytest.raises(AssertionError):
        Pack((1, 2, 3), 1, (2,), ((1, 3),))


def rows_of_each(packed):
    """The rows of each sequence, in its order."""
    for number, (start, length) in enumerate(zip(packed.starts, packed.lengths, strict=True)):
        own, before = range(start, start + length), range(packed.prefix)
        first, end = packed.forks[number] if packed.forks else (length, length)
        yield [*before, *own[:end]]
        yield [*before, *own[:first], *own[end:]]


def attention_of_each(query_HND, key_KND, value_KND, packed):
    """Each sequence laid out whole and attended to by itself."""
    out_HND = torch.empty_like(query_HND)
    for rows in rows_of_each(packed):
        parts = [x[:, rows][None] for x in (query_HND, key_KND, value_KND)]
        whole = functional.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
        out_HND[:, rows] = whole[0]
    return out_HND


WAYS = {
    "written_out": (branched_attention, 10**9),
    "streamed": (branched_attention, 0),
    "merged": (partial(choice._by_calls, kernel=Written()), 0),
}


@pytest.mark.parametrize(("attend", "written_out"), WAYS.values(), ids=WAYS)
@given(prefix=st.integers(0, 6), lengths=lengths, draw=st.data())
@settings(max_examples=60, deadline=None)
def test_every_branch_attends_to_the_prefix_and_to_itself_alone(attend, written_out, prefix, lengths, draw):
    count = prefix + sum(lengths)
    if not count:
        return
    forks = ()
    if draw.draw(st.booleans()):
        ends = [draw.draw(st.integers(0, length)) for length in lengths]
        forks = tuple((draw.draw(st.integers(0, end)), end) for end in ends)
    packed = Pack(tuple(range(count)), prefix, tuple(lengths), forks)
    generator = torch.Generator().manual_seed(count)
    query, key, value = (
        torch.randn(heads, count, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WRITTEN_OUT", written_out)
        found = attend(query, key, value, packed, 8**-0.5)
        gradients = torch.autograd.grad(found.square().sum(), (query, key, value))
    expected = attention_of_each(query, key, value, packed)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients, torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.fixture
def untried():
    choice.flash_kernel.cache_clear()
    yield
    choice.flash_kernel.cache_clear()


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("agree", [False, RuntimeError("no such operator")], ids=["differs", "missing"])
def test_kernels_that_fail_when_tried_are_not_used_and_the_log_says_so(agree, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(choice, "_agree", Mock(side_effect=[agree, True, True]))
    assert choice.flash_kernel(torch.device("cuda"), torch.bfloat16, 4, 2, 64) is None
    expected = "with a prefix" if agree is False else "no such operator"
    assert f"({expected}): packs are padded instead" in caplog.text


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(
    ("device", "dtype", "width", "capability"),
    [
        ("cpu", torch.bfloat16, 64, (9, 0)),
        ("cuda", torch.float32, 64, (9, 0)),
        ("cuda", torch.bfloat16, 60, (9, 0)),
        ("cuda", torch.bfloat16, 512, (9, 0)),
        ("cuda", torch.bfloat16, 64, (7, 5)),
    ],
)
def test_where_flash_attention_cannot_run_it_is_not_tried(device, dtype, width, capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(choice, "_agree", Mock(side_effect=AssertionError))
    assert choice.flash_kernel(torch.device(device), dtype, 4, 2, width) is None


@pytest.mark.usefixtures("untried")
def test_where_it_can_its_kernels_can_be_tried(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(choice, "_agree", Mock(return_value=True))
    assert isinstance(choice.flash_kernel(torch.device("cuda"), torch.float16, 4, 2, 64), choice.Flash)
    assert not caplog.text


@pytest.mark.usefixtures("untried")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention runs on CUDA devices")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_flash_attention_gives_what_attention_gives(dtype, caplog):
    found = choice.flash_kernel(torch.device("cuda", 0), dtype, 9, 3, 64)
    able = torch.cuda.get_device_capability() >= choice.LEAST_CAPABILITY
    assert (found is not None) == able, caplog.text
