"""Several bases in one comparison: named, crossed with arms, priced, and measured side by side."""

import json
import sys
from pathlib import Path

import pytest

from tailorbird.bases import Base, bases_of
from tailorbird.errors import RecipeError
from tailorbird.planning import Flags, arms_on, make_plan
from tailorbird.recipe_file import RecipeFile, read_recipe_file
from tailorbird.testing.tiny import tiny_model
from tailorbird.workbench import Workbench

sys.path.insert(0, str(Path(__file__).parents[1]))

from endpoint import Endpoint, said

FAR = "http://127.0.0.1:1/v1#org/far"
MINI = f"""
base = ["starter", "mini"]
examples = "rows.jsonl"
[bases.mini]
model = "{FAR}"
key_env = "MINI_KEY"
price = {{ input = 0.15, output = 0.6 }}
"""
LABELS = ("red", "green", "blue")


@pytest.fixture
def project(tmp_path):
    rows = [{"prompt": f"{LABELS[n % 3]} paint, order {n}", "completion": LABELS[n % 3]} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def recipe(project, text):
    (project / "tailor.toml").write_text(text)
    return read_recipe_file(project / "tailor.toml")


def test_a_table_names_a_base_and_says_what_its_endpoint_needs(project):
    plan = make_plan(recipe(project, MINI))
    assert [(base.name, base.reference, base.key_env) for base in plan.bases] == [
        ("starter", "starter", None),
        ("mini", FAR, "MINI_KEY"),
    ]
    assert plan.bases[1].price == {"input": 0.15, "output": 0.6}
    assert plan.base == f"starter, {FAR}"


def test_every_arm_is_tried_on_every_base_and_baselines_once(project):
    file = recipe(project, 'arms = ["majority", "base", "few_shot", "fine_tune", "from_scratch"]\n' + MINI)
    plan = make_plan(file)
    assert [spec.name for spec in plan.arms] == [
        "majority",
        "base@starter",
        "base@mini",
        "few_shot@starter",
        "few_shot@mini",
        "fine_tune@starter",
        "from_scratch",
    ]
    assert plan.base_of(plan.arms[2]).reference == FAR
    assert plan.base_of(plan.arms[1]).reference == "starter"
    note = "fine_tune: not on mini, an endpoint's model, whose weights can't be trained"
    assert note in plan.notes


def test_an_arm_may_choose_its_base(project):
    text = 'arms = ["base@mini", "three"]\n' + MINI
    text += '[[arm]]\nname = "three"\nbase = "starter"\nsteps = [{ technique = "few_shot", k = 3 }]\n'
    plan = make_plan(recipe(project, text))
    assert [(spec.name, plan.base_of(spec).name) for spec in plan.arms] == [
        ("base@mini", "mini"),
        ("three", "starter"),
    ]


def test_flags_name_several_and_names_of_tables_count(project):
    recipe(project, MINI.replace('base = ["starter", "mini"]\n', ""))
    comparisons = Workbench(project).comparisons
    plan = comparisons.plan(Flags(base=["mini", "starter"], arms=["base"]), config=project / "tailor.toml")
    assert [spec.name for spec in plan.arms] == ["base@mini", "base@starter"]
    alone = comparisons.plan(Flags(base="mini", arms=["base"]), config=project / "tailor.toml")
    assert [spec.name for spec in alone.arms] == ["base"]
    assert alone.bases[0].reference == FAR


def test_bases_of_one_short_name_are_numbered():
    found = bases_of(["one/model", "two/model", "hf:org/model"], {})
    assert [base.name for base in found] == ["model", "model-2", "model-3"]


def test_a_base_beside_the_file_is_meant_from_wherever_it_is_read(project, monkeypatch):
    (project / "tiny").mkdir()
    text = 'base = "tiny"\nexamples = "rows.jsonl"\n'
    assert recipe(project, text).base == str(project / "tiny")
    monkeypatch.chdir(project)
    assert recipe(project, text).base == "tiny"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('base = ["starter", "starter"]\n', r"base 'starter' is named twice\. Name every base once"),
        ("base = 3\n", r"base is 3; expected a MODEL in quotes, or a list of several"),
        ("base = []\n", r"base is \[\]; expected a MODEL"),
        ('[bases.mini]\nkey_env = "A"\n', r"bases is .*expected a table for each base"),
        ('[bases.mini]\nmodel = "starter"\nprize = 3\n', r"bases is .*expected a table for each base"),
        ('[bases."mi ni"]\nmodel = "starter"\n', r"\[bases\.mi ni\]: expected a name of letters"),
        (
            '[bases.mini]\nmodel = "http://a.example/v1#m"\nprice = { input = -1, output = 1 }\n',
            r"\[bases\.mini\.price\] is .*expected input and output",
        ),
        ('arms = ["base@other"]\n', r"arm 'base@other': 'other' is none of the bases\. Bases: starter"),
        ('arms = ["majority@starter"]\n', r"'starter' is not what it starts from"),
        ('[[arm]]\nname = "a"\nbase = 3\n', r"arm 'a': base is 3; expected the name of one of the bases"),
        (
            'base = ["http://a.example/v1#m", "http://b.example/v1#n"]\n[price]\ninput = 1\noutput = 2\n',
            r"\[price\] is one, and there are several endpoints: m, n\. Give each a table \[bases\.NAME\]",
        ),
    ],
)
def test_what_can_not_be_meant_is_refused(project, text, expected):
    with pytest.raises(RecipeError, match=expected):
        # A top-level key can't follow a table.
        make_plan(recipe(project, 'examples = "rows.jsonl"\n' + text))


def test_one_model_is_made_of_one_base(project):
    recipe(project, MINI)
    workbench = Workbench(project)
    with pytest.raises(RecipeError, match=r"one model is made of one base, and there are 2: starter, mini"):
        workbench.plan_one(name="m", steps=["few_shot"])


def test_two_arms_of_one_name_are_refused():
    bases = (Base("a", "a"), Base("b", "b"))
    file = RecipeFile()
    with pytest.raises(RecipeError, match="arm 'base@a' is there twice"):
        arms_on([file.arm("base"), file.arm("base@a")], bases)


def test_a_local_base_and_an_endpoint_are_measured_side_by_side(project, monkeypatch):
    monkeypatch.chdir(project)
    tiny_model(context=512).engine.save(project / "tiny")

    def right(body):
        asked = body["messages"][-1]["content"]
        return 200, said(next(label for label in LABELS if label in asked))

    told = []
    with Endpoint(right).running() as url:
        text = f'base = ["tiny", "far"]\nexamples = "rows.jsonl"\n[bases.far]\nmodel = "{url}#far"\n'
        text += "price = { input = 1000.0, output = 1000.0 }\n"
        recipe(project, 'arms = ["majority", "base"]\n' + text)
        comparisons = Workbench(project).comparisons
        plan = comparisons.plan(Flags())
        expected = {each.arm: each for each in comparisons.forecast(plan)}
        outcome = comparisons.run(plan, on_event=told.append)
    arms = {arm.name: arm for arm in outcome.comparison.arms}
    assert arms.keys() == {"majority", "base@tiny", "base@far"}
    assert arms["base@far"].score == 1.0
    assert arms["base@far"].base == f"{url}#far"
    assert arms["base@tiny"].base == "tiny"
    assert arms["majority"].base == ""
    assert arms["base@far"].cost_per_1k == pytest.approx(1000 * 9 * 1000 / 1e6)
    assert arms["base@tiny"].cost_per_1k < 1
    assert expected["base@far"].cost > 0
    assert not expected["base@far"].timed
    assert expected["base@tiny"].answers_s > 0
    record = json.loads(outcome.json.read_text())
    assert record["reproduce"]["bases"] == {"tiny": "tiny", "far": f"{url}#far"}
    again = {each.arm: each for each in comparisons.forecast(comparisons.plan(Flags(limit_test=6)))}
    assert all(again[name].known for name in ("base@tiny", "base@far"))
    assert Workbench(project).open("base@tiny").model is not None
