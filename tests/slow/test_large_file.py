"""A file of 2 GB is read, checked and split by a process that may not hold it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, resource, sys
from pathlib import Path
from tailorbird.data.formats import read_examples
from tailorbird.data.report import check
from tailorbird.data.splits import split

path = Path(sys.argv[1])
examples = read_examples(path)
splits = split(examples)
report = check(path)
status = Path("/proc/self/status")
if status.is_file():
    # Not ru_maxrss: in a process that a larger one has started it is at least that one's.
    [peak] = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "type": type(examples).__name__,
    "num_examples": len(examples),
    "last": [examples[-1].prompt[:20], examples[-1].line],
    "parts": [len(splits.train), len(splits.dev), len(splits.test)],
    "fingerprints": [splits.fingerprint, report.split.fingerprint],
    "notes": splits.notes,
    "num_leaking": report.split.num_leaking,
    "num_duplicates": report.num_duplicates,
    "trainable": report.trainable,
    "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
}))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_gigabytes_are_read_checked_and_split_within_one(tmp_path):
    if shutil.disk_usage(tmp_path).free < 6 * 2**30:
        pytest.skip("less than 6 GB of disk are free")
    path = tmp_path / "large.jsonl"
    num_rows = write_rows(path, size_bytes=2 * 2**30)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["peak_bytes"] < 2**30, said
    assert (said["type"], said["num_examples"]) == ("StoredExamples", num_rows)
    assert said["last"] == [f"{num_rows - 1}: ".ljust(20, "x")[:20], num_rows]
    assert said["num_duplicates"] == 1
    assert sum(said["parts"]) == num_rows - 1
    assert said["parts"][1:] == [round((num_rows - 1) * 0.2)] * 2
    assert len(set(said["fingerprints"])) == 1
    assert any("were not looked for" in note for note in said["notes"])
    assert said["num_leaking"] == 0
    assert said["trainable"]


def write_rows(path, size_bytes):
    """Rows of about 1.3 kB, each with a prompt of its own but the second, which repeats the first."""
    padding, written, number = "x" * 1000, 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size_bytes:
            own = 0 if number == 1 else number
            row = {"prompt": f"{own}: {padding}", "completion": f"answer {own} {'y' * 250}"}
            written += file.write(json.dumps(row) + "\n")
            number += 1
    return number
