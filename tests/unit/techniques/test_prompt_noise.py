import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.errors import RecipeError
from tailorbird.network.settings import TrainSettings
from tailorbird.network.training import train
from tailorbird.records import Example, Message
from tailorbird.techniques.few_shot import FewShot
from tailorbird.techniques.fine_tune import FineTune, trained_in
from tailorbird.techniques.prompt_noise import Lessons, noisy, num_views, with_views
from tailorbird.techniques.through_wrappers import to_sequences
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA = tiny_data()
TEXT = "my card has not arrived\nand it is late"


@given(st.text(max_size=80), st.floats(0, 0.99), st.randoms(use_true_random=False))
def test_only_words_that_were_there_are_left_and_at_least_one(text, noise, dice):
    before, after = text.split(), noisy(text, noise, dice).split()
    for word in after:
        before.remove(word)
    assert bool(after) == bool(text.split())


def test_a_share_of_the_words_is_left_out_and_every_other_time_neighbours_change_places():
    words = [str(n) for n in range(20)]
    found = [noisy(" ".join(words), 0.15, random.Random(n)).split() for n in range(400)]
    assert sum(map(len, found)) / 400 == pytest.approx(17, abs=0.3)
    swapped = sum(said != sorted(said, key=int) for said in found)
    assert 160 < swapped < 240


def test_blanks_between_words_stay():
    assert noisy("a\n\nb", 0.0, random.Random(0)) == "a\n\nb"
    three = {noisy("a\n\nb c", 0.0, random.Random(n)) for n in range(20)}
    assert three == {"a\n\nb c", "b\n\na c", "a\n\nc b"}


def test_views_are_the_examples_again_in_their_order_with_noise_in_the_last_message_alone():
    weights = tiny_model()
    example = Example(
        (Message("user", "hello there"), Message("assistant", "yes?"), Message("user", TEXT)), "order"
    )
    examples = [example, *DATA.train[:3]]
    plain = to_sequences(weights, weights, DATA, examples)
    found = with_views(weights, weights, DATA, examples, plain, views=4, noise=0.4, seed=0)
    assert found[:4] == plain
    assert len(found) == 16
    for view in (found[4:8], found[8:12], found[12:]):
        assert [s.completion for s in view] == [s.completion for s in plain]
        assert any(one.prompt != other.prompt for one, other in zip(view, plain, strict=True))
        assert "hello there" in weights.engine.tokenizer.decode(view[0].prompt)
    assert len({tuple(s.prompt for s in found[n::4]) for n in range(4)}) == 4
    assert found == with_views(weights, weights, DATA, examples, plain, views=4, noise=0.4, seed=0)
    assert found != with_views(weights, weights, DATA, examples, plain, views=4, noise=0.4, seed=1)


def test_behind_a_metaprompt_an_example_with_noise_is_still_not_shown_itself():
    weights = tiny_model()
    model = FewShot(k=16, select="fixed").apply(weights, replace(DATA, train=DATA.train[:4]))
    plain = to_sequences(weights, model, DATA, DATA.train[:1])
    found = with_views(weights, model, DATA, DATA.train[:1], plain, views=8, noise=0.3, seed=0)
    assert len({s.prompt for s in found}) > 2
    for sequence in found:
        assert DATA.train[0].prompt not in weights.engine.tokenizer.decode(sequence.prompt[:-30])


def test_an_example_that_would_be_too_long_with_noise_stands_there_without(monkeypatch):
    weights = tiny_model(context=200)
    short, long = Example.pair("a b c d", "order"), Example.pair("my bike is broken " * 6, "repair")
    plain = to_sequences(weights, weights, DATA, [short])
    monkeypatch.setattr("tailorbird.techniques.prompt_noise.noisy", lambda *_: long.prompt * 40)
    assert with_views(weights, weights, DATA, [short], plain, views=2, noise=0.1, seed=0) == [*plain, *plain]


@pytest.mark.parametrize(
    ("technique", "data", "views"),
    [
        (FineTune(epochs=4), DATA, 4),
        (FineTune(epochs=2.5), DATA, 1),
        (FineTune(epochs=2.5, prompt_noise=0.2), DATA, 3),
        (FineTune(epochs=4, prompt_noise=0.0), DATA, 1),
        (FineTune(), DATA, 10),
        (FineTune(epochs=40), DATA, 16),
        (FineTune(epochs=4), tiny_questions(), 1),
    ],
)
def test_labels_learnt_in_many_passes_get_noise_by_default_and_free_answers_do_not(technique, data, views):
    weights = tiny_model()
    lessons = technique._lessons(weights, weights, data)
    assert lessons.views == views
    assert len(lessons.units) == views * len(lessons.plain)
    assert list(lessons.plain) == to_sequences(weights, weights, data, data.train)


def test_a_pass_goes_over_one_view_of_each_example_and_the_next_over_the_next(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "tailorbird.network.run.Run.gradients_of",
        lambda run, sequences: seen.extend(sequences) or 0.0,
    )
    technique = FineTune(rank=2, epochs=3, max_dev=0, batch_size=5, prompt_noise=0.3)
    technique.apply(tiny_model(), DATA)
    weights = tiny_model()
    lessons = technique._lessons(weights, weights, DATA)
    size = len(lessons.plain)
    assert len(seen) == 3 * size
    for view in range(3):
        part = seen[view * size : (view + 1) * size]
        expected = lessons.units[view * size : (view + 1) * size]
        assert sorted(part, key=lambda s: s.prompt) == sorted(expected, key=lambda s: s.prompt)


def test_a_killed_training_with_noise_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    class StoppedError(Exception):
        pass

    def stop(report):
        if report.step == 7:
            raise StoppedError

    # A checkpoint after every step instead of every 20 seconds.
    original, steps = FineTune.settings, []
    monkeypatch.setattr(
        FineTune,
        "settings",
        lambda self, *n, **how: replace(original(self, *n, **how), checkpoint_every_steps=1),
    )
    technique = FineTune(rank=2, epochs=4, learning_rate=1e-2, batch_size=6, max_dev=4, patience=100)
    undisturbed = technique.apply(tiny_model(), DATA)
    kept = replace(technique, checkpoint=tmp_path / "kept")
    with pytest.raises(StoppedError):
        replace(kept, on_step=stop).apply(tiny_model(), DATA)
    again = replace(kept, on_step=lambda report: steps.append(report.step)).apply(tiny_model(), DATA)
    assert steps[0] in (7, 8)
    assert len(steps) > 8, "it goes on into views that the killed run had not come to"
    asked = [DATA.task.ask(e) for e in DATA.test[:4]]
    for found, expected in zip(again.answer(asked), undisturbed.answer(asked), strict=True):
        assert dict(found.probabilities) == dict(expected.probabilities)


@pytest.mark.parametrize("epochs", [0, -1, float("inf"), float("nan")])
def test_impossible_passes_are_refused_as_without_noise(epochs):
    with pytest.raises(RecipeError, match="epochs must be above 0 and finite"):
        FineTune(epochs=epochs, prompt_noise=0.1).apply(tiny_model(), DATA)


@pytest.mark.parametrize("noise", [-0.1, 1.0, float("nan")])
def test_noise_is_a_part_of_the_words(noise):
    with pytest.raises(RecipeError, match=r"prompt_noise is .*; expected 0 to below 1. 0.1 to 0.3 are usual"):
        FineTune(prompt_noise=noise)


def test_preferences_are_learnt_without_noise():
    with pytest.raises(
        RecipeError, match=r"prompt_noise is 0.1 with objective 'dpo'.*Leave prompt_noise out"
    ):
        FineTune(prompt_noise=0.1, objective="dpo")


def test_views_must_come_equally_often():
    weights = tiny_model()
    sequences = to_sequences(weights, weights, DATA, DATA.train[:3])
    with (
        weights.engine.lock,
        pytest.raises(RecipeError, match=r"There are 3 sequences.*are not 2 views of each"),
    ):
        train(weights.engine.network, trained_in(weights), sequences, TrainSettings(views=2))


def test_lessons_know_their_first_view():
    lessons = Lessons(["a", "b", "a'", "b'"], views=2)
    assert lessons.plain == ["a", "b"]
    assert Lessons(["a", "b"]).plain == ["a", "b"]
    assert num_views(1.01) == 2
