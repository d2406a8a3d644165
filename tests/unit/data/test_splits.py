"""The split: frozen, stratified, without leaks."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data.duplicates import comparable_texts, near_matches, normalise
from tailorbird.data.formats import read_examples
from tailorbird.data.row_shapes import examples_of
from tailorbird.data.splits import split
from tailorbird.data.task import Task
from tailorbird.errors import DataError
from tailorbird.records import Example, content_hash

TOPICS = """apples bridges candles dragons engines forests glaciers harbours islands jungles""".split()  # noqa: SIM905
VERBS = ["paint", "sell", "count", "describe", "borrow", "polish", "measure"]


def classified(per_label=10, labels=("yes", "no", "maybe")):
    """Distinct prompts under each label."""
    rng = random.Random(0)
    return [
        Example.pair(
            f"{rng.choice(VERBS)} {rng.getrandbits(60):x} {TOPICS[i % 10]} {rng.getrandbits(60):x}", label
        )
        for label in labels
        for i in range(per_label)
    ]


def parts(splits):
    return splits.train, splits.dev, splits.test


def ids(examples):
    return [e.id for e in examples]


rows = st.lists(
    st.builds(
        Example.pair,
        st.text("abcde ", min_size=1, max_size=14),
        st.sampled_from(["x", "y", "a longer answer"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(rows, st.randoms(), st.integers(0, 3))
def test_any_split_is_whole_disjoint_leakless_and_independent_of_order(examples, rng, seed):
    try:
        splits = split(examples, seed=seed)
    except DataError as error:
        assert "Add at least" in str(error) or "No example is left" in str(error)  # noqa: PT017
        return
    shuffled = examples.copy()
    rng.shuffle(shuffled)
    assert [ids(p) for p in parts(split(shuffled, seed=seed))] == [ids(p) for p in parts(splits)]
    assert all(parts(splits))
    everything = [e.id for p in parts(splits) for e in p]
    assert len(everything) == len(set(everything))
    assert len(everything) + len(splits.removed) == len(examples)
    assert set(everything) | {r.example.id for r in splits.removed} == set(ids(examples))
    texts = iter(comparable_texts([e for p in parts(splits) for e in p]))
    train, dev, test = ([next(texts) for _ in p] for p in parts(splits))
    assert not near_matches(test, train + dev)
    assert not near_matches(dev, train)


def test_the_shares_are_kept_and_labels_are_stratified():
    splits = split(classified(50))
    assert [len(p) for p in parts(splits)] == [90, 30, 30]
    assert Counter(e.completion for e in splits.test) == {"yes": 10, "no": 10, "maybe": 10}
    assert splits.notes == ()


def test_another_seed_gives_another_split():
    examples = classified()
    assert split(examples).fingerprint == split(examples[::-1]).fingerprint
    assert split(examples).fingerprint != split(examples, seed=1).fingerprint
    assert len(split(examples).fingerprint) == 16


def test_the_fingerprint_is_pinned():
    # if this changes, everybody's frozen splits have changed
    examples = [Example.pair(f"{topic} in {verb}", verb) for topic in TOPICS for verb in VERBS[:3]]
    assert split(examples).fingerprint == "1b028d2609592bb8"


def test_of_exact_duplicates_one_is_kept():
    examples = classified()
    copy = Example.pair(examples[0].prompt.upper() + " ?", examples[0].completion, line=99)
    splits = split([*examples, copy, examples[1]])
    assert sorted(r.reason for r in splits.removed) == ["duplicate", "duplicate"]
    assert {normalise(r.example.prompt) for r in splits.removed} == {
        normalise(e.prompt) for e in examples[:2]
    }
    assert splits.notes == ("2 exact duplicates of another row left out.",)


def test_near_duplicates_stay_together():
    near = [
        Example.pair(f"my new debit card has still not arrived in the post{end}", "yes")
        for end in ("", " yet", " ok")
    ]
    for seed in range(10):
        splits = split(classified() + near, seed=seed)
        homes = {name for name, part in zip("abc", parts(splits), strict=True) for e in part if e in near}
        assert len(homes) == 1
        assert [set(group) for group in splits.near_groups] == [set(ids(near))]
        assert "1 group of near-duplicates kept together in one part each." in splits.notes


def test_contradicting_examples_and_their_near_duplicates_are_in_train_only():
    clash = [Example.pair("is the opening hour nine o'clock on Mondays", label) for label in ("yes", "no")]
    near = Example.pair("is the opening hour nine o'clock on Mondays ok", "yes")
    for seed in range(10):
        splits = split([*classified(), *clash, near], seed=seed)
        assert {*clash, near} <= set(splits.train)
        assert [set(group) for group in splits.conflicts] == [set(ids(clash))]
        assert "1 prompt with contradicting completions kept in train only." in splits.notes


def test_every_label_keeps_a_training_example():
    rare = [Example.pair(f"{VERBS[i]} {TOPICS[i]}", f"rare{i % 3}") for i in range(4)]
    for seed in range(5):
        splits = split(classified(40) + rare, seed=seed, dev=0.4, test=0.4)
        assert {e.completion for e in splits.train} == {"yes", "no", "maybe", "rare0", "rare1", "rare2"}


@pytest.mark.parametrize(("count", "sizes"), [(3, [1, 1, 1]), (5, [3, 1, 1]), (10, [6, 2, 2])])
def test_small_sets_have_at_least_one_in_each_part(count, sizes):
    examples = [Example.pair(topic, verb) for topic, verb in zip(TOPICS, VERBS * 2, strict=False)][:count]
    assert [len(p) for p in parts(split(examples))] == sizes


def test_too_few_examples_say_how_many_are_needed():
    two = [Example.pair("apples", "x"), Example.pair("bridges", "y")]
    with pytest.raises(DataError, match=r"2 examples cannot be split into 3 parts.*Add at least 1 more"):
        split(two)
    with pytest.raises(DataError, match=r"\(4 rows, of which 2 repeat another\)"):
        split(two * 2)
    with pytest.raises(DataError, match=r"There are no examples to split\."):
        split([])
    assert [len(p) for p in parts(split(two, dev=0))] == [1, 0, 1]


def test_a_set_of_nothing_but_contradictions_is_refused():
    examples = [Example.pair(topic, label) for topic in TOPICS for label in ("yes", "no")]
    with pytest.raises(DataError, match="No example is left for test: all prompts contradict"):
        split(examples)


@pytest.mark.parametrize("shares", [{"dev": -0.1}, {"test": 1.0}, {"dev": 0.5, "test": 0.5}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(DataError, match="are no shares"):
        split(classified(), **shares)


def test_impossible_limits_are_refused():
    with pytest.raises(DataError, match="limit_test=0 leaves nothing"):
        split(classified(), limit_test=0)


def test_limits_are_stratified_subsets_and_return_the_rest_to_train():
    examples = classified(50)
    full, capped = split(examples), split(examples, limit_dev=9, limit_test=6)
    assert [len(p) for p in parts(capped)] == [135, 9, 6]
    assert set(capped.test) < set(full.test)
    assert Counter(e.completion for e in capped.test) == {"yes": 2, "no": 2, "maybe": 2}
    assert capped.removed == ()


def test_train_examples_that_equal_or_resemble_a_given_test_example_are_removed():
    examples = classified(20)
    tail = Example.pair(examples[1].prompt + "s", examples[1].completion)
    test = [Example.pair(examples[0].prompt + "?", "yes"), tail, Example.pair("quite another thing", "no")]
    splits = split(examples, test_examples=test)
    assert set(splits.test) == set(test)
    assert {(r.example.id, r.reason, r.of) for r in splits.removed} == {
        (examples[0].id, "in_test", test[0].id),
        (examples[1].id, "near_test", tail.id),
    }
    assert not {examples[0], examples[1]} & {*splits.train, *splits.dev}
    assert len(splits.dev) == round(0.2 * 58)


def test_a_given_test_set_beyond_its_limit_is_not_trained_on():
    examples = classified(20)
    splits = split(examples[:30], test_examples=examples[30:], limit_test=6)
    assert len(splits.test) == 6
    assert Counter(r.reason for r in splits.removed)["over_limit"] == 24
    assert not set(examples[30:]) & {*splits.train, *splits.dev}


def test_repeated_rows_of_a_given_test_set_count_once():
    examples = classified(20)
    splits = split(examples[:30], test_examples=[*examples[30:], examples[30]])
    assert len(splits.test) == 30
    assert [r.reason for r in splits.removed] == ["duplicate"]
    with pytest.raises(DataError, match="The test file has no examples"):
        split(examples, test_examples=[])


def test_splits_become_data(tmp_path):
    splits = split(classified())
    data = splits.data(Task("classify", "Say.", ("yes",)), tmp_path)
    assert (data.train, data.dev, data.test, data.documents) == (*parts(splits), tmp_path)


SAMPLE = Path(__file__).resolve().parents[3] / "sample"


@pytest.mark.parametrize(
    ("name", "settings", "fingerprint", "order"),
    [
        ("tickets", {}, "0c8a581099fc1502", "b7e748be5d44887b"),
        ("tickets", {"seed": 3, "limit_test": 60}, "3311b12b5425e118", "5bc41abf22225fde"),
        ("questions", {}, "c4cc97dcad420cb2", "108deafe91cbb9da"),
        ("questions", {"seed": 3, "limit_test": 60}, "9e1e6dcda6983489", "87d4679680e18940"),
    ],
)
def test_the_sample_files_are_split_as_ever(name, settings, fingerprint, order):
    # the hashes were taken before splits were made from places in a file
    splits = split(read_examples(SAMPLE / f"{name}.jsonl"), **settings)
    assert splits.fingerprint == fingerprint
    assert content_hash([ids(part) for part in parts(splits)]) == order


def conversation(line, *turns):
    """The examples of a row whose every answer is learnt; turns alternate between the user and the assistant."""
    messages = [
        {"role": role, "content": text, **({"weight": 1} if role == "assistant" else {})}
        for role, text in zip(itertools.cycle(["user", "assistant"]), turns, strict=False)
    ]
    return examples_of({"messages": messages}, "x.jsonl", line)


def test_all_examples_of_a_row_stay_in_one_part():
    rng = random.Random(1)
    rows = [
        conversation(line, *(f"{rng.getrandbits(90):x} {rng.getrandbits(90):x}" for _ in range(6)))
        for line in range(1, 31)
    ]
    for seed in range(5):
        splits = split([example for row in rows for example in row], seed=seed)
        homes = {}
        for name, part in zip("abc", parts(splits), strict=True):
            for example in part:
                homes.setdefault(example.line, set()).add(name)
        assert len(homes) == 30
        assert all(len(home) == 1 for home in homes.values())
        assert all(parts(splits))


def test_rows_that_share_an_example_stay_together_in_any_order():
    rng = random.Random(2)
    a, b, c, d, e, f = (f"{rng.getrandbits(99):x} {rng.getrandbits(99):x}" for _ in range(6))
    first, second = conversation(1, a, b, c, d), conversation(2, a, b, e, f)
    assert first[0].id == second[0].id
    rest = classified()
    for seed in range(10):
        for examples in ([*first, *second, *rest], [*rest, *second, *first]):
            splits = split(examples, seed=seed)
            mine = {first[1].id, second[1].id, first[0].id}
            assert [n for n in (len(mine & set(ids(part))) for part in parts(splits)) if n] == [3]


def test_a_weight_or_a_rejected_answer_makes_another_example_and_the_usual_ones_keep_their_id():
    plain = Example.pair("p", "c")
    assert plain.id == content_hash([[["user", "p"]], "c"])
    assert Example.pair("p", "c", weight=1).id == plain.id
    others = [
        Example.pair("p", "c", weight=0.5),
        Example.pair("p", "c", weight=0),
        Example.pair("p", "c", rejected="d"),
        Example.pair("p", "c", rejected="e"),
    ]
    assert len({plain.id, *(e.id for e in others)}) == 5


def test_of_preferences_with_one_better_answer_each_worse_one_is_kept():
    rows = [
        Example.pair("one prompt of many words", "good", rejected=worse) for worse in ("bad", "worse", "bad ")
    ]
    splits = split([*classified(), *rows])
    assert {e.rejected for part in parts(splits) for e in part} == {None, "bad", "worse"}
    assert [r.reason for r in splits.removed] == ["duplicate"]


def written(example):
    return replace(example, synthetic=True)


def test_synthetic_examples_never_leave_train_and_count_for_no_share():
    real = classified()
    made = [written(Example.pair(f"{i} {random.Random(i).getrandbits(99):x}", "card")) for i in range(200)]
    splits = split([*real, *made], dev=0.2, test=0.2)
    assert not [e for part in (splits.dev, splits.test) for e in part if e.synthetic]
    assert {e.id for e in made} <= set(ids(splits.train))
    assert "200 synthetic examples kept in train only." in splits.notes
    alone = split(real, dev=0.2, test=0.2)
    assert len(splits.test) == len(alone.test)
    assert len(splits.dev) == len(alone.dev)


def test_of_a_real_and_an_equal_synthetic_example_the_real_one_is_kept():
    real = classified()
    for examples in ([*real, *map(written, real)], [*map(written, real), *real]):
        splits = split(examples)
        assert not [e for part in parts(splits) for e in part if e.synthetic]
        assert splits.num_removed["duplicate"] == len(real)


def test_what_nearly_repeats_a_synthetic_example_stays_in_train():
    words = "how long do we keep the backups of the shared drive in the storage box at the shop"
    close = Example.pair(f"{words}?", "35 days")
    for seed in range(6):
        splits = split(
            [*classified(), close, written(Example.pair(f"{words} please?", "35 days"))], seed=seed
        )
        assert close.id in ids(splits.train)


def test_synthetic_examples_measure_nothing():
    made = list(map(written, classified()))
    with pytest.raises(DataError, match=r"All \d+ examples are synthetic, and those never measure anything"):
        split(made)
    with pytest.raises(DataError, match=r"The test file has \d+ synthetic examples.*Take them out"):
        split(classified(), test_examples=made)
    splits = split(made, dev=0.0, test_examples=[Example.pair("Where is my parcel from abroad?", "parcel")])
    assert len(splits.train) == len(made)
