import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.evaluation.passage_overlap import overlap

SPANS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 10)).map(
        lambda s: (s[0], s[1], s[1] + s[2])
    ),
    max_size=5,
)


def places(spans):
    return [(name, i) for name, start, end in spans for i in range(start, end)]


@given(SPANS, SPANS.filter(bool))
def test_overlap_counts_characters_as_its_definition_does(passages, answers):
    found = overlap(passages, answers)
    wanted, read = set(places(answers)), places(passages)
    shared = len(wanted & set(read))
    assert found.recall == pytest.approx(shared / len(wanted))
    assert found.precision == pytest.approx(shared / len(read) if read else 0)
    assert found.iou == pytest.approx(shared / (len(wanted) + len(read) - shared))


def test_what_two_passages_hold_is_read_twice_and_found_once():
    found = overlap([("a", 0, 10), ("a", 5, 15)], [("a", 5, 10)])
    assert (found.recall, found.precision, found.iou) == (1, 5 / 20, 5 / 20)


def test_an_overlap_needs_an_answer():
    with pytest.raises(ValueError, match="needs an answer with characters; got"):
        overlap([("a", 0, 10)], [])
