from dataclasses import replace

import pytest
import torch

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.model import Wrapped
from tailorbird.models.remote import RemoteWeights
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.fine_tune import FineTune, epochs_for
from tailorbird.techniques.through_wrappers import dev_score
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = tiny_data()
NO_DEV = replace(DATA, dev=())
QUICK = FineTune(rank=4, epochs=2, learning_rate=1e-2)


def layers(model):
    """The trained layers by name, without the adapter's."""
    part = f".{model.adapter}."
    named = model.engine.model.named_parameters()
    return {name.replace(part, "."): p.detach().clone() for name, p in named if part in name}


def accuracy(model, examples):
    answers = model.answer([DATA.task.ask(e) for e in examples])
    return sum(a.text == e.completion for a, e in zip(answers, examples, strict=True)) / len(examples)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_what_tells_the_labels_apart():
    losses = []
    technique = FineTune(
        rank=16,
        epochs=20,
        learning_rate=1e-2,
        batch_size=8,
        prompt_noise=0.0,
        on_step=lambda r: losses.append(r.loss),
    )
    base = tiny_model()
    model = technique.apply(base, NO_DEV)
    assert len(losses) == 60
    assert losses[-1] < 0.1 * losses[0]
    assert accuracy(model, DATA.train) > 0.9
    assert accuracy(base, DATA.train) < 0.5
    assert accuracy(model, DATA.test) > 0.5


def test_only_the_new_layers_change_and_the_given_model_answers_as_before():
    base = tiny_model()
    asked = [DATA.task.ask(e) for e in DATA.test]
    before = base.answer(asked)
    fingerprint = base.engine.fingerprint()
    model = QUICK.apply(base, DATA)
    assert base.engine.fingerprint() == fingerprint
    assert base.adapter is None
    for now, was in zip(base.answer(asked), before, strict=True):
        assert dict(now.probabilities) == pytest.approx(dict(was.probabilities), abs=1e-6)
    assert any(tensor.abs().sum() > 0 for name, tensor in layers(model).items() if "lora_B" in name)


def test_the_layers_stand_at_every_linear_layer_and_have_the_rank_asked_for():
    found = layers(FineTune(rank=3, epochs=1).apply(tiny_model(), NO_DEV))
    names = {name.split(".lora_")[0].split(".")[-1] for name in found}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {tensor.shape[0] for name, tensor in found.items() if "lora_A" in name} == {3}


def test_a_model_that_was_tuned_goes_on_from_a_copy():
    first = QUICK.apply(tiny_model(), DATA)
    before = layers(first)
    second = QUICK.apply(first, DATA)
    assert second.adapter != first.adapter
    assert same(layers(first), before)
    assert not same(layers(second), before)
    assert accuracy(
        FineTune(rank=4, epochs=1, learning_rate=1e-9).apply(first, NO_DEV), DATA.train
    ) == accuracy(first, DATA.train)


def test_the_same_settings_train_the_same_layers_and_another_seed_others():
    one, again = (layers(QUICK.apply(tiny_model(), DATA)) for _ in range(2))
    assert same(one, again)
    assert not same(one, layers(replace(QUICK, seed=1).apply(tiny_model(), DATA)))


def test_training_does_not_touch_the_programs_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    QUICK.apply(tiny_model(), DATA)
    assert torch.equal(torch.rand(3), expected)


class KilledError(Exception):
    pass


def killed_at(step):
    def on_step(report):
        if report.step == step:
            raise KilledError

    return on_step


def test_a_killed_training_goes_on_to_the_same_layers(tmp_path, monkeypatch):
    # A checkpoint after every step instead of every 20 seconds.
    original = FineTune.settings
    monkeypatch.setattr(
        FineTune,
        "settings",
        lambda self, *n, **how: replace(original(self, *n, **how), checkpoint_every_steps=1),
    )
    technique = FineTune(rank=4, epochs=4, learning_rate=1e-2, batch_size=8, checkpoint=tmp_path)
    expected = layers(replace(technique, checkpoint=None).apply(tiny_model(), DATA))
    base = tiny_model()
    with pytest.raises(KilledError):
        replace(technique, on_step=killed_at(5)).apply(base, DATA)
    assert not [n for n, _ in base.engine.model.named_parameters() if ".lora_" in n]
    steps = []
    resumed = replace(technique, on_step=lambda report: steps.append(report.step)).apply(base, DATA)
    assert steps[0] == 6
    assert same(layers(resumed), expected)


def test_checkpoints_of_other_weights_or_another_start_are_not_taken_up(tmp_path):
    technique = FineTune(rank=4, epochs=1, learning_rate=1e-2, batch_size=16, checkpoint=tmp_path)
    first = technique.apply(tiny_model(), NO_DEV)
    steps = []
    again = replace(technique, on_step=lambda report: steps.append(report.step))
    again.apply(tiny_model(), NO_DEV)
    assert steps == []  # finished already
    again.apply(tiny_model(seed=1), NO_DEV)
    assert steps == [1, 2]
    again.apply(first, NO_DEV)
    assert steps == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "model",
    [
        Blank(),
        RemoteWeights("http://127.0.0.1:1/v1", "far"),
        FewShot(k=1, select="fixed").apply(Blank(), DATA),
    ],
)
def test_what_is_no_local_weights_cannot_be_trained(model):
    with pytest.raises(
        Unsupported, match=r"fine_tune: '(blank|far)' \((Blank|RemoteWeights)\) cannot be trained here"
    ):
        QUICK.apply(model, DATA)


def test_wrappers_stay_over_the_tuned_weights():
    wrapped = FewShot(k=1, select="fixed").apply(tiny_model(), DATA)
    tuned = QUICK.apply(wrapped, DATA)
    assert isinstance(tuned, Wrapped)
    assert tuned.rewrite.shown == wrapped.rewrite.shown
    assert tuned.rewrite.made_of["adapter"]
    assert "adapter" not in wrapped.rewrite.made_of
    assert tuned.base.adapter is not None


def test_without_training_examples_nothing_can_be_trained():
    with pytest.raises(DataError, match=r"fine_tune: there are no training examples"):
        QUICK.apply(tiny_model(), Data(DATA.task, ()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0; expected 1 to 512"),
        ({"rank": 513}, "rank is 513"),
        ({"learning_rate": 0}, "learning_rate is 0; expected above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        FineTune(**settings)


@pytest.mark.parametrize("setting", [{"epochs": -1.0}, {"batch_size": 0}, {"patience": 0}])
def test_settings_of_the_loop_out_of_range_are_refused_and_leave_nothing_behind(setting):
    base = tiny_model()
    with pytest.raises(RecipeError, match=next(iter(setting))):
        FineTune(rank=2, **setting).apply(base, NO_DEV)
    assert not [n for n, _ in base.engine.model.named_parameters() if ".lora_" in n]


def test_small_sets_are_passed_over_more_often():
    assert [epochs_for(n) for n in (0, 1, 300, 600, 1500, 10**6)] == [10, 10, 10, 5, 2, 2]


def test_the_score_while_training_is_that_of_the_trained_model_afterwards():
    data, scores = replace(DATA, dev=DATA.train), []
    technique = FineTune(
        rank=16, epochs=20, learning_rate=1e-2, patience=100, prompt_noise=0.0, on_step=scores.append
    )
    model = technique.apply(tiny_model(), data)
    best = max(report.score for report in scores if report.score is not None)
    assert best > 0.9
    assert dev_score(model, model, data, data.dev) == pytest.approx(best, abs=1e-5)
