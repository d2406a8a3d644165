"""A comparison killed at a random moment and run again ends as if it had never been killed."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_comparisons_killed_at_random_moments_end_like_the_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import kill_compare

    said = []
    result = kill_compare.measure(tmp_path, trials=3, seed=1, tell=said.append)
    assert len(result["trials"]) == 3
    assert result["compared"] > 20
    assert "| 3 |" in kill_compare.as_markdown(result)


def test_a_changed_answer_is_seen_as_a_difference(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import kill_compare

    rows = [{"text": "a", "seconds": 1.0, "asked": {"seconds": 2.0}}]
    plain = kill_compare._without_timings(rows)
    assert plain == [{"text": "a", "asked": {}}]
    assert kill_compare.differences({"x": plain, "y": 1}, {"x": [{"text": "b", "asked": {}}], "y": 1}) == [
        "x"
    ]
    assert kill_compare.differences({"x": 1}, {}) == ["x"]
