import itertools
import json
import random
from collections import Counter

import pytest

from tailorbird.data import stored_examples
from tailorbird.data.formats import read_examples
from tailorbird.data.keys import is_on_disk
from tailorbird.data.subsets import nested_subset
from tailorbird.records import Example

LABELS = {"a": 40, "b": 20, "c": 4, "d": 1}


def rows():
    found = [Example.pair(f"{label} {n}", label) for label, count in LABELS.items() for n in range(count)]
    random.Random(0).shuffle(found)
    return found


@pytest.mark.parametrize("draw", range(5))
def test_each_share_holds_every_label_in_proportion(draw):
    for share in (0.25, 0.5, 0.75):
        found = nested_subset(rows(), share, draw=draw)
        counts = Counter(example.completion for example in found)
        assert len(found) == int(share * 65 + 0.5)
        assert all(abs(counts[label] - share * count) <= 1 for label, count in LABELS.items())


def test_smaller_shares_of_a_draw_lie_inside_larger_ones():
    whole = rows()
    parts = [nested_subset(whole, share, seed=3, draw=1) for share in (0.1, 0.25, 0.5, 1.0)]
    for smaller, larger in itertools.pairwise(parts):
        assert {e.id for e in smaller} < {e.id for e in larger}
    assert list(parts[-1]) == whole


def test_the_same_seed_and_draw_give_the_same_examples_in_whatever_order_they_stand():
    whole = rows()
    turned = whole[::-1]
    assert {e.id for e in nested_subset(whole, 0.3)} == {e.id for e in nested_subset(turned, 0.3)}
    assert [e for e in whole if e in nested_subset(turned, 0.3)] == list(nested_subset(whole, 0.3))


def test_other_draws_and_seeds_give_other_examples():
    found = [
        {e.id for e in nested_subset(rows(), 0.5, seed=seed, draw=draw)} for seed in (0, 1) for draw in (0, 1)
    ]
    assert all(a != b for i, a in enumerate(found) for b in found[i + 1 :])


def test_free_answers_are_drawn_without_regard_to_those_that_repeat():
    whole = [Example.pair(f"question {n}", "not there" if n < 30 else f"answer {n}") for n in range(100)]
    refusals = [
        sum(e.completion == "not there" for e in nested_subset(whole, 0.25, draw=draw)) for draw in range(40)
    ]
    assert 6 < sum(refusals) / 40 < 9


def test_examples_on_disk_stay_there(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_examples, "IN_MEMORY_BYTES", 0)
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": e.prompt, "completion": e.completion}) + "\n" for e in rows())
    )
    whole = read_examples(path)
    assert is_on_disk(whole)
    found = nested_subset(whole, 0.5)
    assert is_on_disk(found)
    assert [e.prompt for e in found] == [e.prompt for e in nested_subset(rows(), 0.5)]


def test_very_few_are_still_one():
    assert len(nested_subset(rows()[:3], 0.1)) == 1
    assert nested_subset([], 0.5) == ()


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match=f"share is {share}; expected above 0 and at most 1"):
        nested_subset(rows(), share)
