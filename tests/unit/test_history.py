import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tailorbird.bases import bases_of
from tailorbird.data.storage import write_atomic
from tailorbird.errors import InputError, NotFound
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics
from tailorbird.evaluation.report import write_report
from tailorbird.evaluation.run_folder import save_comparison
from tailorbird.history import BEFORE, History
from tailorbird.kept_runs import kept_run
from tailorbird.planning import Plan
from tailorbird.recipe_file import ArmSpec, Step

sys.path.insert(0, str(Path(__file__).parent / "evaluation"))

from scripted_arms import CLASSIFY, Failing, Wrong, classify_data, messages

from tailorbird.evaluation.arms import Arm

METRICS = default_metrics(CLASSIFY)


class Killed(BaseException):
    """The end of a process."""


class Project:
    """A state folder in which scripted arms are compared as `Comparisons.run` does it."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.history = History(self.state)

    def plan(self, data, setting=1):
        steps = (Step("nearest", {"max_chars": setting}),)
        plan = Plan("shop", bases_of("starter", {}), CLASSIFY, (ArmSpec("good", steps),), data, "accuracy")
        return replace(plan, folder=self.state / "runs" / f"shop-{plan.key}")

    def run(self, data, models, *, against=None, setting=1, killed_after=None, out=None):
        plan = self.plan(data, setting)
        plan.folder.mkdir(parents=True, exist_ok=True)
        arms = [Arm(name, lambda m=m: m, f"{name} {setting}") for name, m in models.items()]
        kept = kept_run(self.state, plan, arms, METRICS, against)
        finished = []

        def tell(event):
            if type(event).__name__ == "ArmFinished":
                finished.append(event.arm)
                if len(finished) == killed_after:
                    raise Killed

        made = {"base": plan.base, "run": plan.folder.name}
        result = compare(
            arms,
            data,
            METRICS,
            primary="accuracy",
            folder=plan.folder,
            latency_requests=0,
            on_event=kept.hear(tell),
            reproduce=made,
        )
        result = kept.told(result)
        kept.finish(result, write_report(result, None, out or plan.folder))
        write_atomic(self.state / "last_run", json.dumps({"run": plan.folder.name}).encode())
        return result


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


DATA = classify_data(60)
OTHER = replace(DATA, test=(*DATA.test[10:], *messages(300, 310)))


def arms(*wrong):
    return {"good": Wrong(*wrong), "poor": Wrong(*range(40, 320))}


def name_of(project, data):
    return project.plan(data).folder.name


# -- against


def test_a_run_of_other_data_is_held_against_the_last_one(project):
    project.run(DATA, arms())
    result = project.run(OTHER, arms(*range(110, 130)), against="LAST")
    held = result.against
    assert held["run"] == name_of(project, DATA)
    assert (held["num_shared"], held["num_added"], held["num_removed"]) == (50, 10, 10)
    assert list(held["what_changed"]) == [
        "Examples: 10 added, 10 removed.",
        "Examples to test: 60 → 60, 10 added, 10 removed.",
    ]
    assert held["changes"][0]["difference"]["mean"] == pytest.approx(-0.4)
    kept = json.loads((project.plan(OTHER).folder / "comparison.json").read_text())
    assert kept["against"] == json.loads(json.dumps(held))


def test_the_same_run_with_other_settings_is_held_against_what_it_was(project):
    project.run(DATA, arms())
    result = project.run(DATA, arms(*range(100, 120)), setting=2, against="LAST")
    held = result.against
    assert held["changes"][0]["then"]["mean"] == 1.0
    assert held["changes"][0]["now"]["mean"] == pytest.approx(2 / 3)
    assert held["what_changed"][0] == "good: max_chars 1 → 2."
    assert (project.plan(DATA).folder / BEFORE / "comparison.json").is_file()


def test_repeating_a_command_tells_the_same(project):
    project.run(DATA, arms())
    for setting, data in ((2, DATA), (2, OTHER)):
        first = project.run(data, arms(*range(100, 120)), setting=setting, against="LAST")
        again = project.run(data, arms(*range(100, 120)), setting=setting, against="LAST")
        assert again.against == first.against
        assert again.openings == first.openings


def test_a_run_that_was_killed_and_is_taken_up_is_held_against_what_it_was(project):
    project.run(DATA, arms())
    changed = arms(*range(100, 120))
    with pytest.raises(Killed):
        project.run(DATA, changed, setting=2, against="LAST", killed_after=1)
    result = project.run(DATA, changed, setting=2, against="LAST")
    assert result.against["paired"]
    assert result.against["changes"][0]["then"]["mean"] == 1.0
    assert result.openings["count"] == 2


def test_where_the_answers_that_were_are_gone_the_scores_are_held_against(project):
    """Killed without --against, nothing was set aside; the scores still stand in comparison.json."""
    project.run(DATA, arms())
    changed = arms(*range(100, 120))
    with pytest.raises(Killed):
        project.run(DATA, changed, setting=2, killed_after=1)
    result = project.run(DATA, changed, setting=2, against="LAST")
    assert not result.against["paired"]
    assert result.against["changes"][0]["then"]["mean"] == 1.0
    assert result.against["changes"][0]["difference"]["mean"] == pytest.approx(-1 / 3)


def test_an_unchanged_run_is_held_against_itself(project):
    project.run(DATA, arms())
    result = project.run(DATA, arms(), against="LAST")
    assert list(result.against["what_changed"]) == ["Nothing that scores depend on has changed."]
    assert all(change["difference"]["mean"] == 0 for change in result.against["changes"])


def test_a_file_elsewhere_finds_its_answers_in_the_project_and_without_them_its_scores_do(project, tmp_path):
    project.run(DATA, arms())
    place = tmp_path / "out"
    place.mkdir()
    shutil.copy(project.plan(DATA).folder / "comparison.json", place)
    for reference in (str(place), str(place / "comparison.json"), name_of(project, DATA)):
        assert project.run(OTHER, arms(), against=reference).against["paired"]
    elsewhere = Project(tmp_path / "elsewhere")
    held = elsewhere.run(OTHER, arms(*range(110, 140)), against=str(place)).against
    assert not held["paired"]
    assert held["why_unpaired"] == "The answers of the earlier run are not at hand."
    assert held["changes"][0]["difference"]["mean"] == pytest.approx(-0.5)
    assert "Examples to test: others; which ones was not kept." in held["what_changed"]


def test_damaged_answers_are_not_paired(project):
    project.run(DATA, arms())
    (answers,) = project.plan(DATA).folder.glob("arms/good/test.jsonl")
    answers.write_bytes(answers.read_bytes()[:-20])
    assert not project.run(OTHER, arms(), against="LAST").against["paired"]


def test_what_cannot_be_held_against_says_what_can(project, tmp_path):
    with pytest.raises(NotFound, match="--against LAST: no comparison has been finished here yet"):
        project.run(DATA, arms(), against="LAST")
    project.run(DATA, arms())
    with pytest.raises(NotFound, match=f"--against nothing: there is no such run.*{name_of(project, DATA)}"):
        project.run(OTHER, arms(), against="nothing")
    (tmp_path / "comparison.json").write_text('{"task": 3}')
    with pytest.raises(InputError, match="not what `tailor compare` writes"):
        project.run(OTHER, arms(), against=str(tmp_path))


def test_a_name_in_a_foreign_file_leads_nowhere_else(project, tmp_path):
    project.run(DATA, arms())
    row = json.loads((project.plan(DATA).folder / "comparison.json").read_text())
    row["reproduce"]["run"] = f"../runs/{name_of(project, DATA)}"
    (tmp_path / "comparison.json").write_text(json.dumps(row))
    assert not project.run(OTHER, arms(), against=str(tmp_path)).against["paired"]


def test_scores_of_another_metric_are_refused_before_anything_runs(project):
    project.run(DATA, arms())
    plan = replace(project.plan(OTHER), metric="token_f1")
    plan.folder.mkdir(parents=True)
    with pytest.raises(InputError, match="was judged by accuracy, and this comparison is by token_f1"):
        kept_run(project.state, plan, [], METRICS, "LAST")


# -- openings


def test_a_test_set_that_is_opened_again_for_something_new_is_recorded(project):
    first = project.run(DATA, arms())
    assert first.openings["count"] == 1
    assert first.openings["sentences"] == []
    again = project.run(DATA, arms())
    assert again.openings == first.openings
    more = project.run(DATA, {**arms(), "third": Wrong(101)})
    assert (more.openings["count"], more.openings["num_arms"]) == (2, 3)
    assert more.openings["sentences"][0].startswith("This test set has been opened 2 times (3 arms in all)")
    assert more.openings["each"][1]["arms"] == ["third"]


def test_openings_outlive_the_run_that_made_them(project):
    project.run(DATA, arms())
    project.history.remove(name_of(project, DATA), force=True)
    assert project.run(DATA, arms(101), setting=2).openings["count"] == 2


# -- list, show, remove


def test_runs_are_listed_newest_first_with_their_best_score(project):
    project.run(DATA, arms())
    time.sleep(0.01)
    project.run(OTHER, {**arms(110), "down": Failing()})
    newest, oldest = project.history.runs()
    assert (newest.name, oldest.name) == (name_of(project, OTHER), name_of(project, DATA))
    assert (newest.is_last, oldest.is_last) == (True, False)
    assert (newest.base, newest.num_test, newest.metric) == ("starter", 60, "accuracy")
    assert (newest.verdict, newest.arm, newest.best) == ("winner", "good", "good")
    assert newest.score == pytest.approx(59 / 60)
    assert newest.low < newest.score < newest.high
    assert newest.report == newest.folder / "report.html"
    assert newest.date > oldest.date


def test_a_report_that_was_put_elsewhere_is_found_and_if_deleted_the_runs_own_is(project, tmp_path):
    project.run(DATA, arms(), out=tmp_path / "out")
    [info] = project.history.runs()
    assert info.report == (tmp_path / "out" / "report.html").resolve()
    shutil.rmtree(tmp_path / "out")
    [info] = project.history.runs()
    assert info.report == info.folder / "report.html"


def test_an_unfinished_run_is_listed_as_such_and_cannot_be_shown(project):
    with pytest.raises(Killed):
        project.run(DATA, arms(), killed_after=1)
    [info] = project.history.runs()
    assert (info.verdict, info.num_test, info.score) == ("", None, None)
    with pytest.raises(NotFound, match=r"it was not finished\. Run the same `tailor compare` again"):
        project.history.comparison(info.name)


def test_a_run_in_which_nothing_was_measured_is_listed_without_a_score(project):
    project.run(DATA, {"down": Failing()})
    [info] = project.history.runs()
    assert (info.verdict, info.arm, info.best, info.score) == ("undecided", None, None, None)


def test_a_run_is_shown_by_name_and_as_the_last(project):
    result = project.run(DATA, arms())
    for name in ("LAST", name_of(project, DATA)):
        assert project.history.comparison(name).verdict.sentence == result.verdict.sentence
    with pytest.raises(NotFound, match=r"run 'none': there is none of this name\. There are: shop-"):
        project.history.run("none")
    for escape in ("../runs", "", "."):
        with pytest.raises(NotFound):
            project.history.run(escape)


def test_the_last_run_is_removed_only_by_force(project):
    project.run(DATA, arms())
    project.run(OTHER, arms())
    project.history.remove(name_of(project, DATA))
    assert [info.name for info in project.history.runs()] == [name_of(project, OTHER)]
    with pytest.raises(InputError, match="it is the last, and `winner` and its arms' names open its models"):
        project.history.remove("LAST")
    project.history.remove("LAST", force=True)
    assert project.history.runs() == []
    assert project.history.last is None
    assert list((project.state / "runs").iterdir()) == []


def test_a_run_of_a_version_that_kept_no_record_can_be_listed_and_held_against(project):
    result = project.run(DATA, arms())
    folder = project.plan(DATA).folder
    for file in ("run.json", "examples.npz"):
        (folder / file).unlink()
    old = {k: v for k, v in result.to_json().items() if k not in ("warnings", "openings", "against")}
    (folder / "comparison.json").write_text(json.dumps(old))
    [info] = project.history.runs()
    assert info.base == "starter"
    assert project.run(OTHER, arms(), against=info.name).against["paired"]
    save_comparison(folder, result)
