import numpy as np
import pytest

from tailorbird.evaluation.ablation import ablated
from tailorbird.evaluation.statistics import paired_interval

WHOLE, REST = np.repeat([1.0, 0.0], [80, 20]), np.repeat([1.0, 0.0], [68, 32])


def test_the_difference_is_that_of_the_paired_interval():
    found = ablated("few_shot+fine_tune", "fine_tune", WHOLE, REST, taken_from="few_shot")
    wanted = paired_interval(REST, WHOLE)
    assert (found.difference, found.low, found.high) == (wanted.mean, wanted.low, wanted.high)
    assert found.sentence.startswith("few_shot+fine_tune without fine_tune: −12.0 points (−")
    assert found.sentence.endswith(").")
    assert (found.score, found.taken_from) == (0.68, "few_shot")
    assert found.to_json()["without"] == "fine_tune"


def test_a_part_that_makes_no_difference_is_said_so():
    assert "so it can't be told apart." in ablated("a", "part", WHOLE, WHOLE).sentence


def test_examples_of_one_document_widen_the_interval():
    groups = [f"document {n // 10}" for n in range(100)]
    alone, together = ablated("a", "b", WHOLE, REST), ablated("a", "b", WHOLE, REST, groups=groups)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_scores_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="Paired scores need the same examples"):
        ablated("a", "b", WHOLE, REST[:-1])
