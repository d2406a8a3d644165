"""A training killed at a random moment and started again ends as if it had never been killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_trainings_killed_at_random_moments_end_like_the_undisturbed_ones(tmp_path):
    # A process of its own: it forks, which one in which tests ran with threads must not.
    command = [sys.executable, BENCHMARKS / "kill_training.py", "--trials", "8", "--seed", "3"]
    done = subprocess.run(
        [*command, "--out", tmp_path, "--work", tmp_path / "work"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "kill_training.json").read_text())
    assert [t["training"] for t in found["trials"]] == list(found["undisturbed"]) * 2
    assert "all ended with the" in (tmp_path / "kill_training.md").read_text()
