from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tailorbird.network.batches import Batch, common_prefix, plan_epoch, split
from tailorbird.network.sequences import TokenSequence

rows = st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), min_size=1, max_size=6)


@given(rows)
def test_the_common_prefix_is_what_all_rows_begin_with(rows):
    length = common_prefix(rows)
    assert len({row[:length] for row in rows}) == 1
    assert min(map(len, rows)) == length or len({row[: length + 1] for row in rows}) > 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=200), st.integers(1, 20), st.integers(0, 3))
def test_an_epoch_holds_every_sequence_once_in_steps_of_nearly_equal_size(lengths, batch_size, epoch):
    steps = plan_epoch(lengths, batch_size, seed=1, epoch=epoch)
    assert sorted(index for step in steps for index in step) == list(range(len(lengths)))
    sizes = [len(step) for step in steps]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_the_plan_depends_on_seed_and_epoch_alone():
    lengths = [n % 7 for n in range(100)]
    plans = [plan_epoch(lengths, 8, seed=s, epoch=e) for s, e in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3]


def test_the_plan_is_the_same_on_every_machine():
    assert plan_epoch([1] * 6, 2, seed=0, epoch=0) == [[0, 5], [1, 4], [3, 2]]


def test_sequences_of_like_length_meet():
    lengths = [(n * 37) % 100 for n in range(400)]
    spread = [
        max(lengths[n] for n in step) - min(lengths[n] for n in step)
        for step in plan_epoch(lengths, 8, seed=0, epoch=0)
    ]
    assert sum(spread) / len(spread) < 20


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 100))
def test_batches_keep_to_the_budget_unless_a_single_sequence_exceeds_it(lengths, budget):
    sequences = [TokenSequence((n,), (1,) * length) for n, length in enumerate(lengths)]
    batches = split(sequences, budget, share=False)
    assert sorted(s.prompt for batch in batches for s in batch.sequences) == [
        (n,) for n in range(len(lengths))
    ]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * batch.longest <= budget


def test_a_shared_prefix_counts_once_against_the_budget():
    sequences = [TokenSequence((7,) * 20, (n, 1, 2)) for n in range(10)]
    assert len(split(sequences, 40, share=True)) == 1
    assert len(split(sequences, 40, share=False)) == 10


def test_a_batch_counts_its_tokens_and_weighted_labels():
    batch = Batch((TokenSequence((1, 2), (3,)), TokenSequence((1, 2, 4), (3, 5), weight=0.5)))
    assert (batch.prefix, batch.longest, batch.num_tokens, batch.num_labels) == (2, 4, 6, 2.0)


def sequence(*tokens):
    return TokenSequence(tokens, (1, 2))


def test_sequences_with_a_longer_prefix_of_their_own_go_together():
    metaprompt, other = tuple(range(100, 400)), tuple(range(500, 800))
    start = (3, 4, 5)
    step = [sequence(*start, *metaprompt, n) for n in range(6)] + [
        sequence(*start, *other, n) for n in range(2)
    ]
    found = split(step, 10**6, share=True)
    assert sorted(len(batch) for batch in found) == [2, 6]
    assert all(batch.prefix == 303 for batch in found)


def test_a_lone_sequence_does_not_cost_the_others_their_prefix():
    metaprompt = tuple(range(100, 400))
    step = [sequence(*metaprompt, n) for n in range(6)] + [sequence(*range(100, 130), *range(1000, 1270))]
    found = {len(batch): batch.prefix for batch in split(step, 10**6, share=True)}
    assert found[6] == 300
    assert found[1] > 0


def test_short_branches_are_not_worth_a_batch_of_their_own():
    step = [sequence(*range(20), branch, branch + 1, n) for branch in (50, 60) for n in range(3)]
    assert len(split(step, 10**6, share=True)) == 1


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40).map(tuple), min_size=1, max_size=12))
def test_grouping_loses_no_sequence_and_computes_no_more_tokens_than_one_batch(rows):
    step = [sequence(*row) for row in rows]
    found = split(step, 10**6, share=True)
    assert Counter(s for batch in found for s in batch.sequences) == Counter(step)

    def computed(batch):
        return batch.num_tokens - batch.prefix * (len(batch) - 1)

    assert sum(computed(batch) for batch in found) <= computed(Batch(tuple(step)))
