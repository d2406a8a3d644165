"""`tailor customize --processes 2`, and the same under torchrun, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import environment, start, tailor, write_tickets
from safetensors.torch import load_file

RECIPE = """
base = "tiny"
steps = [{ technique = "fine_tune", epochs = 6, patience = 99, max_dev = 8, rank = 4, precision = "float32" }]
"""
CUSTOMIZE = ("customize", "--recipe", "recipe.toml", "--examples", "tickets.jsonl", "--no-general-check")
TWO = (*CUSTOMIZE, "--processes", "2", "--name")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and sessions are POSIX's")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tailorbird.testing.tiny import tiny_model

    folder = tmp_path_factory.mktemp("processes")
    write_tickets(folder / "tickets.jsonl", per_label=8)
    (folder / "recipe.toml").write_text(RECIPE)
    tiny_model(context=2048).engine.save(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def by_two(folder):
    return tailor(*TWO, "two", folder=folder)


def weights(folder, name):
    return load_file(folder / ".tailorbird" / "models" / name / "adapter" / "adapter_model.safetensors")


def losses(folder, name):
    [metrics] = (folder / ".tailorbird" / "models" / name).rglob("metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()[1:]]


@pytest.mark.slow
def test_two_processes_make_the_model_that_one_makes_and_one_of_them_tells(folder, by_two):
    code, out, err = by_two
    assert code == 0, err
    assert out.count("Made two: ") == out.count("fine_tune takes about ") == 1
    assert "rror" not in err
    assert tailor(*CUSTOMIZE, "--name", "one", folder=folder)[0] == 0
    assert losses(folder, "two") == pytest.approx(losses(folder, "one"), rel=1e-3)
    assert losses(folder, "two")[:3] == pytest.approx(losses(folder, "one")[:3], rel=1e-5)


def metrics_of(folder, name):
    """Where a training under way keeps its steps."""
    return (
        folder / ".tailorbird" / "models" / f".making-{name}" / "checkpoints" / name / "0" / "metrics.jsonl"
    )


def at_step(folder, name, step, process):
    """Waits until a training has done so many steps."""
    metrics = metrics_of(folder, name)
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > step):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_group_leaves_nobody_behind_and_the_same_command_ends_the_same(folder, by_two, number):
    name = f"stopped_by_{number.name}"
    process = start((*TWO, name), folder)
    at_step(folder, name, 4, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)  # ends once nobody holds the streams any more
    if number == signal.SIGINT:
        assert process.returncode == 130, err
        assert err.count("Stopped. The same command continues where this one stopped.") == 1
    assert tailor(*TWO, name, folder=folder)[0] == 0
    assert losses(folder, name) == losses(folder, "two")
    expected = weights(folder, "two")
    assert all((value == expected[key]).all() for key, value in weights(folder, name).items())


@pytest.mark.slow
def test_sharded_processes_make_the_model_that_one_makes_and_say_what_each_holds(folder, by_two):
    code, out, err = tailor(*TWO, "sharded", "--shard", folder=folder)
    assert code == 0, err
    assert "rror" not in err
    assert out.count("Made sharded: ") == 1
    assert "in each of 2 processes, which share the layers out" in out
    assert losses(folder, "sharded")[:3] == pytest.approx(losses(folder, "two")[:3], rel=1e-5)
    assert losses(folder, "sharded") == pytest.approx(losses(folder, "two"), rel=1e-3)
    code, out, err = tailor("ask", "sharded", "my parcel is late", folder=folder)
    assert code == 0, err


@pytest.mark.slow
def test_a_stopped_sharded_training_is_taken_up_by_one_whole_process(folder, by_two):
    process = start((*TWO, "resharded", "--shard"), folder)
    at_step(folder, "resharded", 4, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    done = len(metrics_of(folder, "resharded").read_text().splitlines()) - 1
    code, _, err = tailor(*CUSTOMIZE, "--name", "resharded", folder=folder)
    assert code == 0, err
    found = losses(folder, "resharded")
    assert done >= 4
    assert found == pytest.approx(losses(folder, "two"), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--name", "x", "--shard"),
            "--shard: the model's layers can be shared out between several processes only",
        ),
        (
            ("--processes", "2", "--name", "x", "--shard", "--plan"),
            "--plan counts for one process that holds the whole model",
        ),
    ],
)
def test_sharding_that_can_not_be_is_refused(folder, arguments, message):
    code, _, err = tailor(*CUSTOMIZE, *arguments, folder=folder)
    assert code == 2
    assert err.startswith("Error: ")
    assert message in err


@pytest.mark.slow
def test_steps_without_layers_are_not_sharded(folder):
    steps = ("customize", "--steps", "few_shot", "--examples", "tickets.jsonl", "--base", "tiny")
    code, _, err = tailor(*steps, "--processes", "2", "--shard", "--name", "x", folder=folder)
    assert code == 2
    assert "shard: of the steps ['few_shot'] none trains layers that could be shared out" in err


@pytest.mark.slow
def test_an_error_is_told_once_and_ends_all(folder):
    code, out, err = tailor(*TWO, "refused", "--base", "nowhere", folder=folder)
    assert code == 2
    assert err.startswith("Error: ")
    assert "nowhere" in err
    assert "Made" not in out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags"), [("sharded_by_torchrun", ("--shard",)), ("by_torchrun", ())])
def test_torchrun_makes_a_model_together(folder, by_two, name, flags):
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    program += ["--standalone", "-m", "tailorbird.cli", *CUSTOMIZE, "--name", name, *flags]
    ran = subprocess.run(
        program, cwd=folder, env=environment(), capture_output=True, text=True, timeout=150, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(f"Made {name}: ") == 1
    expected = losses(folder, "two")
    assert losses(folder, name) == (pytest.approx(expected, rel=1e-3) if flags else expected)


def test_another_number_than_torchruns_is_refused(folder):
    ran = subprocess.run(
        [sys.executable, "-m", "tailorbird.cli", *TWO, "x"],
        cwd=folder,
        env={**environment(), "WORLD_SIZE": "4", "RANK": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    assert "--processes 2: this command was started in 4 processes already" in ran.stderr
