"""Numbers and groups of equal entries, from which splits and counts of repetitions are made."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.data.keys import KeysBuilder, collect_keys, groups, numbered
from tailorbird.records import Example

columns = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30)


@settings(deadline=None)
@given(columns)
def test_numbers_ascend_with_the_first_appearance_and_are_equal_where_all_columns_are(rows):
    first, second = (np.array([row[i] for row in rows], dtype=np.uint64) for i in range(2))
    seen = {}
    expected = [seen.setdefault(row, len(seen)) for row in rows]
    assert numbered(first, second).tolist() == expected


@settings(deadline=None)
@given(columns)
def test_groups_are_of_two_or_more_ascending_in_the_order_of_their_first(rows):
    number = numbered(np.array([row[0] for row in rows], dtype=np.uint64))
    places = {}
    for i, (value, _) in enumerate(rows):
        places.setdefault(value, []).append(i)
    assert [g.tolist() for g in groups(number)] == [p for p in places.values() if len(p) > 1]


def test_completions_are_named_up_to_a_bound_and_then_only_counted_as_many():
    builder = KeysBuilder(most_names=2)
    for completion in ("a", "b", "a"):
        builder.add(Example.pair("x", completion))
    assert builder.keys().counts == {"a": 2, "b": 1}
    builder.add(Example.pair("x", "third"))
    keys = builder.keys()
    assert (keys.names, keys.counts, keys.longest, len(keys)) == (None, None, 5, 4)


def test_the_keys_of_nothing_are_empty():
    keys = collect_keys([])
    assert (len(keys), keys.counts) == (0, {})
    assert groups(numbered(keys.prompts)) == []


def test_ids_of_any_length_are_kept_to_the_letter():
    keys = collect_keys([Example.pair("p", "c", id="own"), Example.pair("p", "c", id="a longer id of é")])
    assert [keys.id(i) for i in range(2)] == ["own", "a longer id of é"]
