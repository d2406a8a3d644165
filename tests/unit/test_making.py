"""What was made once is taken over: models, and the beginnings of arms; a training keeps to the budget."""

import json
from dataclasses import replace

import pytest

from tailorbird.cli.compare_plan import show_plan
from tailorbird.errors import IntegrityError
from tailorbird.evaluation.arms import ArmFinished
from tailorbird.making import base_identity
from tailorbird.planning import Flags
from tailorbird.testing.tiny import tiny_model
from tailorbird.trainings import TrainingProgress
from tailorbird.workbench import Workbench

LABELS = ("red", "green", "blue")
WORDS = ("an old", "some new", "one very dark", "that bright", "my", "her quite pale", "this wet")
TOML = """
base = "tiny"
examples = "rows.jsonl"
test = "test.jsonl"
arms = {arms}
[fine_tune]
epochs = 2
rank = 2
max_dev = 4
precision = "float32"
"""


@pytest.fixture
def project(tmp_path):
    tiny_model(context=512).engine.save(tmp_path / "tiny")
    for name, numbers, thing in (("rows", range(60), "paint"), ("test", range(60, 84), "door")):
        rows = [
            {"prompt": f"{WORDS[i % 7]} {LABELS[i % 3]} {thing} {i}", "completion": LABELS[i % 3]}
            for i in numbers
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def compared(project, arms, monkeypatch, *, limit_test=6, on_event=None, **settings):
    monkeypatch.chdir(project)
    (project / "tailor.toml").write_text(TOML.format(arms=json.dumps(arms)))
    comparisons = Workbench(project).comparisons
    plan = replace(comparisons.plan(replace(Flags(), limit_test=limit_test)), **{"race": False, **settings})
    return plan, comparisons.run(plan, on_event=on_event)


def manifest(plan, arm):
    return json.loads((plan.folder / "models" / arm / "model.json").read_text())


def trained(events, arm):
    return [e for e in events if isinstance(e, TrainingProgress) and e.arm == arm]


def test_a_model_is_taken_over_by_a_comparison_with_other_test_examples(project, monkeypatch):
    events = []
    first, before = compared(project, ["majority", "fine_tune"], monkeypatch)
    second, after = compared(
        project, ["majority", "fine_tune"], monkeypatch, limit_test=12, on_event=events.append
    )
    assert first.folder != second.folder
    assert manifest(first, "fine_tune") == manifest(second, "fine_tune")
    assert not trained(events, "fine_tune")
    assert after.comparison.arm("fine_tune").train_s == before.comparison.arm("fine_tune").train_s > 0
    weights = [plan.folder / "models" / "fine_tune" / "adapter" for plan in (first, second)]
    names = [sorted(p.name for p in folder.rglob("*.safetensors")) for folder in weights]
    assert names[0] == names[1] != []
    one, other = (next(folder.rglob("*.safetensors")) for folder in weights)
    assert one.samefile(other)


def test_other_training_data_makes_another_model(project, monkeypatch):
    first, _ = compared(project, ["majority"], monkeypatch)
    rows = (project / "rows.jsonl").read_text().replace("red paint", "crimson paint")
    (project / "rows.jsonl").write_text(rows)
    second, _ = compared(project, ["majority"], monkeypatch)
    assert manifest(first, "majority")["lineage"]["key"] != manifest(second, "majority")["lineage"]["key"]


def test_an_arm_begins_where_another_that_it_contains_ends(project, monkeypatch):
    events = []
    plan, outcome = compared(
        project, ["fine_tune", "fine_tune+few_shot"], monkeypatch, on_event=events.append
    )
    assert trained(events, "fine_tune")
    assert not trained(events, "fine_tune+few_shot")
    assert outcome.comparison.arm("fine_tune+few_shot").ran
    steps = [step["technique"] for step in manifest(plan, "fine_tune+few_shot")["lineage"]["steps"]]
    assert steps == ["fine_tune", "few_shot"]


def test_what_begins_with_another_arm_answers_as_if_it_was_made_from_nothing(project, monkeypatch, tmp_path):
    _, shared = compared(project, ["fine_tune", "fine_tune+few_shot"], monkeypatch)
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "elsewhere"))
    _, alone = compared(project, ["fine_tune+few_shot"], monkeypatch)
    both = [o.comparison.evaluations["fine_tune+few_shot"].answers for o in (shared, alone)]
    assert both[0] == both[1]


def test_a_training_that_outlasts_the_budget_stops_and_is_made_in_the_next_run(project, monkeypatch):
    def slow(event):
        if isinstance(event, TrainingProgress):
            import time

            time.sleep(0.4)

    plan, cut = compared(
        project, ["majority", "fine_tune"], monkeypatch, on_event=slow, budget_s=2.0, fresh=True
    )
    arm = cut.comparison.arm("fine_tune")
    assert arm.stopped_why == "The budget was used up while it was measured."
    assert (plan.folder / "checkpoints" / "fine_tune").exists()
    events = []
    _, whole = compared(project, ["majority", "fine_tune"], monkeypatch, on_event=events.append)
    assert whole.comparison.arm("fine_tune").ran
    assert [e.status for e in events if isinstance(e, ArmFinished)] == ["done", "done"]


def test_trainings_are_raced_by_steps_and_what_goes_on_ends_as_if_it_had_never_paused(project, monkeypatch):
    import tailorbird.trainings as trainings

    monkeypatch.setattr(trainings, "WORTH_TOKENS", 0)
    arms = ["base", "fine_tune", "few_shot+fine_tune"]
    plan, _ = compared(project, arms, monkeypatch)
    weights = sorted((plan.folder / "models" / "fine_tune").rglob("*.safetensors"))
    before = [path.read_bytes() for path in weights]
    (project / ".tailorbird").rename(project / "before")
    events = []
    _, raced = compared(project, arms, monkeypatch, on_event=events.append, race=True)
    assert [path.read_bytes() for path in weights] == before
    steps = [e.step for e in trained(events, "fine_tune")]
    assert steps == sorted(set(steps))
    order = [e.arm for e in events if isinstance(e, TrainingProgress)]
    # In turns: the first goes on only when the second has come as far.
    assert order.index("few_shot+fine_tune") < len(order) - 1 - order[::-1].index("fine_tune")
    assert raced.comparison.arm("fine_tune").train_s > 0


def test_a_race_of_trainings_that_was_stopped_goes_on_and_ends_alike(project, monkeypatch):
    import tailorbird.trainings as trainings

    monkeypatch.setattr(trainings, "WORTH_TOKENS", 0)
    arms = ["base", "fine_tune", "few_shot+fine_tune"]

    def ended(outcome):
        return [(a.name, a.score, a.stopped_why, a.num_dev) for a in outcome.comparison.arms]

    _, undisturbed = compared(project, arms, monkeypatch, race=True)
    events = []
    _, again = compared(project, arms, monkeypatch, on_event=events.append, race=True)
    assert ended(again) == ended(undisturbed)
    assert not any(isinstance(event, TrainingProgress) for event in events)
    (project / ".tailorbird").rename(project / "before")

    def stop(event):
        if isinstance(event, TrainingProgress) and event.arm == "few_shot+fine_tune" and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compared(project, arms, monkeypatch, on_event=stop, race=True)
    events = []
    _, taken_up = compared(project, arms, monkeypatch, on_event=events.append, race=True)
    first = next(event for event in events if isinstance(event, TrainingProgress))
    assert (first.arm, first.step) == ("few_shot+fine_tune", 4)
    assert ended(taken_up) == ended(undisturbed)


def test_trainings_are_raced_only_where_dev_is_scored_as_the_arm_will_be(project, monkeypatch):
    from tailorbird.making import arm_of
    from tailorbird.trainings import TrainingWatch

    names = ["base", "fine_tune", "few_shot+fine_tune", "fine_tune+few_shot", "from_scratch"]
    plan, _ = compared(project, names, monkeypatch, limit_test=6, budget_s=0.001)
    raced = {
        spec.name
        for spec in plan.arms
        if arm_of(project / ".tailorbird", plan, spec, TrainingWatch(spec.name)).begin
    }
    assert raced == {"fine_tune", "few_shot+fine_tune"}
    other = replace(plan, metric="macro_f1")
    assert not arm_of(project / ".tailorbird", other, plan.arms[1], TrainingWatch("fine_tune")).begin


def test_short_trainings_are_not_paused(project, monkeypatch):
    events = []
    _, outcome = compared(
        project, ["base", "fine_tune", "few_shot+fine_tune"], monkeypatch, on_event=events.append, race=True
    )
    order = [e.arm for e in events if isinstance(e, TrainingProgress)]
    assert order == sorted(order, reverse=True)
    assert outcome.comparison.arm("fine_tune").ran or outcome.comparison.arm("fine_tune").stopped


def test_what_is_wrong_with_another_runs_models_is_not_this_runs_affair(project, monkeypatch):
    first, _ = compared(project, ["majority", "nearest"], monkeypatch)
    (first.folder / "models" / "majority" / "model.json").write_text("{")
    (first.folder / "models" / "nearest" / "examples.jsonl").write_text("damaged")
    workbench = Workbench(project)
    assert [info.id for info in workbench.models() if info.recipe == "damaged"] == ["majority"]
    with pytest.raises(IntegrityError, match=r"model\.json: not valid JSON .* make the model again"):
        workbench.open("majority")
    second, outcome = compared(project, ["majority", "nearest"], monkeypatch, limit_test=12)
    assert all(arm.ran for arm in outcome.comparison.arms)
    assert not any(info.recipe == "damaged" for info in Workbench(project).models())
    assert manifest(second, "nearest")["lineage"]["key"] == manifest(first, "nearest")["lineage"]["key"]
    assert (second.folder / "models" / "nearest" / "examples.jsonl").read_text() != "damaged"


def test_a_base_whose_files_were_replaced_is_another_base(project, monkeypatch):
    events = []
    first, _ = compared(project, ["base"], monkeypatch)
    before = base_identity(project / ".tailorbird", str(project / "tiny"))
    tiny_model(seed=1, context=512).engine.save(project / "other")
    for path in (project / "other").iterdir():
        path.replace(project / "tiny" / path.name)
    assert base_identity(project / ".tailorbird", str(project / "tiny")) != before
    _, outcome = compared(project, ["base"], monkeypatch, on_event=events.append)
    assert not any(e.reused for e in events if isinstance(e, ArmFinished))
    assert outcome.comparison.arm("base").ran
    assert base_identity(first.folder, "starter") == "starter"


def test_a_model_that_can_not_be_opened_any_more_fails_its_arm_alone(project, monkeypatch):
    plan, _ = compared(project, ["base"], monkeypatch)
    (plan.folder / "arms" / "base" / "arm.json").unlink()
    import tailorbird.models.folders as folders

    def broken(*_):
        raise IntegrityError("model.json: its sha256 differs.")

    monkeypatch.setattr(folders, "load_model", broken)
    _, outcome = compared(project, ["base", "majority"], monkeypatch)
    assert {arm.name: arm.failed for arm in outcome.comparison.arms} == {
        "base": "model.json: its sha256 differs.",
        "majority": "model.json: its sha256 differs.",
    }


def test_a_base_that_has_learnt_from_the_test_examples_is_told(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "tailor.toml").unlink(missing_ok=True)
    workbench, rows = Workbench(project), project / "rows.jsonl"
    first = workbench.plan_one(name="mine", steps=["few_shot"], examples=rows, base="tiny")
    workbench.customize(first)
    second = workbench.plan_one(
        name="again", steps=["few_shot"], examples=project / "test.jsonl", base="mine"
    )
    workbench.customize(second)
    for base in ("mine", "again"):
        flags = Flags(examples=rows, base=base, arms=["base", "majority"])
        plan = workbench.comparisons.plan(flags)
        told = str(plan.problems[0])
        count = len(plan.data.test)
        assert (
            f"base {base}: it has learnt from {count} of {count} test examples, or was chosen by them."
            in told
        )
        assert "Give examples that it never saw with --test" in told
    show_plan(plan, ())
    assert "beware     base again: it has learnt from" in capsys.readouterr().out
    outcome = workbench.comparisons.run(plan)
    assert outcome.comparison.warnings[0]["level"] == "severe"
    assert "it has learnt from" in outcome.report.read_text()
    unchanged = workbench.comparisons.plan(
        Flags(examples=rows, base="base")
    )  # this comparison's arm without a step
    assert "base base: it has learnt from" in str(unchanged.problems[0])
    fresh = Flags(examples=rows, test=project / "test.jsonl", base="mine", arms=["base"])
    assert not any("it has learnt" in str(p) for p in workbench.comparisons.plan(fresh).problems)
    new = Flags(examples=rows, base="tiny")
    assert not any("it has learnt" in str(p) for p in workbench.comparisons.plan(new).problems)
