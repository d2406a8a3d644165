"""What more would buy, from a plan to the report: real arms on real messages, and a tiny model."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tailorbird.cli.main import run
from tailorbird.errors import RecipeError
from tailorbird.evaluation.arms import ArmFinished, ExtrasStarted
from tailorbird.evaluation.run_folder import load_run
from tailorbird.extras import leading_arms, learns_labels, other_seed, without_parts
from tailorbird.planning import described, make_plan
from tailorbird.recipe_file import RecipeFile, read_recipe_file
from tailorbird.wanted import Extras
from tailorbird.workbench import Flags, Workbench

SAMPLE = Path(__file__).resolve().parents[2] / "sample"
LABELS = ("orders", "workshop", "vouchers", "rental")
FLOORS = ["majority", "tfidf_linear", "nearest"]


def write_tickets(folder, per_label=25):
    lines = (SAMPLE / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [
        line
        for label in LABELS
        for line in [one for one in lines if json.loads(one)["completion"] == label][:per_label]
    ]
    (folder / "tickets.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return folder / "tickets.jsonl"


def flags(folder, **more):
    return Flags(examples=folder / "tickets.jsonl", **{"arms": FLOORS, **more})


def compared(folder, budget_s=None, **more):
    """The outcome of a comparison in a folder, and all events."""
    events, comparisons = [], Workbench(folder).comparisons
    plan = replace(comparisons.plan(flags(folder, **more)), budget_s=budget_s)
    return comparisons.run(plan, on_event=events.append), events


@pytest.fixture(scope="module")
def floors(tmp_path_factory):
    """A comparison of floors with all there is to measure beside it."""
    folder = tmp_path_factory.mktemp("floors")
    write_tickets(folder)
    outcome, events = compared(folder, curve=True, ablate=True, seeds=4)
    return folder, outcome, events


def test_the_leading_arms_are_measured_on_fewer_labels(floors):
    _, outcome, _ = floors
    extras = json.loads(outcome.json.read_text())["extras"]
    leading = {row["arm"] for row in extras["curve"]}
    assert leading == {"tfidf_linear", "nearest"}
    for row in extras["curve"]:
        assert [(p["num_labels"], p["num_models"]) for p in row["points"]] == [(15, 3), (30, 3), (60, 1)]
        assert row["points"][-1]["score"] == outcome.comparison.arm(row["arm"]).score
        assert row["more_labels"] == 50
        assert row["sentence"].startswith(f"{row['arm']}: ")
    [tfidf] = [row for row in extras["curve"] if row["arm"] == "tfidf_linear"]
    assert tfidf["points"][0]["score"] < tfidf["points"][-1]["score"]


def test_floors_have_no_training_seed_and_no_parts(floors):
    extras = floors[1].comparison.extras
    assert extras["ablation"] == []
    for row in extras["seeds"]:
        assert row["training"] is None
        assert len(row["examples"]["scores"]) == 4
        assert row["test"] > 0
    assert extras["notes"] == []


def test_what_two_questions_need_is_measured_once(floors):
    _, _, events = floors
    (started,) = [e for e in events if isinstance(e, ExtrasStarted)]
    assert sorted(started.names) == sorted(
        [
            *(f"{a}, 25 % of labels, draw {d}" for a in ("nearest", "tfidf_linear") for d in (1, 2, 3)),
            *(f"{a}, 50 % of labels, draw {d}" for a in ("nearest", "tfidf_linear") for d in (1, 2, 3, 4)),
        ]
    )
    finished = [e.arm for e in events if isinstance(e, ArmFinished)]
    assert finished == [*FLOORS, *started.names]


def test_the_verdict_is_the_one_without_them(floors, tmp_path):
    write_tickets(tmp_path)
    plain, _ = compared(tmp_path)
    assert plain.comparison.extras.keys() == {"break_even"}
    with_extras, without = floors[1].comparison.to_json(), plain.comparison.to_json()
    assert with_extras["verdict"] == without["verdict"]
    assert [(a["name"], a["score"]) for a in with_extras["arms"]] == [
        (a["name"], a["score"]) for a in without["arms"]
    ]


def test_a_second_run_takes_everything_over_and_says_the_same(floors):
    folder, first, _ = floors
    again, events = compared(folder, curve=True, ablate=True, seeds=4)
    assert all(e.reused for e in events if isinstance(e, ArmFinished))
    assert again.comparison.extras == first.comparison.extras


def test_the_run_reads_back_with_them_and_its_page_shows_them(floors):
    _, outcome, _ = floors
    assert load_run(outcome.folder).extras == json.loads(json.dumps(outcome.comparison.extras))
    page = outcome.report.read_text()
    assert "What more would buy" in page
    assert "More labels: tfidf_linear" in page


def test_models_that_have_answered_are_deleted_and_their_answers_stay(floors):
    _, outcome, _ = floors
    assert list((outcome.folder / "extras" / "models").glob("[!.]*")) == []
    assert len(list((outcome.folder / "extras" / "arms").glob("[!.]*"))) == 14
    assert {f.name for f in (outcome.folder / "models").glob("[!.]*")} == set(FLOORS)


def test_the_same_models_can_still_be_asked_by_name(floors):
    ids = [info.id for info in Workbench(floors[0]).models()]
    assert ids == ["winner", *sorted(FLOORS), "starter"]


def test_no_measurement_is_started_when_the_time_is_used_up_and_the_next_run_goes_on(tmp_path):
    write_tickets(tmp_path)
    compared(tmp_path)
    late, events = compared(tmp_path, budget_s=0.0, curve=True)
    assert [row["kind"] for row in late.comparison.extras["curve"]] == ["unclear", "unclear"]
    assert late.comparison.extras["notes"] == [
        "12 of 12 measurements were not made: the budget was used up. Run it again to go on."
    ]
    stopped = [e for e in events if isinstance(e, ArmFinished) and e.status == "stopped"]
    assert len(stopped) == 12
    whole, _ = compared(tmp_path, curve=True)
    assert all(row["law"] for row in whole.comparison.extras["curve"])


@pytest.mark.slow
def test_a_run_killed_while_it_measures_goes_on_and_ends_alike(floors, tmp_path):
    write_tickets(tmp_path)
    script = """
import os, signal, sys
from pathlib import Path
import tailorbird.extras as extras
from tailorbird.workbench import Flags, Workbench
saved = []
save_arm = extras.save_arm
def killed(folder, run, key):
    save_arm(folder, run, key)
    saved.append(run.name)
    if len(saved) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
extras.save_arm = killed
comparisons = Workbench(Path(sys.argv[1])).comparisons
arms = ["majority", "tfidf_linear", "nearest"]
flags = Flags(examples=Path(sys.argv[1]) / "tickets.jsonl", arms=arms, curve=True, ablate=True, seeds=4)
comparisons.run(comparisons.plan(flags))
"""
    environment = {k: v for k, v in os.environ.items() if k != "TAILORBIRD_HOME"}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / ".tailorbird" / "runs").iterdir()
    assert (folder / "comparison.json").is_file()  # the verdict was there before
    assert (folder / "report.html").is_file()
    outcome, events = compared(tmp_path, curve=True, ablate=True, seeds=4)
    reused = [e.reused for e in events if isinstance(e, ArmFinished)]
    assert reused == [True] * 8 + [False] * 9
    without_times = {k: v for k, v in outcome.comparison.extras.items() if k != "break_even"}
    assert without_times == {k: v for k, v in floors[1].comparison.extras.items() if k != "break_even"}


# -- a model that trains ---------------------------------------------------------------------------

TOML = """
name = "tiny"
base = "tiny"
examples = "tickets.jsonl"
arms = ["tfidf_linear", "few_shot", "few_shot+fine_tune"]
price_per_hour = 2.5
seeds = 2
ablate = true
limit_dev = 8
limit_test = 8

[few_shot]
k = 2
calibrate = "batch"

[fine_tune]
rank = 4
epochs = 1
max_dev = 4
learning_rate = 0.02
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from tailorbird.testing.tiny import tiny_model

    folder = tmp_path_factory.mktemp("trained")
    write_tickets(folder, per_label=12)
    (folder / "tailor.toml").write_text(TOML)
    tiny_model(context=2048).engine.save(folder / "tiny")
    before = Path.cwd()
    os.chdir(folder)  # the base is named relatively
    try:
        comparisons = Workbench(folder).comparisons
        plan = comparisons.plan()
        return plan, comparisons.run(plan)
    finally:
        os.chdir(before)


@pytest.mark.slow
def test_tailor_toml_says_what_is_measured_and_what_an_hour_costs(trained):
    plan, outcome = trained
    assert plan.extras == Extras(curve=False, ablate=True, seeds=2)
    assert plan.extras.told == "ablation, 2 seeds"
    assert plan.extras.most == 2 * (4 + 1 + 2)
    assert outcome.comparison.price_per_hour == 2.5


@pytest.mark.slow
def test_the_part_that_is_an_arm_already_is_taken_over(trained):
    plan, outcome = trained
    found = outcome.comparison.extras["ablation"]
    leading = [spec.name for spec in leading_arms(plan, outcome.comparison)]
    assert leading[0] == outcome.comparison.verdict.arm
    assert {row["arm"] for row in found} <= set(leading)
    both = {row["without"]: row for row in found if row["arm"] == "few_shot+fine_tune"}
    alone = {row["without"]: row for row in found if row["arm"] == "few_shot"}
    assert both or alone
    if both:
        assert both["fine_tune"]["taken_from"] == "few_shot"
        assert both["few_shot"]["taken_from"] == ""
        assert both["fine_tune"]["score"] == outcome.comparison.arm("few_shot").score
    if alone:
        assert alone.keys() == {"the examples shown", "calibration"}
        assert all(row["taken_from"] == "" for row in alone.values())


@pytest.mark.slow
def test_no_more_than_the_arms_own_models_are_kept(trained):
    _, outcome = trained
    assert {f.name for f in (outcome.folder / "models").glob("[!.]*")} == {
        "tfidf_linear",
        "few_shot",
        "few_shot+fine_tune",
    }
    assert list((outcome.folder / "extras" / "models").glob("[!.]*")) == []


@pytest.mark.slow
def test_an_arm_that_trains_is_trained_again_with_another_seed(trained):
    plan, _ = trained
    [spec] = [arm for arm in plan.arms if arm.name == "few_shot+fine_tune"]
    other = other_seed(spec, plan.seed, 1)
    assert other.name == "few_shot+fine_tune, training seed 2"
    few_shot, fine_tune = described(other, plan.seed)
    assert few_shot == described(spec, plan.seed)[0]
    assert fine_tune == {**described(spec, plan.seed)[1], "seed": 1}
    [plain] = [arm for arm in plan.arms if arm.name == "few_shot"]
    assert other_seed(plain, plan.seed, 1) is None


# -- parts ---------------------------------------------------------------------------------------


def parts(toml, name, tmp_path, *, classify=True):
    path = tmp_path / "tailor.toml"
    path.write_text(toml)
    spec = read_recipe_file(path).arm(name)
    return dict(without_parts(spec, classify=classify))


def test_of_several_techniques_each_is_left_out_once(tmp_path):
    found = parts("", "knowledge+few_shot+fine_tune", tmp_path)
    assert {part: [s.technique for s in rest.steps] for part, rest in found.items()} == {
        "knowledge": ["few_shot", "fine_tune"],
        "few_shot": ["knowledge", "fine_tune"],
        "fine_tune": ["knowledge", "few_shot"],
    }


def test_few_shot_alone_is_taken_apart_by_its_settings(tmp_path):
    found = parts('[few_shot]\nselect = "hybrid"\ncore = 2\nk = 4\nshortlist = 3\n', "few_shot", tmp_path)
    settings = {part: rest.steps[0].settings for part, rest in found.items()}
    assert settings["the examples shown"] == {"select": "hybrid", "k": 0, "shortlist": 3}
    assert settings["calibration"]["calibrate"] == "none"
    assert settings["the shortlist"]["shortlist"] is None
    assert "the search on dev" not in settings
    assert "calibration" not in parts("", "few_shot", tmp_path, classify=False)
    assert parts('[few_shot]\nk = 0\ncalibrate = "none"\n', "few_shot", tmp_path) == {}


def test_knowledge_alone_is_taken_apart_by_its_gates_and_its_reranking(tmp_path):
    found = parts("[knowledge]\nrerank = 10\n", "knowledge", tmp_path)
    settings = {part: rest.steps[0].settings for part, rest in found.items()}
    assert settings["the gate"] == {"rerank": 10, "threshold": -1.0}
    assert settings["the check of answers"] == {"rerank": 10, "check_answers": False}
    assert settings["reranking"] == {"rerank": 0, "reranker": ""}
    fewer = parts("[knowledge]\nthreshold = -1.0\ncheck_answers = false\n", "knowledge", tmp_path)
    assert fewer == {}


def test_a_part_that_other_settings_need_is_not_left_out(tmp_path):
    found = parts('[few_shot]\nk = 4\ntune = true\noptimizer = "bootstrap"\n', "few_shot", tmp_path)
    assert "the examples shown" not in found
    assert found["the search on dev"].steps[0].settings["tune"] is False


def test_arms_that_learn_from_no_labels_are_told_apart():
    words = {"base": False, "blank": False, "majority": False, "knowledge": False, "few_shot": True}
    words |= {"tfidf_linear": True, "knowledge+fine_tune": True, "from_scratch": True, "nearest": True}
    assert {word: learns_labels(RecipeFile().arm(word)) for word in words} == words


# -- what a user may say -----------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("TAILORBIRD_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    write_tickets(tmp_path)
    return tmp_path


COMPARE = ("compare", "--examples", "tickets.jsonl", "--arms", ",".join(FLOORS))


def test_the_command_measures_and_says_it_after_the_verdict(here, capsys):
    assert run([*COMPARE, "--curve", "--seeds", "2", "--price-per-hour", "3"]) == 0
    out = capsys.readouterr().out
    assert "afterwards learning curve, 2 seeds" in out
    assert "Now what more would buy, in 12 measurements:" in out
    assert "[15/15] " in out
    last = out.rpartition("What more would buy (no part of the verdict):")[2]
    assert "tfidf_linear: " in last
    assert "labels drawn ±" in last
    row = json.loads(next(here.glob(".tailorbird/runs/*/comparison.json")).read_text())
    assert row["price_per_hour"] == 3.0
    assert row["extras"].keys() == {"curve", "seeds", "seed_order", "notes", "break_even"}


def test_the_plan_says_what_would_be_measured(here, capsys):
    assert run([*COMPARE, "--ablate", "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["extras"] == {"curve": False, "ablate": True, "seeds": 1}
    assert plan["price_per_hour"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0"], "seeds is 0; expected 1 or more. 3 to 5 show how far seeds move a score."),
        (["--price-per-hour", "-1"], "price_per_hour is -1.0; expected 0 or more US dollars"),
        (["--price-per-hour", "nan"], "price_per_hour is nan; expected 0 or more US dollars"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_runs(here, capsys, arguments, said):
    assert run([*COMPARE, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (here / ".tailorbird").exists()


def test_values_of_the_wrong_type_in_a_file_are_refused(tmp_path):
    for line, said in [
        ("curve = 1", "curve is 1; expected a bool"),
        ("seeds = true", "seeds is True; expected a int"),
    ]:
        (tmp_path / "tailor.toml").write_text(line)
        with pytest.raises(RecipeError, match=said):
            read_recipe_file(tmp_path / "tailor.toml")


def test_too_few_labels_for_a_curve_are_said(here, capsys):
    write_tickets(here, per_label=9)
    assert run([*COMPARE, "--curve"]) == 0
    out = capsys.readouterr().out
    count = len(make_plan(RecipeFile(examples=here / "tickets.jsonl")).data.train)
    assert f"No learning curve: a quarter of {count} training examples is fewer than 8. Add some." in out


def test_where_nothing_learns_from_labels_that_is_said(here, capsys):
    assert run([*COMPARE[:-1], "majority,blank", "--curve", "--seeds", "3"]) == 0
    assert (
        "No arm that ran learns from labels: there is no curve, and no seed to change."
        in capsys.readouterr().out
    )


def test_the_python_call_takes_the_same(here):
    import tailorbird

    found = tailorbird.compare(
        "tickets.jsonl",
        arms=["majority", "tfidf_linear"],
        curve=True,
        seeds=2,
        ablate=True,
        price_per_hour=1.0,
    )
    assert found.price_per_hour == 1.0
    assert found.reproduce["command"] == (
        "tailorbird.compare('tickets.jsonl', arms=['majority', 'tfidf_linear'], price_per_hour=1.0, curve=True, "
        "ablate=True, seeds=2)"
    )
    assert [row["arm"] for row in found.extras["curve"]] == ["tfidf_linear"]
    assert len(found.extras["seeds"][0]["examples"]["scores"]) == 3
    assert found.extras["ablation"] == []


def test_so_many_models_are_made_beside_at_most():
    assert [Extras(curve=True).most, Extras(ablate=True).most, Extras(seeds=3).most] == [12, 8, 10]
    # The draws of half of the labels are those of the curve.
    assert Extras(curve=True, seeds=3).most == 12 + 4
    assert Extras().most == 0
