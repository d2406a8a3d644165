"""The learning rate by a race on dev."""

import json
from dataclasses import replace

import pytest

from tailorbird.errors import DataError, RecipeError, TrainingDiverged
from tailorbird.network.run import Run
from tailorbird.recipe_file import Step
from tailorbird.techniques import rate_race
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.rate_race import race
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = replace(tiny_data(), dev=tiny_data().train)
"""What it learns is also what it is judged by, so that a few steps tell the rates apart."""
RATES = (1e-7, 1e-2, 3e-7)
QUICK = FineTune(rank=16, epochs=40, learning_rate=RATES)


def answers(model):
    return [dict(a.probabilities) for a in model.answer([DATA.task.ask(e) for e in DATA.test])]


def test_the_worse_half_drops_out_and_the_rest_train_twice_as_long(tmp_path):
    asked = []

    def try_rate(rate, steps):
        asked.append((rate, steps))
        return {0.1: 0.5, 0.2: 0.7, 0.3: 0.2, 0.4: 0.6}[rate]

    assert race((0.4, 0.3, 0.2, 0.1), 320, try_rate, tmp_path / "race.json") == 0.2
    assert asked == [(0.1, 40), (0.2, 40), (0.3, 40), (0.4, 40), (0.2, 80), (0.4, 80)]
    record = json.loads((tmp_path / "race.json").read_text())
    assert (record["learning_rate"], record["steps"], len(record["trials"])) == (0.2, 320, 6)


def test_of_two_that_score_alike_the_lower_rate_wins():
    assert race((0.3, 0.1), 8, lambda rate, steps: 0.5, None) == 0.1


def test_a_rate_with_which_training_diverges_drops_out():
    def try_rate(rate, steps):
        if rate > 0.1:
            raise TrainingDiverged("nan")
        return 0.5

    assert race((0.3, 0.1, 0.2), 8, try_rate, None) == 0.1
    with pytest.raises(
        TrainingDiverged, match=r"diverged within 8 steps with each of \[0.2, 0.3\]. Give lower"
    ):
        race((0.3, 0.2), 8, try_rate, None)


@pytest.mark.slow
def test_the_winner_trains_in_full_as_if_its_rate_had_been_given(tmp_path):
    reports, told = [], []
    technique = replace(
        QUICK,
        checkpoint=tmp_path,
        on_step=reports.append,
        on_estimate=lambda estimate: told.append(estimate) or True,
    )
    model = technique.apply(tiny_model(), DATA)
    assert answers(model) == answers(replace(QUICK, learning_rate=1e-2).apply(tiny_model(), DATA))
    assert [r.step for r in reports][:3] == [1, 2, 3]
    record = json.loads((tmp_path / "learning_rate.json").read_text())
    assert record["learning_rate"] == 1e-2
    assert (told[0].search_steps, told[0].search_evaluations) == (record["steps"], 5) == (3 * 30 + 2 * 60, 5)
    training = json.loads((tmp_path / "training.json").read_text())
    assert training["settings"]["learning_rate"] == 1e-2
    assert training["learning_rate_race"] == record
    replace(technique, learning_rate=1e-3, epochs=1).apply(tiny_model(), DATA)
    assert json.loads((tmp_path / "training.json").read_text())["learning_rate_race"] is None


def test_a_race_that_was_killed_goes_on_and_repeats_no_trial(tmp_path, monkeypatch):
    taken, original = [], Run.take_step

    def step(self):
        taken.append((self.settings.learning_rate, self.settings.max_steps))
        if len(taken) == 33:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Run, "take_step", step)
    technique = replace(QUICK, checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        technique.apply(tiny_model(), DATA)
    model = technique.apply(tiny_model(), DATA)
    times = [taken.count((rate, steps)) for steps in (30, 60) for rate in sorted(RATES)]
    # The second trial was killed in its third step, before its first checkpoint was due.
    assert times[:3] == [30, 33, 30]
    assert sorted(times[3:]) == [0, 60, 60]
    assert answers(model) == answers(replace(QUICK, learning_rate=1e-2).apply(tiny_model(), DATA))


def test_nothing_is_raced_where_whoever_is_told_does_not_want_training(monkeypatch):
    monkeypatch.setattr("tailorbird.techniques.fine_tune.race", lambda *_: pytest.fail("raced"))
    replace(QUICK, on_estimate=lambda _: False).apply(tiny_model(), DATA)


def test_without_dev_examples_there_is_nothing_to_choose_by():
    with pytest.raises(
        DataError, match=r"learning_rate is 'auto', which is chosen on dev, and there are no dev"
    ):
        FineTune(learning_rate="auto").apply(tiny_model(), replace(DATA, dev=()))


@pytest.mark.parametrize("rates", ["fast", (), (1e-3, 0.0)])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(RecipeError, match=r"fine_tune: learning_rate is .*; several such rates; or \"auto\""):
        FineTune(learning_rate=rates)


def test_a_file_may_give_several_rates_or_auto():
    assert Step("fine_tune", {"learning_rate": [1e-3, 3e-3]}).build().learning_rate == (1e-3, 3e-3)
    assert Step("fine_tune", {"learning_rate": "auto"}).build()._rates() == (3e-4, 1e-3, 3e-3)
    assert Step("fine_tune", {"method": "full", "learning_rate": "auto"}).build()._rates() == pytest.approx(
        (3e-5, 1e-4, 3e-4)
    )


def test_rates_that_are_not_given_are_lower_for_wider_models():
    assert FineTune().settings(100, width=576).learning_rate == rate_race.RATE
    assert FineTune().settings(100, width=4 * 576).learning_rate == pytest.approx(rate_race.RATE / 4)
    assert FineTune().settings(100, width=32).learning_rate == rate_race.RATE
    assert FineTune(learning_rate="auto")._rates(1152) == pytest.approx(
        [rate / 2 for rate in rate_race.RATES]
    )
    for given, first in ((5e-3, 5e-3), ((1e-3, 5e-3), 1e-3)):
        assert FineTune(learning_rate=given).settings(100, width=4096).learning_rate == first


def test_a_models_own_width_decides(monkeypatch):
    monkeypatch.setattr(rate_race, "WIDTH", 8)
    model, rates = tiny_model(), []
    FineTune(rank=4, epochs=2, on_step=lambda r: rates.append(r.learning_rate)).apply(
        model, replace(DATA, dev=())
    )
    assert max(rates) == pytest.approx(2 * rate_race.RATE * 8 / model.engine.network.width)


@pytest.mark.parametrize(
    ("technique", "in_few", "in_many"),
    [
        (FineTune(), 2.0, 1.0),
        (FineTune(method="dora"), 2.0, 1.0),
        (FineTune(method="pissa"), 1.0, 1.0),
        (FineTune(method="full"), 0.1, 0.1),
        (FineTune(objective="dpo"), 0.1, 0.1),
        (FineTune(learning_rate=3 * rate_race.RATE), 3.0, 3.0),
    ],
)
def test_short_trainings_of_fresh_layers_take_twice_the_rate(technique, in_few, in_many):
    technique, few, many = replace(technique, epochs=3), 8 * 33, 8 * 34
    assert technique.settings(few).learning_rate == pytest.approx(in_few * rate_race.RATE)
    assert technique.settings(many).learning_rate == pytest.approx(in_many * rate_race.RATE)
    assert technique.settings(few, fresh=False).learning_rate == technique.settings(many).learning_rate


def test_layers_that_were_trained_before_do_not():
    rates = []
    technique = FineTune(rank=4, epochs=1, on_step=lambda r: rates.append(r.learning_rate))
    data = replace(DATA, dev=())
    once = technique.apply(tiny_model(), data)
    fresh = max(rates)
    rates.clear()
    technique.apply(once, data)
    assert fresh == pytest.approx(2 * max(rates))
