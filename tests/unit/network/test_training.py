import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tailorbird.errors import DataError, RecipeError
from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.sequences import TokenSequence, blocks
from tailorbird.network.settings import TrainSettings
from tailorbird.network.training import train

SHAPE = DecoderShape(32, 16, 2, 2, 1, 32, 64)
PREAMBLE = tuple(range(10))
# The completion is the prompt's last token and a stop token: easy to learn.
SEQUENCES = [TokenSequence((*PREAMBLE, *([9] * (n % 3)), 10 + n % 8), (10 + n % 8, 31)) for n in range(40)]
SETTINGS = TrainSettings(learning_rate=1e-2, epochs=2, batch_size=8, checkpoint_every_steps=1)


class Dropping(Decoder):
    """A decoder with dropout, so that a run depends on random numbers and on the mode."""

    shares_prefix = False

    def hidden(self, ids_BT, **rest):
        hidden, past = super().hidden(ids_BT, **rest)
        return nn.functional.dropout(hidden, 0.2, self.training), past


class Stop(Exception):  # noqa: N818
    pass


def run(decoder=None, sequences=SEQUENCES, settings=SETTINGS, **rest):
    decoder = decoder or Decoder(SHAPE, seed=1)
    return decoder, train(decoder, dict(decoder.named_parameters()), sequences, settings, **rest)


def assert_equal(one, other):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_loss_falls():
    _, result = run(settings=replace(SETTINGS, epochs=12))
    assert result.steps == len(result.losses) == 60
    assert result.losses[0] > 3.0
    assert result.loss < 0.5


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_text_without_prompts_is_learnt_by_both_optimizers(optimizer):
    text = blocks([n % 7 for n in range(400)], 16)
    _, result = run(sequences=text, settings=replace(SETTINGS, epochs=20, optimizer=optimizer))
    assert result.loss < 0.3 * result.losses[0]


def test_steps_follow_from_epochs_or_are_given():
    assert run(settings=replace(SETTINGS, epochs=0.5))[1].steps == 3
    assert run(settings=replace(SETTINGS, max_steps=4))[1].steps == 4


def test_the_same_arguments_give_the_same_parameters_and_leave_torch_alone():
    before = torch.get_rng_state()
    one, other = run(Dropping(SHAPE))[0], run(Dropping(SHAPE))[0]
    assert torch.equal(before, torch.get_rng_state())
    assert_equal(one, other)
    different = run(Dropping(SHAPE), settings=replace(SETTINGS, seed=1))[0]
    assert not torch.equal(one.embedding.weight, different.embedding.weight)


def test_only_the_given_parameters_move():
    decoder, fresh = Decoder(SHAPE, seed=1), Decoder(SHAPE, seed=1)
    chosen = {"gate": decoder.blocks[0].feed_forward.gate.weight}
    train(decoder, chosen, SEQUENCES, SETTINGS)
    for (name, moved), still in zip(decoder.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(moved, still) == (name != "blocks.0.feed_forward.gate.weight"), name


def test_splitting_a_step_into_smaller_batches_changes_nothing():
    uneven = [TokenSequence(s.prompt, s.completion[: 1 + n % 2], 1 + n % 3) for n, s in enumerate(SEQUENCES)]
    whole = run(sequences=uneven)
    parts = run(sequences=uneven, settings=replace(SETTINGS, max_batch_tokens=20))
    assert parts[1].losses == pytest.approx(whole[1].losses, rel=1e-4)


def test_the_plain_and_the_shared_path_learn_the_same():
    shared, plain = run(), run(settings=replace(SETTINGS, share_prefix=False))
    assert shared[1].losses == pytest.approx(plain[1].losses, rel=1e-4)
    assert plain[1].shared_fraction == 0.0
    assert plain[1].tokens == shared[1].tokens
    assert shared[1].shared_fraction > 0.6


def test_sequences_without_labels_change_nothing():
    more = [*SEQUENCES, TokenSequence((1, 2), ()), TokenSequence((1,), (2,), weight=0.0)]
    assert run(sequences=more)[1].losses == run()[1].losses


def test_nothing_to_learn_is_refused():
    with pytest.raises(DataError, match="nothing to learn: none of 1 sequences has a completion token"):
        run(sequences=[TokenSequence((1, 2), ())])
    with pytest.raises(DataError, match="none of 0 sequences"):
        run(sequences=[])


def test_no_or_frozen_parameters_are_refused():
    decoder = Decoder(SHAPE)
    with pytest.raises(RecipeError, match="no parameters were given"):
        train(decoder, {}, SEQUENCES, SETTINGS)
    frozen = {"e": decoder.embedding.weight.requires_grad_(False)}
    with pytest.raises(RecipeError, match="1 of the parameters to train are frozen, such as 'e'"):
        train(decoder, frozen, SEQUENCES, SETTINGS)


def test_a_loss_that_is_no_number_names_step_and_learning_rate():
    decoder = Decoder(SHAPE)
    with torch.no_grad():
        decoder.embedding.weight[31] = float("nan")
    with pytest.raises(
        RecipeError, match=r"diverged at step 1 of 10: the loss is nan.*rate 0.01.*0.001 or less"
    ):
        run(decoder)


def test_each_step_is_reported():
    reports = []
    _, result = run(on_step=reports.append)
    assert [report.step for report in reports] == list(range(1, 11))
    assert [report.loss for report in reports] == list(result.losses)
    assert {report.total_steps for report in reports} == {10}
    assert reports[0].learning_rate == pytest.approx(1e-2)
    assert reports[-1].learning_rate < 1e-3
    assert reports[-1].tokens == result.tokens == 2 * sum(len(s.inputs) for s in SEQUENCES)
    assert all(report.score is None and report.gradient_norm > 0 for report in reports)


def test_the_best_parameters_by_score_are_put_back():
    decoder = Decoder(SHAPE, seed=1)
    seen, scores = [], iter([0.2, 0.9, 0.9, 0.3])

    def dev_score():
        assert not decoder.training
        assert not torch.is_grad_enabled()
        seen.append(decoder.embedding.weight.clone())
        return next(scores)

    _, result = run(decoder, settings=replace(SETTINGS, epochs=4), dev_score=dev_score)
    assert (result.best_step, result.best_score, result.stopped_early) == (10, 0.9, False)
    assert torch.equal(decoder.embedding.weight, seen[1])
    assert not decoder.training


def test_training_stops_when_the_score_no_longer_improves():
    scores = iter([0.5, 0.6, 0.6, 0.1])
    _, result = run(settings=replace(SETTINGS, epochs=50, patience=2), dev_score=lambda: next(scores))
    assert (result.stopped_early, result.steps, result.best_step) == (True, 20, 10)


def test_patience_that_is_out_when_all_steps_are_done_stops_nothing_early():
    scores = iter([0.9, 0.5])
    settings = replace(SETTINGS, epochs=2, patience=1)
    _, result = run(settings=settings, dev_score=lambda: next(scores))
    assert next(scores, None) is None
    assert (result.stopped_early, result.steps, result.best_step) == (False, 10, 5)


def test_untrained_parameters_can_be_the_best():
    decoder = Decoder(SHAPE, seed=1)
    scores = iter([0.9, 0.1, 0.1])
    _, result = run(decoder, settings=replace(SETTINGS, evaluate_first=True), dev_score=lambda: next(scores))
    assert (result.best_step, result.best_score) == (0, 0.9)
    assert_equal(decoder, Decoder(SHAPE, seed=1))


def test_evaluations_come_as_often_as_asked_and_at_the_end():
    reports = []
    often = replace(SETTINGS, epochs=1.8, evaluations_per_epoch=2)
    run(settings=often, dev_score=lambda: 0.5, on_step=reports.append)
    assert [report.step for report in reports if report.score is not None] == [2, 4, 6, 8, 9]


def test_a_score_that_draws_random_numbers_does_not_change_training():
    quiet = run(Dropping(SHAPE), dev_score=lambda: 0.0, settings=replace(SETTINGS, max_steps=6))[1]
    loud = run(
        Dropping(SHAPE), dev_score=lambda: 0 * torch.rand(1).item(), settings=replace(SETTINGS, max_steps=6)
    )
    assert quiet.losses == loud[1].losses


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(RecipeError, match="dev_score gave nan after step 5"):
        run(dev_score=lambda: float("nan"))


def test_what_was_done_is_kept_when_the_listener_ends_it(tmp_path):
    seldom = replace(SETTINGS, checkpoint_every_steps=1000)
    with pytest.raises(Stop):
        run(settings=seldom, checkpoint=tmp_path, on_step=stop_after(7))
    reports = []
    run(settings=seldom, checkpoint=tmp_path, on_step=reports.append)
    assert reports[0].step == 8


def stop_after(step):
    def on_step(report):
        if report.step == step:
            raise Stop

    return on_step


def lose_newest(folder):
    """As when a process was killed before its last checkpoint was whole."""
    (max(folder.glob("*-0*")) / "tensors.safetensors").write_bytes(b"torn")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [3, 5, 9])
def test_an_interrupted_run_ends_in_the_same_parameters(tmp_path, stop, optimizer):
    settings = replace(SETTINGS, optimizer=optimizer, checkpoint_every_steps=2, patience=5)

    def scorer(decoder):
        return lambda: -float(decoder.embedding.weight.abs().sum())

    undisturbed = Dropping(SHAPE)
    expected = run(undisturbed, settings=settings, dev_score=scorer(undisturbed))[1]
    first = Dropping(SHAPE)
    with pytest.raises(Stop):
        run(first, settings=settings, dev_score=scorer(first), checkpoint=tmp_path, on_step=stop_after(stop))
    lose_newest(tmp_path)
    second, reports = Dropping(SHAPE, seed=99), []
    resumed = run(
        second, settings=settings, dev_score=scorer(second), checkpoint=tmp_path, on_step=reports.append
    )[1]
    assert reports[0].step == stop // 2 * 2 + 1
    assert_equal(undisturbed, second)
    assert replace(resumed, seconds=0) == replace(expected, seconds=0)


def test_a_finished_run_is_not_repeated(tmp_path):
    once = run(checkpoint=tmp_path)
    reports = []
    again = run(Decoder(SHAPE, seed=5), checkpoint=tmp_path, on_step=reports.append)
    assert reports == []
    assert_equal(once[0], again[0])
    assert again[1] == once[1]


def test_a_run_stopped_early_is_not_continued(tmp_path):
    settings = replace(SETTINGS, epochs=20, patience=1)
    once = run(settings=settings, checkpoint=tmp_path, dev_score=lambda: 0.5)
    again = run(Decoder(SHAPE, seed=5), settings=settings, checkpoint=tmp_path, dev_score=lambda: 0.5)
    assert once[1].stopped_early
    assert again[1] == once[1]
    assert_equal(once[0], again[0])


@pytest.mark.parametrize("change", ["settings", "sequences", "identity"])
def test_a_checkpoint_of_another_run_is_not_used(tmp_path, change):
    run(checkpoint=tmp_path)
    rest = {
        "settings": {"settings": replace(SETTINGS, learning_rate=2e-2)},
        "sequences": {"sequences": SEQUENCES[:-1]},
        "identity": {"identity": "other weights"},
    }[change]
    reports = []
    run(checkpoint=tmp_path, on_step=reports.append, **rest)
    assert reports[0].step == 1


def test_a_torn_checkpoint_is_passed_over_and_the_run_still_ends_the_same(tmp_path):
    with pytest.raises(Stop):
        run(checkpoint=tmp_path, on_step=stop_after(6))
    newest = max(tmp_path.glob("*-*")) / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    reports = []
    resumed, _ = run(checkpoint=tmp_path, on_step=reports.append)
    assert reports[0].step == 6
    assert_equal(resumed, run()[0])


def test_how_often_checkpoints_are_written_is_no_part_of_the_run(tmp_path):
    with pytest.raises(Stop):
        run(checkpoint=tmp_path, on_step=stop_after(4))
    reports = []
    run(checkpoint=tmp_path, on_step=reports.append, settings=replace(SETTINGS, checkpoint_every_steps=3))
    assert reports[0].step == 5


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_training import Dropping, SHAPE, run
def on_step(report):
    if report.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
run(Dropping(SHAPE), checkpoint=Path(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has kill -9")
def test_a_killed_process_is_taken_up_and_ends_in_the_same_parameters(tmp_path):
    script = KILLED.format(here=str(Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    reports = []
    resumed, _ = run(Dropping(SHAPE), checkpoint=tmp_path, on_step=reports.append)
    assert reports[0].step == 8
    assert_equal(resumed, run(Dropping(SHAPE))[0])
