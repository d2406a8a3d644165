import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_training import SEQUENCES, SETTINGS, Stop, lose_newest, run, stop_after

from tailorbird.network.metrics_file import METRICS_FILE, MetricsFile, read_metrics
from tailorbird.network.settings import StepReport


def report(step, **rest):
    return StepReport(step, 9, 1.0 / step, 1e-3, 0.5, 10 * step, 0.1 * step, **rest)


def steps_in(folder):
    return [step["step"] for step in read_metrics(folder / METRICS_FILE)[1]]


def test_a_run_tells_what_it_is_and_then_every_step(tmp_path):
    _, result = run(checkpoint=tmp_path, dev_score=lambda: 0.5)
    first, steps = read_metrics(tmp_path / METRICS_FILE)
    assert first["total_steps"] == result.steps == 10
    assert first["num_sequences"] == len(SEQUENCES)
    assert first["settings"]["learning_rate"] == SETTINGS.learning_rate
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert tuple(step["loss"] for step in steps) == result.losses
    assert [step["step"] for step in steps if "score" in step] == [5, 10]
    last = steps[-1]
    assert (last["tokens"], last["shared_tokens"]) == (result.tokens, result.shared_tokens)
    assert last["epoch"] == 2.0
    assert last["seconds"] == pytest.approx(result.seconds)
    assert {"learning_rate", "gradient_norm"} <= set(last)


def test_a_run_taken_up_repeats_no_step_and_leaves_none_out(tmp_path):
    settings = replace(SETTINGS, checkpoint_every_steps=4)
    with pytest.raises(Stop):
        run(settings=settings, checkpoint=tmp_path, on_step=stop_after(7))
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    lose_newest(tmp_path)
    told = []
    _, result = run(settings=settings, checkpoint=tmp_path, on_step=lambda r: told.append(r.step))
    assert told[0] == 5
    _, steps = read_metrics(tmp_path / METRICS_FILE)
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert tuple(step["loss"] for step in steps) == result.losses


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {here!r})
from test_training import SETTINGS, run
def on_step(report):
    if report.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
settings = replace(SETTINGS, checkpoint_every_steps=4)
run(settings=settings, checkpoint=Path(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has kill -9")
def test_a_killed_process_leaves_no_doubled_and_no_missing_step(tmp_path):
    script = KILLED.format(here=str(Path(__file__).parent))
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert steps_in(tmp_path)[-1] == 6  # beyond the checkpoint, which is of step 4
    run(settings=replace(SETTINGS, checkpoint_every_steps=4), checkpoint=tmp_path)
    assert steps_in(tmp_path) == list(range(1, 11))


def test_a_file_of_another_run_is_begun_anew(tmp_path):
    run(checkpoint=tmp_path)
    run(checkpoint=tmp_path, settings=replace(SETTINGS, learning_rate=2e-2))
    first, steps = read_metrics(tmp_path / METRICS_FILE)
    assert first["settings"]["learning_rate"] == 2e-2
    assert len(steps) == 10


def test_a_line_torn_in_the_middle_is_written_again(tmp_path):
    path = tmp_path / METRICS_FILE
    told = MetricsFile(path, {"run": "a"})
    told.take_up(0)
    told.add(report(1))
    told.add(report(2))
    told.close()
    path.write_bytes(path.read_bytes()[:-7])
    assert [step["step"] for step in read_metrics(path)[1]] == [1]
    again = MetricsFile(path, {"run": "a"})
    again.take_up(2)
    again.add(report(2, score=0.5))
    again.close()
    assert [(step["step"], step.get("score")) for step in read_metrics(path)[1]] == [(1, None), (2, 0.5)]
