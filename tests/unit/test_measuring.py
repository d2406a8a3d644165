"""Metrics by name, from the recipe or a flag to what a comparison measures; all checked before anything runs."""

import json

import pytest

import tailorbird
from tailorbird.errors import DataError, InputError, NotFound, RecipeError
from tailorbird.measuring import metric_name, metrics_of
from tailorbird.planning import Flags, make_plan, overlay
from tailorbird.recipe_file import read_recipe_file

OWN = "def close(example, completion):\n    return float(completion.text == example.completion)\n"


@pytest.fixture
def recipe(tmp_path):
    def recipe(head="", completion='{{"n": {n}}}'):
        rows = [{"prompt": f"row {n}", "completion": completion.format(n=n)} for n in range(40)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "form.json").write_text('{"type": "object"}')
        (tmp_path / "scores.py").write_text(OWN)
        (tmp_path / "tailor.toml").write_text(f'examples = "rows.jsonl"\narms = ["blank"]\n{head}')
        return read_recipe_file(tmp_path / "tailor.toml")

    return recipe


def test_a_recipe_names_the_metric_that_decides_and_others_beside_it(recipe):
    plan = make_plan(recipe('metric = "rouge_l"\nmetrics = ["chrf", "bleu"]\n'))
    assert plan.metric == "rouge_l"
    assert plan.measured == ("rouge_l", "chrf", "bleu")
    assert list(metrics_of(plan.task, plan.measured)) == [
        "token_f1",
        "exact_match",
        "rouge_l",
        "chrf",
        "bleu",
    ]


def test_a_task_with_a_schema_is_decided_by_its_fields(recipe):
    assert make_plan(recipe('schema = "form.json"\n')).metric == "json_fields"
    assert make_plan(recipe('schema = "form.json"\nmetric = "exact_match"\n')).metric == "exact_match"
    assert make_plan(recipe()).metric == "token_f1"


def test_flags_win_over_the_recipe(recipe):
    file = recipe('metric = "rouge_l"\nmetrics = ["chrf"]\n')
    plan = make_plan(overlay(file, Flags(metric="bleu", metrics=["exact_match"])))
    assert (plan.metric, plan.measured) == ("bleu", ("bleu", "exact_match"))
    assert make_plan(overlay(file, Flags())).measured == ("rouge_l", "chrf")


def test_a_function_is_looked_for_beside_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    plan = make_plan(recipe('metric = "scores.py:close"\n'))
    assert plan.metric == "scores.py:close"
    assert plan.measured == (f"{tmp_path / 'scores.py'}:close",)
    assert metrics_of(plan.task, plan.measured)["scores.py:close"].name == plan.metric


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones(recipe):
    with pytest.raises(
        NotFound,
        match=r"metric 'rogue' is unknown\. Known: accuracy, exact_match, token_f1, rouge_l, chrf, bleu",
    ):
        make_plan(recipe('metric = "rogue"\n'))
    with pytest.raises(NotFound, match="metric 'rogue' is unknown"):
        make_plan(recipe('metrics = ["chrf", "rogue"]\n'))


def test_two_metrics_of_one_name_are_refused(recipe, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scores.py").write_text(OWN)
    with pytest.raises(RecipeError, match=r"are both called 'scores\.py:close'"):
        make_plan(recipe('metric = "scores.py:close"\nmetrics = ["other/scores.py:close"]\n'))


def test_a_list_of_metrics_must_be_one(recipe):
    with pytest.raises(RecipeError, match=r"metrics is 'chrf'; expected a list"):
        recipe('metrics = "chrf"\n')


def test_a_function_that_fails_is_told_before_anything_runs(recipe, tmp_path):
    file = recipe('metric = "scores.py:close"\n')
    (tmp_path / "scores.py").write_text("def close(example, completion):\n    return completion.score\n")
    with pytest.raises(InputError, match=r"it raised AttributeError: .*'score' at .*rows\.jsonl:\d+"):
        make_plan(file)


def test_completions_that_are_no_json_cannot_be_compared_by_fields(recipe):
    with pytest.raises(
        DataError, match=r"rows\.jsonl:\d+: json_fields compares JSON, but the completion is 'row"
    ):
        make_plan(recipe('metric = "json_fields"\n', completion="row {n}"))
    with pytest.raises(DataError, match="json_fields compares JSON"):
        make_plan(recipe('schema = "form.json"\n', completion="row {n}"))
    assert make_plan(recipe('schema = "form.json"\nmetric = "token_f1"\n', completion="row {n}")).metric


def test_metrics_of_installed_packages_are_found_by_name_and_checked(tmp_path, monkeypatch):
    (tmp_path / "brought.py").write_text(OWN)
    info = tmp_path / "brought-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: brought\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tailorbird.metrics]\nnear = brought:close\n")
    monkeypatch.syspath_prepend(tmp_path)
    task = tailorbird.Task("answer", "")
    found = metrics_of(task, ["near"])["near"]
    assert (found.name, len(found.source)) == ("near", 16)
    with pytest.raises(NotFound, match=r"is unknown.*, near; or FILE"):
        metrics_of(task, ["far"])


def test_the_python_call_takes_metrics_and_puts_them_into_the_result(recipe, tmp_path):
    recipe()
    (tmp_path / "tailor.toml").unlink()
    found = tailorbird.compare(
        tmp_path / "rows.jsonl",
        arms=["blank", "nearest"],
        metric=f"{tmp_path / 'scores.py'}:close",
        metrics=["json_fields"],
        project=tmp_path,
    )
    assert found.metric == "scores.py:close"
    row = json.loads(json.dumps(found.to_json()))
    assert row["metric"] == "scores.py:close"
    assert {"json_fields", "token_f1", "exact_match"} <= row["arms"][0]["secondary"].keys()
    page = (next((tmp_path / ".tailorbird" / "runs").iterdir()) / "report.html").read_text(encoding="utf-8")
    assert "scores.py:close, %" in page
    assert "json fields, %" in page


def test_a_metrics_name_is_short():
    assert metric_name("deep/down/scores.py:close") == "scores.py:close"
    assert metric_name("rouge_l") == "rouge_l"
