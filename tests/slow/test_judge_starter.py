"""The starter's real weights: how surprised they are at right answers, and what they say as a judge."""

import json

import pytest

import tailorbird

ROWS = [
    {"prompt": f"How much is {a} plus {b}?", "completion": f"It is {a + b}."}
    for a in range(2, 9)
    for b in range(2, 9)
]


@pytest.mark.slow
def test_the_starter_judges_and_is_measured(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked = {"judge": "starter", "judge_limit": 6, "limit_test": 8, "project": tmp_path}
    found = tailorbird.compare(tmp_path / "rows.jsonl", arms=["nearest", "base"], metric="chrf", **asked)
    base, judge = found.arm("base").secondary, found.judge
    assert 1.5 < base["perplexity"] < 1000
    assert 0 < base["bits_per_byte"] < 16
    assert "perplexity" not in found.arm("nearest").secondary
    assert (judge.failed, judge.unreadable) == ("", 0)  # labels are scored: it can name nothing else
    assert judge.asked > 0
    assert 0 <= judge.consistent <= 1
    assert judge.is_base
    again = tailorbird.compare(tmp_path / "rows.jsonl", arms=["nearest", "base"], metric="chrf", **asked)
    assert again.judge == judge
