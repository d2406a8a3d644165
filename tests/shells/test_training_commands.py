"""Training by the command itself, on a tiny model: what is said before, kept after, and when interrupted."""

import hashlib
import json
import os
import signal

import pytest
from command_line import environment, start, tailor, write_tickets
from forked import run

RECIPE = """
base = "tiny"
steps = [{ technique = "fine_tune", epochs = 20, patience = 99, max_dev = 4, rank = 4 }]
"""
CUSTOMIZE = ("customize", "--recipe", "recipe.toml", "--examples", "tickets.jsonl", "--name")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with a tiny base and a model trained without any disturbance."""
    from tailorbird.testing.tiny import tiny_model

    folder = tmp_path_factory.mktemp("training")
    write_tickets(folder / "tickets.jsonl", per_label=4)
    (folder / "recipe.toml").write_text(RECIPE)
    tiny_model(context=2048).engine.save(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    return tailor(*CUSTOMIZE, "undisturbed", folder=folder)


def model(folder, name):
    return folder / ".tailorbird" / "models" / name


def weights(folder, name):
    return hashlib.sha256(
        (model(folder, name) / "adapter" / "adapter_model.safetensors").read_bytes()
    ).hexdigest()


def test_what_training_takes_is_said_before_and_the_page_is_named_after(folder, undisturbed):
    code, out, err = undisturbed
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("[1/1] undisturbed: fine_tune takes about ")
    assert "up to " in lines[0]
    page = model(folder, "undisturbed") / "training.html"
    assert f"How it was trained: {page.relative_to(folder)}" in out
    assert "What was forgotten" in page.read_text()
    code, out, _ = tailor("models", "show", "undisturbed", folder=folder)
    assert f"training {page.relative_to(folder)}" in out
    code, out, _ = tailor("models", "show", "undisturbed", "--json", folder=folder)
    assert json.loads(out)["report"] == str(page.relative_to(folder))


def test_the_model_keeps_every_step_and_what_was_measured_beside_the_estimate(folder, undisturbed):
    record = json.loads((model(folder, "undisturbed") / "training.json").read_text())
    [training] = record["trainings"]
    assert training["estimate"]["tokens"] == training["measured"]["tokens"]
    assert record["general"]["text"] == "shipped with Tailorbird"
    steps = (model(folder, "undisturbed") / training["metrics"]).read_text().splitlines()[1:]
    assert [json.loads(line)["step"] for line in steps] == list(range(1, training["measured"]["steps"] + 1))
    hashed = json.loads((model(folder, "undisturbed") / "model.json").read_text())["sha256"]
    assert {"training.json", "training.html", training["metrics"]} <= set(hashed)


def test_a_plan_says_what_training_would_take_and_makes_nothing(folder):
    code, out, err = tailor(*CUSTOMIZE, "planned", "--plan", folder=folder)
    assert code == 0, err
    assert out.startswith("planned: fine_tune takes about ")
    assert not model(folder, "planned").exists()
    code, out, err = tailor(*CUSTOMIZE, "planned", "--plan", "--json", folder=folder)
    assert json.loads(out)["planned"][0]["steps"] == 40
    assert "planned: fine_tune takes about " in err
    plan = (
        "customize",
        "--steps",
        "few_shot",
        "--examples",
        "tickets.jsonl",
        "--base",
        "tiny",
        "--name",
        "p",
        "--plan",
    )
    assert tailor(*plan, folder=folder)[:2] == (0, "Nothing would be trained.\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on_and_ends_the_same(folder, undisturbed, number):
    name = f"stopped_by_{number.name}"
    process = start((*CUSTOMIZE, name), folder)
    metrics = (
        folder / ".tailorbird" / "models" / f".making-{name}" / "checkpoints" / name / "0" / "metrics.jsonl"
    )
    while process.poll() is None:
        if metrics.is_file() and len(metrics.read_text().splitlines()) > 4:
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert "Stopping after this step." in err
    assert "Stopped. The same command continues where this one stopped." in err
    assert "Traceback" not in err
    done = len(metrics.read_text().splitlines()) - 1
    assert 4 <= done < 40
    assert not model(folder, name).exists()
    [kept] = {path.name.split("-")[1] for path in metrics.parent.glob("*-*")}
    assert int(kept) == done

    code, _, err = tailor(*CUSTOMIZE, name, folder=folder)
    assert code == 0, err
    assert weights(folder, name) == weights(folder, "undisturbed")
    place = json.loads((model(folder, name) / "training.json").read_text())["trainings"][0]["metrics"]
    losses = [
        [json.loads(line)["loss"] for line in (model(folder, which) / place).read_text().splitlines()[1:]]
        for which in (name, "undisturbed")
    ]
    assert losses[0] == losses[1]


def test_the_check_can_be_left_out_or_made_on_a_text_of_ones_own(folder):
    quick = (
        "customize",
        "--steps",
        "fine_tune",
        "--examples",
        "tickets.jsonl",
        "--base",
        "tiny",
        "--replace",
    )
    (folder / "own.txt").write_text("The shop opens at ten and closes at six.\n" * 20)
    code, _, err = tailor(*quick, "--name", "own", "--general-text", "own.txt", folder=folder)
    assert code == 0, err
    general = json.loads((model(folder, "own") / "training.json").read_text())["general"]
    assert (general["text"], general["text_bytes"]) == ("own.txt", 820)
    assert general["before"]["perplexity"] > 0
    code, _, err = tailor(*quick, "--name", "unchecked", "--no-general-check", folder=folder)
    assert code == 0, err
    assert json.loads((model(folder, "unchecked") / "training.json").read_text())["general"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--general-text", "nowhere.txt"], "nowhere.txt: it cannot be read"),
        (["--general-text", "binary.txt"], "binary.txt: not UTF-8 text"),
        (["--general-text", "empty.txt"], "empty.txt: it is empty"),
        (["--track", "excel"], "tracker 'excel' is unknown. Known: tensorboard, wandb, mlflow"),
        (["--track", ","], "names no tracker"),
    ],
)
def test_what_cannot_be_used_is_said_before_training(folder, options, message):
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.txt").write_text("\n")
    code, out, err = tailor(*CUSTOMIZE, "refused", *options, folder=folder)
    assert code == 2
    assert message in err
    assert "takes about" not in out


def test_a_training_is_tracked_by_tensorboard(folder):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    code, _, err = tailor(
        *CUSTOMIZE, "tracked", "--track", "tensorboard", "--no-general-check", folder=folder
    )
    assert code == 0, err
    place = folder / ".tailorbird" / "tracking" / "tensorboard" / "tracked-tracked" / "fine_tune"
    assert list(place.glob("events.out.tfevents.*"))


def test_training_that_cannot_fit_is_refused_with_what_would(folder):
    huge = 'base = "tiny"\nsteps = [{ technique = "fine_tune", rank = 512 }]\n'
    (folder / "huge.toml").write_text(huge)
    # As in a machine of very little memory.
    program = (
        "import tailorbird.network.estimate as e; e.available_bytes = lambda device: 9_000_000\n"
        "from tailorbird.cli.main import main; main()"
    )
    arguments = ["customize", "--recipe", "huge.toml", "--examples", "tickets.jsonl", "--name", "huge"]
    code, _, err = run(program, *arguments, folder=folder, environment=environment())
    assert code == 2
    assert "Error: fine_tune: training needs about" in err
    assert "What would fit:" in err
    assert "rank = " in err


def test_preferences_are_learnt_by_a_recipe_and_the_estimate_counts_the_question_before(folder):
    rows = [json.loads(line) for line in (folder / "tickets.jsonl").read_text().splitlines()]
    labels = sorted({row["completion"] for row in rows})
    paired = [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": next(label for label in labels if label != row["completion"]),
        }
        for row in rows
    ]
    (folder / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in paired))
    (folder / "dpo.toml").write_text(
        'base = "tiny"\nsteps = ["fine_tune"]\n[fine_tune]\nobjective = "dpo"\nrank = 4\nmax_dev = 4\n'
    )
    given = ("customize", "--recipe", "dpo.toml", "--examples")
    code, out, err = tailor(*given, "preferences.jsonl", "--name", "preferring", folder=folder)
    assert code == 0, err
    assert "to ask the model as it is about the preferences" in out
    [training] = json.loads((model(folder, "preferring") / "training.json").read_text())["trainings"]
    steps = (model(folder, "preferring") / training["metrics"]).read_text().splitlines()[1:]
    assert all("reward_margin" in json.loads(line) for line in steps)
    assert "Reward margin" in (model(folder, "preferring") / "training.html").read_text()
    code, _, err = tailor(*given, "tickets.jsonl", "--name", "none", folder=folder)
    assert code == 2
    assert "no rejected answer, and so in " in err
