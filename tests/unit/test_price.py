"""What an endpoint takes by the token: from tailor.toml to an arm's cost."""

import json

import pytest

from tailorbird.errors import RecipeError
from tailorbird.evaluation.arms import TokenPrice
from tailorbird.making import arm_of
from tailorbird.planning import make_plan
from tailorbird.recipe_file import read_recipe_file
from tailorbird.trainings import TrainingWatch

PRICE = "[price]\ninput = 0.15\noutput = 0.6\ncached = 0.075\n"
FAR = 'base = "http://127.0.0.1:1/v1#far"\n'


def recipe(tmp_path, head, price=PRICE):
    rows = [{"prompt": f"{label} {n}", "completion": label} for label in "ab" for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "tailor.toml"
    path.write_text(f'{head}examples = "rows.jsonl"\narms = ["base", "majority"]\n{price}')
    return read_recipe_file(path)


def test_an_endpoints_price_reaches_its_arms_and_not_the_floors(tmp_path):
    plan = make_plan(recipe(tmp_path, FAR))
    arms = {spec.name: arm_of(tmp_path, plan, spec, TrainingWatch(spec.name)) for spec in plan.arms}
    assert arms["base"].price == TokenPrice(0.15, 0.6, 0.075)
    assert arms["majority"].price is None


def test_cached_input_costs_what_is_taken_for_it():
    tokens = {"input": 2000, "cached": 1024, "output": 10}
    assert TokenPrice(1.0, 2.0, 0.1).cost(tokens) == pytest.approx((976 * 1.0 + 1024 * 0.1 + 10 * 2.0) / 1e6)


def test_on_this_machine_nothing_is_paid_by_the_token(tmp_path):
    with pytest.raises(RecipeError, match=r"price: the base 'starter' is on this machine"):
        make_plan(recipe(tmp_path, ""))


@pytest.mark.parametrize(
    "price",
    [
        "[price]\ninput = 1\n",
        "[price]\ninput = -1\noutput = 1\n",
        '[price]\ninput = "1"\noutput = 1\n',
        "[price]\ninput = 1\noutput = 1\nper = 2\n",
    ],
)
def test_a_price_that_makes_no_sense_is_refused(tmp_path, price):
    with pytest.raises(RecipeError, match=r"\[price\] is .*expected input and output"):
        recipe(tmp_path, FAR, price)
