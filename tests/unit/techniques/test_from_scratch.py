from dataclasses import replace

import pytest
import torch

from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError, Unsupported
from tailorbird.models.blank import Blank
from tailorbird.models.folders import load_model, save_model
from tailorbird.models.remote import RemoteWeights
from tailorbird.network import training
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch, new_tokenizer, plain_texts
from tailorbird.testing.models import check_model
from tailorbird.testing.tiny import tiny_data, tiny_documents

DATA = tiny_data()
TINY = FromScratch(depth=1, vocab_size=320, context=256, text_epochs=1, epochs=1, max_dev=4)


def weights(model):
    return {name: p.detach().clone() for name, p in model.engine.model.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("architecture", ["tailorbird", "llama", "gpt2", "qwen3", "gemma3_text"])
def test_an_architecture_is_built_answers_is_saved_and_tuned(architecture, tmp_path):
    model = replace(TINY, architecture=architecture).apply(Blank(), DATA)
    check_model(model)
    asked = [DATA.task.ask(e) for e in DATA.test[:4]]
    save_model(model, tmp_path / "saved", task=DATA.task)
    loaded = load_model(tmp_path / "saved", {}).model
    for found, expected in zip(loaded.answer(asked), model.answer(asked), strict=True):
        assert dict(found.probabilities) == pytest.approx(dict(expected.probabilities), abs=1e-5)
    check_model(FineTune(rank=2, epochs=1).apply(loaded, DATA), asked[:2])


@pytest.mark.parametrize("architecture", ["t5", "no_such_model"])
def test_an_architecture_that_cannot_be_built_is_refused(architecture):
    with pytest.raises(
        RecipeError, match=rf"cannot build architecture '{architecture}'.*Expected 'tailorbird' or"
    ):
        replace(TINY, architecture=architecture).apply(Blank(), DATA)


def test_an_architecture_that_cannot_be_run_exactly_is_refused_before_any_training():
    steps = []
    with pytest.raises(Unsupported, match=r"'mamba'.*layers other than attention"):
        replace(TINY, architecture="mamba", on_step=steps.append).apply(Blank(), DATA)
    assert steps == []


def test_it_learns_what_tells_the_labels_apart():
    losses = []
    technique = replace(TINY, epochs=100, learning_rate=3e-3, on_step=lambda r: losses.append(r.loss))
    model = technique.apply(Blank(), replace(DATA, dev=()))
    answers = model.answer([DATA.task.ask(e) for e in DATA.train])
    right = sum(a.text == e.completion for a, e in zip(answers, DATA.train, strict=True))
    assert right / len(DATA.train) > 0.9
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("model", [Blank(), RemoteWeights("http://127.0.0.1:1/v1", "far")])
def test_any_weights_can_be_replaced_and_wrappers_stay(model):
    wrapped = FewShot(k=1, select="fixed", calibrate="none").apply(model, DATA)
    made = TINY.apply(wrapped, DATA)
    assert made.rewrite.shown == wrapped.rewrite.shown
    assert made.base.name.startswith("from_scratch")
    assert made.base.num_parameters > 10_000


def test_the_same_seed_makes_the_same_weights_and_another_others():
    one, again, other = (weights(replace(TINY, seed=s).apply(Blank(), DATA)) for s in (0, 0, 1))
    assert same(one, again)
    assert not same(one, other)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("architecture", ["tailorbird", "gpt2"])
@pytest.mark.parametrize("killed_at", [2, 7], ids=["in_the_text", "in_the_examples"])
def test_a_killed_training_goes_on_to_the_same_weights(architecture, killed_at, tmp_path, monkeypatch):
    monkeypatch.setattr(training.Keeper, "keep_if_due", training.Keeper.keep)
    technique = replace(TINY, architecture=architecture, text_epochs=4, epochs=4)
    expected = weights(technique.apply(Blank(), DATA))
    steps = []

    def count(report):
        steps.append(report.step)
        if len(steps) == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        replace(technique, checkpoint=tmp_path, on_step=count).apply(Blank(), DATA)
    resumed = replace(technique, checkpoint=tmp_path, on_step=count).apply(Blank(), DATA)
    assert len(steps) == 4 + 8  # no step twice
    assert same(weights(resumed), expected)


def test_it_reads_the_documents_and_the_training_examples_and_nothing_else(tmp_path):
    texts = plain_texts(tiny_data(tiny_documents(tmp_path)))
    assert len(texts) == 3 + len(DATA.train)
    assert any("forty euros" in text for text in texts)
    assert not any(example.prompt in text.split("\n")[0] for text in texts[3:] for example in DATA.test)


def test_the_tokenizer_has_the_turns_control_tokens_and_writes_any_text():
    tokenizer = new_tokenizer(["a b c"] * 9, 300)
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert len(tokenizer) <= 300
    assert tokenizer.decode(tokenizer("東京 🦜")["input_ids"]) == "東京 🦜"


def test_without_training_examples_nothing_can_be_trained():
    with pytest.raises(DataError, match="from_scratch: there are no training examples"):
        TINY.apply(Blank(), Data(DATA.task, ()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth is 0; expected 1 to 48 layers"),
        ({"depth": 49}, "depth is 49"),
        ({"context": 63}, "context is 63 tokens; expected 64 or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        FromScratch(**settings)
