"""Live sources in recipes: named, described, laid over by flags, and part of what an arm's answers depend on."""

import json
from pathlib import Path

import pytest

from tailorbird.errors import RecipeError
from tailorbird.knowledge_bases import KnowledgeBases
from tailorbird.planning import Flags, described, make_plan, overlay
from tailorbird.recipe_file import RecipeFile, read_recipe_file

SHOP = '[sources.shop]\nkind = "search_api"\nurl = "https://shop.example/{query}"\n'
FILES = """
[sources.files]
kind = "sql_query"
database = "shop.db"
query = "SELECT a AS text FROM t WHERE b = :query"
"""


@pytest.fixture
def recipe(tmp_path):
    def recipe(text):
        (tmp_path / "tailor.toml").write_text(text)
        return read_recipe_file(tmp_path / "tailor.toml")

    return recipe


def sources(spec):
    return [source.name for step in spec.steps for source in step.settings.get("sources", ())]


def test_sources_are_named_by_table_or_by_kind(recipe):
    file = recipe('[knowledge]\nk = 2\nsources = ["wikipedia", "shop"]\n' + SHOP)
    [step] = file.arm("knowledge").steps
    technique = step.build()
    assert [(s.name, s.kind) for s in technique.sources] == [
        ("wikipedia", "wikipedia"),
        ("shop", "search_api"),
    ]
    assert technique.k == 2
    assert sources(file.arm("few_shot")) == []


def test_a_databases_file_is_relative_to_the_recipe(recipe, tmp_path):
    file = recipe(FILES)
    assert file.live_source("files").settings["database"] == str(tmp_path.resolve() / "shop.db")


def test_an_arm_may_have_sources_of_its_own(recipe):
    file = recipe(
        '[knowledge]\nsources = ["wikipedia"]\n'
        + SHOP
        + '[[arm]]\nname = "own"\nsteps = [{technique = "knowledge", sources = ["shop"]}]\n'
        + '[[arm]]\nname = "none"\nsteps = [{technique = "knowledge", sources = []}]\n'
        + '[[arm]]\nname = "usual"\nsteps = ["knowledge", "few_shot"]\n'
    )
    assert [sources(file.arm(name)) for name in ("own", "none", "usual")] == [["shop"], [], ["wikipedia"]]


def test_flags_win_over_the_recipe_in_every_arm(recipe):
    file = recipe(
        '[knowledge]\nsources = ["shop"]\n'
        + SHOP
        + '[[arm]]\nname = "own"\nsteps = [{technique = "knowledge", sources = ["shop"]}, "few_shot"]\n'
    )
    laid = overlay(file, Flags(sources=["wikipedia"]))
    assert sources(laid.arm("own")) == sources(laid.arm("knowledge")) == ["wikipedia"]
    assert sources(overlay(file, Flags()).arm("own")) == ["shop"]
    steps = recipe('steps = ["knowledge"]\n')
    assert steps.steps is not None
    assert [s.name for s in overlay(steps, Flags(sources=["wikipedia"])).steps[0].settings["sources"]] == [
        "wikipedia"
    ]


def test_the_projects_sources_are_known_beside_another_recipes(recipe, tmp_path):
    recipe(SHOP)
    bases = KnowledgeBases(tmp_path, tmp_path / "tailor.toml")
    assert sources(
        overlay(bases.with_tables(RecipeFile(), ["shop"]), Flags(sources=["shop"])).arm("knowledge")
    ) == ["shop"]
    assert bases.with_tables(RecipeFile(), None) == RecipeFile()
    assert KnowledgeBases(tmp_path, Path("nowhere.toml")).with_tables(RecipeFile(), ["shop"]) == RecipeFile()


def test_the_settings_of_sources_are_part_of_what_an_arm_is(recipe):
    def description(text):
        return json.dumps(described(recipe('[knowledge]\nsources = ["shop"]\n' + text).arm("knowledge")))

    first = description(SHOP)
    assert "https://shop.example/{query}" in first
    assert description(SHOP) == first
    assert description(SHOP.replace("shop.example", "shop.test.example")) != first
    assert description(SHOP + "timeout_s = 3\n") != first
    assert description(SHOP + 'headers = {X-Key = "$SHOP_KEY"}\n') != first


def test_sources_bring_the_knowledge_arms_without_documents(recipe, tmp_path):
    rows = [{"prompt": f"question {n}?", "completion": f"answer {n} of many"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = 'examples = "rows.jsonl"\n'
    assert not [arm for arm in make_plan(recipe(text)).arms if "knowledge" in arm.name]
    plan = make_plan(recipe(text + '[knowledge]\nsources = ["wikipedia"]\n'))
    assert [arm.name for arm in plan.arms if "knowledge" in arm.name] == ["knowledge", "few_shot+knowledge"]
    assert plan.sources == ["wikipedia"]
    assert plan.notes[-1].startswith(
        "wikipedia: asked live, once for each question; latencies leave that out"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[knowledge]\nsources = ["desk"]\n',
            r"the source 'desk' is unknown. Known: wikipedia, search_api, .*\[sources.desk\]",
        ),
        ('[knowledge]\nsources = "wikipedia"\n', "sources is 'wikipedia'; expected a list of names"),
        ("[knowledge]\nsources = [1]\n", "the source 1 is unknown"),
        ('sources = ["wikipedia"]\n', r"sources is \['wikipedia'\]; expected a table for each source"),
        ("[sources]\nshop = 1\n", "expected a table for each source"),
        (
            '[knowledge]\nsources = ["shop"]\n' + SHOP + 'token = "x"\n',
            "source 'shop': unknown setting 'token'. search_api has: url",
        ),
        (
            '[knowledge]\nsources = ["shop"]\n' + SHOP + 'headers = {X-Key = "s3cret"}\n',
            "names no environment variable",
        ),
    ],
    ids=["unknown", "no_list", "no_name", "no_table", "no_settings", "setting", "secret"],
)
def test_sources_that_make_no_sense_are_refused(recipe, text, message):
    with pytest.raises(RecipeError, match=message):
        recipe(text).arm("knowledge")
