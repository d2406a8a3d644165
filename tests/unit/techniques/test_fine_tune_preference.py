"""Preferences: what FineTune makes of rows with a rejected answer when its objective is "dpo"."""

import json
import math
from dataclasses import replace
from itertools import cycle

import pytest
import torch

from tailorbird.errors import DataError, RecipeError
from tailorbird.models.folders import load_model, save_model
from tailorbird.models.local import open_local
from tailorbird.models.model import as_seen_by_weights
from tailorbird.network.batches import Batch
from tailorbird.network.loss import sequence_log_probabilities
from tailorbird.network.metrics_file import read_metrics
from tailorbird.recipe_file import Step
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.through_wrappers import to_preferences
from tailorbird.testing.tiny import tiny_data, tiny_model

METHODS = ("lora", "rslora", "dora", "pissa", "eva", "full")


def paired(examples, labels):
    """Each with a rejected answer: another label."""
    others = cycle(labels)
    return tuple(
        replace(e, rejected=next(label for label in others if label != e.completion), id="") for e in examples
    )


SUPERVISED = tiny_data()
DATA = replace(
    SUPERVISED,
    **{part: paired(getattr(SUPERVISED, part), SUPERVISED.task.labels) for part in ("train", "dev", "test")},
)
NO_DEV = replace(DATA, dev=())
QUICK = FineTune(objective="dpo", rank=4, epochs=2, learning_rate=5e-3)


def gaps(model, examples):
    """log π(preferred) - log π(rejected), each answer by itself."""
    pairs = to_preferences(model, model, DATA, examples)
    found = []
    with model.engine.using(model.adapter), torch.no_grad():
        for pair in pairs:
            alone = [
                sequence_log_probabilities(
                    model.engine.network, Batch((sequence,)), device=model.engine.device
                )
                for sequence in pair.sequences
            ]
            found.append(float(alone[0] - alone[1]))
    return torch.tensor(found)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_at_the_loss_of_a_coin_and_gains_where_it_was_not_trained(method):
    reports, base = [], tiny_model()
    technique = replace(QUICK, method=method, rank=16, epochs=8, on_step=reports.append)
    model = technique.apply(base, NO_DEV)
    assert reports[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert reports[-1].loss < 0.4
    assert reports[-1].reward_accuracy > 0.7
    gained = gaps(model, DATA.test) - gaps(base, DATA.test)
    assert gained.mean() > 1
    assert (gained > 0).float().mean() > 0.6


def test_a_model_that_was_tuned_is_its_own_reference():
    reports = []
    first = FineTune(rank=4, epochs=12, learning_rate=5e-3).apply(tiny_model(), NO_DEV)
    second = replace(QUICK, epochs=4, on_step=reports.append).apply(first, NO_DEV)
    assert reports[0].loss == pytest.approx(math.log(2), abs=1e-4)
    assert (gaps(second, DATA.train) - gaps(first, DATA.train)).mean() > 0.5


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "method",
    [method if method == "lora" else pytest.param(method, marks=pytest.mark.slow) for method in METHODS],
)
def test_a_killed_training_goes_on_to_the_same_answers(method, tmp_path, monkeypatch):
    original = FineTune.settings
    monkeypatch.setattr(
        FineTune,
        "settings",
        lambda self, *n, **how: replace(original(self, *n, **how), checkpoint_every_steps=1),
    )
    technique, steps = replace(QUICK, method=method, checkpoint=tmp_path), []
    expected = gaps(replace(technique, checkpoint=None).apply(tiny_model(), DATA), DATA.test)

    def kill(report):
        if report.step == 3:
            raise KilledError

    base = tiny_model()
    with pytest.raises(KilledError):
        replace(technique, on_step=kill).apply(base, DATA)
    resumed = replace(technique, on_step=lambda report: steps.append(report.step)).apply(base, DATA)
    assert steps == [4, 5, 6]
    assert torch.equal(gaps(resumed, DATA.test), expected)


def test_it_is_saved_and_its_answers_come_back(tmp_path):
    tiny_model().engine.save(tmp_path / "base")
    model = QUICK.apply(open_local(str(tmp_path / "base")), DATA)
    save_model(model, tmp_path / "saved", task=DATA.task)
    found = load_model(tmp_path / "saved", {}).model
    torch.testing.assert_close(gaps(found, DATA.test), gaps(model, DATA.test), atol=1e-5, rtol=1e-5)


def test_what_it_takes_is_told_before_and_every_step_is_written(tmp_path):
    told = []
    technique = replace(QUICK, checkpoint=tmp_path, on_estimate=lambda e: told.append(e) or True)
    technique.apply(tiny_model(), DATA)
    [estimate] = told
    record = json.loads((tmp_path / "training.json").read_text())
    assert estimate.reference_s > 0
    assert record["settings"]["beta"] == 0.1
    measured = record["measured"]
    assert (measured["tokens"], measured["shared_tokens"]) == (estimate.tokens, estimate.shared_tokens)
    assert measured["shared_tokens"] > 0.6 * measured["tokens"]
    steps = read_metrics(tmp_path / "metrics.jsonl")[1]
    assert [step["step"] for step in steps] == list(range(1, 7))
    assert all({"reward_margin", "reward_accuracy"} <= step.keys() for step in steps)


def test_a_race_over_rates_asks_the_untrained_model_once(monkeypatch, tmp_path):
    from tailorbird.network import untrained

    asked, original = [], untrained._ask
    monkeypatch.setattr(untrained, "_ask", lambda *given, **how: asked.append(1) or original(*given, **how))
    replace(QUICK, learning_rate=(1e-3, 5e-3), checkpoint=tmp_path).apply(tiny_model(), DATA)
    assert len(asked) == 1


def test_preferences_are_seen_through_the_wrappers():
    base = tiny_model()
    wrapped = FewShot(k=3, select="fixed").apply(base, DATA)
    pairs = to_preferences(base, wrapped, DATA, DATA.train)
    template = base.engine.template
    for example, pair in zip(DATA.train, pairs, strict=True):
        request = as_seen_by_weights(wrapped, DATA.task.ask(example))
        assert pair.preferred.prompt == pair.rejected.prompt == template.prompt(request).ids
        assert pair.preferred.completion == template.completion(example.completion)
        assert pair.rejected.completion == template.completion(example.rejected)
    tuned = replace(QUICK, epochs=1).apply(wrapped, NO_DEV)
    assert tuned.answer([DATA.task.ask(DATA.test[0])])[0].text in DATA.task.labels


def test_its_default_rate_is_a_tenth_and_it_passes_over_the_examples_at_most_three_times():
    settings = {m: FineTune(objective="dpo", method=m).settings(100) for m in ("lora", "full")}
    assert settings["lora"].learning_rate == pytest.approx(1e-4)
    assert settings["full"].learning_rate == pytest.approx(1e-5)
    assert (settings["lora"].epochs, settings["lora"].beta) == (3, 0.1)
    assert FineTune(objective="dpo").settings(9000).epochs == 2
    supervised = FineTune().settings(100)
    assert (supervised.epochs, supervised.beta) == (10, None)


def test_a_recipe_file_names_the_objective():
    assert Step("fine_tune", {"objective": "dpo", "beta": 0.2}).build() == FineTune(objective="dpo", beta=0.2)
    with pytest.raises(RecipeError, match=r"technique 'fine_tune': beta is 'high'; expected float"):
        Step("fine_tune", {"objective": "dpo", "beta": "high"}).build()


def test_settings_out_of_range_are_refused():
    with pytest.raises(RecipeError, match=r"objective is 'ppo'; expected one of \['supervised', 'dpo'\]"):
        FineTune(objective="ppo")
    with pytest.raises(RecipeError, match=r"beta is 0; expected above 0\. 0\.05 to 0\.5 are usual"):
        FineTune(objective="dpo", beta=0)


def test_examples_without_a_rejected_answer_are_refused_and_the_first_is_named():
    with pytest.raises(
        DataError,
        match=r"tiny\.jsonl:1: no rejected answer, and so in 24 of 24 training examples.*objective = \"supervised\"",
    ):
        QUICK.apply(tiny_model(), SUPERVISED)
    some = replace(DATA, train=(*DATA.train[:5], *SUPERVISED.train[5:7], *DATA.train[7:]))
    with pytest.raises(
        DataError, match=r"tiny\.jsonl:6: no rejected answer, and so in 2 of 24 training examples"
    ):
        QUICK.apply(tiny_model(), some)


def test_without_the_objective_rejected_answers_are_left_out():
    losses = [[], []]
    for data, seen in zip((DATA, SUPERVISED), losses, strict=True):
        technique = FineTune(
            rank=4, epochs=1, learning_rate=1e-2, on_step=lambda r, seen=seen: seen.append(r.loss)
        )
        technique.apply(tiny_model(), replace(data, dev=()))
    assert losses[0] == losses[1]
