"""The folder of documents in a plan: it is there, and holds no examples."""

import json

import pytest

from tailorbird.errors import NotFound, RecipeError
from tailorbird.planning import make_plan
from tailorbird.recipe_file import read_recipe_file


@pytest.fixture
def plan(tmp_path):
    def plan(examples="rows.jsonl", test=None):
        rows = [{"prompt": f"{label} {n}", "completion": label} for label in "ab" for n in range(20)]
        (tmp_path / "docs").mkdir()
        for name in filter(None, (examples, test)):
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "tailor.toml").write_text(
            f'examples = "{examples}"\ndocuments = "docs"\narms = ["majority"]\n'
            + f'test = "{test}"\n' * bool(test)
        )
        return make_plan(read_recipe_file(tmp_path / "tailor.toml"))

    return plan


def test_documents_beside_the_examples_are_taken(plan, tmp_path):
    assert plan().data.documents == tmp_path / "docs"


@pytest.mark.parametrize("where", [{"examples": "docs/rows.jsonl"}, {"test": "docs/test.jsonl"}])
def test_examples_among_the_documents_are_refused(plan, where):
    with pytest.raises(
        RecipeError, match=r"docs: this folder of documents holds the examples too \(\w+\.jsonl\), .*Move"
    ):
        plan(**where)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n' * 2
    )
    (tmp_path / "tailor.toml").write_text('examples = "rows.jsonl"\ndocuments = "docs"\n')
    with pytest.raises(NotFound, match="no such folder of documents"):
        make_plan(read_recipe_file(tmp_path / "tailor.toml"))
