from dataclasses import dataclass

from tailorbird.models.blank import Blank
from tailorbird.techniques.technique import Recipe, Technique
from tailorbird.testing.tiny import tiny_data

DATA = tiny_data()


@dataclass(frozen=True)
class Named:
    """Gives the model a longer name."""

    letter: str

    def apply(self, model, data):
        assert data is DATA
        return Blank(model.name + self.letter)


def test_a_recipe_applies_its_steps_one_after_another_and_is_a_technique():
    recipe = Recipe((Named("a"), Recipe((Named("b"), Named("c")))))
    assert isinstance(recipe, Technique)
    assert recipe.apply(Blank("x"), DATA) == Blank("xabc")


def test_an_empty_recipe_gives_the_model_back():
    model = Blank()
    assert Recipe().apply(model, DATA) is model
