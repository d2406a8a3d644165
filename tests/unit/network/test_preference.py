"""DPO in the training loop: the loss is the paper's, however much of it is computed once."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processes import FOLDERS, loaded, together
from test_training import SEQUENCES, SETTINGS, SHAPE, Dropping, Stop, assert_equal, run, stop_after
from torch.nn import functional

from tailorbird.errors import DataError, RecipeError
from tailorbird.network import untrained
from tailorbird.network.batches import Batch, split
from tailorbird.network.decoder import Decoder
from tailorbird.network.estimate import PlannedSteps, Sizes, estimate_of
from tailorbird.network.keeper import identity_of
from tailorbird.network.loss import num_shared, sequence_log_probabilities
from tailorbird.network.metrics_file import METRICS_FILE, read_metrics
from tailorbird.network.objectives import Completions, Preferences, objective_of
from tailorbird.network.probe import probe
from tailorbird.network.run import Run
from tailorbird.network.sequences import Preference, TokenSequence, add_to_hash
from tailorbird.network.training import train
from tailorbird.network.untrained import REFERENCE_FILE, referenced

BETA = 0.3
LEARNT = replace(SETTINGS, beta=BETA)
PREAMBLE = tuple(range(10))
VOCAB = 32


def preference(prompt, preferred, rejected, weight=1.0, reference=None):
    prompt = (*PREAMBLE, *prompt)
    return Preference(
        TokenSequence(prompt, preferred, weight), TokenSequence(prompt, rejected, weight), reference
    )


# The preferred completion repeats the prompt's last token, the rejected one another; both then stop.
PREFERENCES = [
    preference(([9] * (n % 3)) + [10 + n % 8], (10 + n % 8, 31), (18 + n % 5, *([20] * (n % 2)), 31))
    for n in range(40)
]
HELD_OUT = [preference([8, 10 + n], (10 + n, 31), (18 + n % 5, 31)) for n in range(8)]

DECODER = Decoder(SHAPE, seed=3).double()
with torch.no_grad():
    for weight in DECODER.parameters():
        weight.mul_(4 if weight.ndim > 1 else 1)


class Unpacked:
    """The decoder as a network that takes no packs."""

    hidden, logits, expand_past = DECODER.hidden, DECODER.logits, DECODER.expand_past


tokens = st.lists(st.integers(0, VOCAB - 1), max_size=5).map(tuple)
completions = st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)


@st.composite
def preferences(draw):
    """Some preferences, often of one prompt; completions often begin alike, or one is the other's beginning."""
    prompts = draw(st.lists(tokens, min_size=1, max_size=3))
    weights, references = st.sampled_from([0.5, 1.0, 2.0]), st.floats(-3, 3)
    made = []
    for _ in range(draw(st.integers(1, 4))):
        prompt, first, second = draw(st.sampled_from(prompts)), draw(completions), draw(completions)
        made.append(preference(prompt, first, second, draw(weights), draw(references)))
    return made


def log_probability(decoder, sequence):
    """One sequence by itself, all logits, nothing clever."""
    ids = torch.tensor([sequence.prompt + sequence.completion])
    log_p = decoder(ids[:, :-1])[0].log_softmax(-1)
    return log_p.gather(1, ids[0, 1:, None])[len(sequence.prompt) - 1 :].sum()


def textbook(decoder, preferences, beta=BETA):
    """Equation 7, two forward passes a preference; the weighted mean."""
    total = 0.0
    for p in preferences:
        gap = log_probability(decoder, p.preferred) - log_probability(decoder, p.rejected)
        total -= p.weight * functional.logsigmoid(beta * (gap - p.reference))
    return total / sum(p.weight for p in preferences)


def gradients_of(decoder):
    return torch.cat([p.grad.flatten() for p in decoder.parameters()])


@given(preferences())
@settings(max_examples=60, deadline=None)
def test_loss_and_gradients_are_those_of_the_textbook_on_every_path(found):
    DECODER.zero_grad()
    expected = textbook(DECODER, found)
    expected.backward()
    gradients = gradients_of(DECODER)
    objective = Preferences(BETA)
    for network, share, forked in (
        (DECODER, True, True),
        (DECODER, True, False),
        (DECODER, False, False),
        (Unpacked(), True, False),
        (Unpacked(), False, False),
    ):
        DECODER.zero_grad()
        batch = Batch(tuple(found), forked)
        total, _ = objective.sums(network, batch, device=torch.device("cpu"), share=share)
        loss = total / objective.divisor(found)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        torch.testing.assert_close(gradients_of(DECODER), gradients, rtol=1e-7, atol=1e-10)


@given(preferences())
@settings(max_examples=30, deadline=None)
def test_log_probabilities_are_those_of_each_sequence_alone(found):
    batch = Batch(tuple(found), forked=True)
    log_p = sequence_log_probabilities(DECODER, batch)
    expected = [log_probability(DECODER, sequence).item() for sequence in batch.sequences]
    assert log_p.tolist() == pytest.approx(expected, rel=1e-9)
    assert num_shared(DECODER, batch) >= sum(len(p.preferred.prompt) - 1 for p in found)


def test_a_margin_and_the_share_of_positive_ones_are_told():
    found = [replace(p, reference=gap) for p, gap in zip(PREFERENCES[:2], (-100.0, 100.0), strict=True)]
    _, (margin, right) = Preferences(BETA).sums(
        DECODER, Batch(tuple(found)), device=torch.device("cpu"), share=True
    )
    gaps = [log_probability(DECODER, p.preferred) - log_probability(DECODER, p.rejected) for p in found]
    assert margin == pytest.approx(sum(BETA * (gap.item() - p.reference) for gap, p in zip(gaps, found)))  # noqa: B905
    assert right == 1.0


def test_a_preference_keeps_its_two_sequences_in_one_batch_and_within_the_budget():
    for share, forked in ((True, True), (True, False), (False, False)):
        batches = split(PREFERENCES, 60, share=share, forked=forked)
        assert len(batches) > 1
        assert sorted(map(PREFERENCES.index, (u for b in batches for u in b.units))) == sorted(
            map(PREFERENCES.index, PREFERENCES)
        )
        for batch in batches:
            prefix = batch.prefix if share else 0
            assert len(batch.units) == 1 or batch.num_padded(prefix) <= 60
            assert batch.sequences == tuple(s for unit in batch.units for s in unit.sequences)


def test_a_forked_batch_computes_every_prompt_once():
    batch = Batch((preference([11, 12], (1, 2), (3, 4, 5)), preference([13], (1, 2), (1, 2, 6))), forked=True)
    # 10 of the preamble; 2 + 1 + 2; 1 + 2, of which the last is the rejected one's alone
    assert batch.num_computed(10) == 10 + 5 + 3
    assert batch.num_tokens == 13 + 14 + 12 + 13
    assert batch.num_padded(10) == 10 + 2 * 5


def test_the_loss_of_the_untrained_model_is_that_of_a_coin():
    reports = []
    _, result = run(sequences=PREFERENCES, settings=LEARNT, on_step=reports.append)
    assert result.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert reports[0].reward_margin == pytest.approx(0, abs=1e-6)
    assert reports[-1].reward_margin > 0.5
    assert reports[-1].reward_accuracy == 1.0


def gap_of(decoder, preferences):
    with torch.no_grad():
        log_p = sequence_log_probabilities(decoder, Batch(tuple(preferences))).view(-1, 2)
    return (log_p[:, 0] - log_p[:, 1]).mean().item()


def test_preferred_completions_gain_on_rejected_ones_where_none_was_trained_on():
    before = gap_of(Decoder(SHAPE, seed=1), HELD_OUT)
    decoder, _ = run(sequences=PREFERENCES, settings=replace(LEARNT, epochs=6))
    assert gap_of(decoder, HELD_OUT) > before + 2


def test_a_larger_beta_stays_nearer_to_the_reference():
    def moved(beta):
        decoder, _ = run(sequences=PREFERENCES, settings=replace(LEARNT, epochs=20, beta=beta))
        return gap_of(decoder, HELD_OUT)

    assert moved(3.0) < moved(0.05)


def test_splitting_sharing_and_packing_learn_the_same():
    class Rectangles(Decoder):
        packs = False

    whole = run(sequences=PREFERENCES, settings=LEARNT)[1]
    for decoder, change in (
        (Decoder(SHAPE, seed=1), {"max_batch_tokens": 40}),
        (Decoder(SHAPE, seed=1), {"share_prefix": False}),
        (Rectangles(SHAPE, seed=1), {}),
    ):
        other = run(decoder, PREFERENCES, replace(LEARNT, **change))[1]
        assert other.losses == pytest.approx(whole.losses, rel=1e-3)
        assert other.tokens == whole.tokens
        assert other.shared_tokens < whole.shared_tokens or "max_batch_tokens" in change
    assert whole.shared_fraction > 0.75


def test_a_preference_counts_by_its_weight():
    once = [*PREFERENCES[:6], PREFERENCES[0]]
    heavier = [replace_weight(PREFERENCES[0], 2.0), *PREFERENCES[1:6]]
    whole = replace(LEARNT, batch_size=8)
    assert run(sequences=once, settings=whole)[1].losses == pytest.approx(
        run(sequences=heavier, settings=whole)[1].losses, rel=1e-4
    )
    none = [*PREFERENCES[1:6], replace_weight(PREFERENCES[0], 0.0)]
    assert (
        run(sequences=none, settings=whole)[1].losses
        == run(sequences=PREFERENCES[1:6], settings=whole)[1].losses
    )


def replace_weight(found, weight):
    preferred, rejected = (replace(s, weight=weight) for s in found.sequences)
    return Preference(preferred, rejected)


# -- what the model said before --------------------------------------------------------------------


def test_references_are_what_the_untrained_model_says():
    found = referenced(DECODER, PREFERENCES, LEARNT, torch.device("cpu"))
    for before, after in zip(PREFERENCES, found, strict=True):
        expected = log_probability(DECODER, before.preferred) - log_probability(DECODER, before.rejected)
        assert after.reference == pytest.approx(expected.item(), rel=1e-9)
        assert (after.preferred, after.rejected) == (before.preferred, before.rejected)


def test_references_are_asked_without_dropout_and_not_again(monkeypatch):
    one, again = (
        referenced(Dropping(SHAPE, seed=1), PREFERENCES, LEARNT, torch.device("cpu")) for _ in range(2)
    )
    assert one == again
    monkeypatch.setattr(untrained, "_ask", None)
    assert referenced(None, one, LEARNT, torch.device("cpu")) == one
    assert referenced(None, SEQUENCES, SETTINGS, torch.device("cpu")) is SEQUENCES


def test_references_of_another_model_are_not_taken(tmp_path):
    def told(seed, identity):
        decoder, cpu = Decoder(SHAPE, seed=seed), torch.device("cpu")
        return referenced(decoder, PREFERENCES, LEARNT, cpu, folder=tmp_path, identity=identity)

    first = told(1, "a")
    assert told(2, "a") == first
    assert told(2, "b") != first
    assert len(json.loads((tmp_path / REFERENCE_FILE).read_text())["reference"]) == len(set(PREFERENCES))


@pytest.mark.parametrize("stop", [3, 7])
def test_an_interrupted_run_ends_in_the_same_parameters(tmp_path, stop):
    settings = replace(LEARNT, checkpoint_every_steps=2)
    undisturbed = Dropping(SHAPE, seed=1)
    expected = run(undisturbed, PREFERENCES, settings)[1]
    with pytest.raises(Stop):
        run(Dropping(SHAPE, seed=1), PREFERENCES, settings, checkpoint=tmp_path, on_step=stop_after(stop))
    second = Dropping(SHAPE, seed=99)  # what it was before no longer shows in its parameters
    resumed = run(second, PREFERENCES, settings, checkpoint=tmp_path)[1]
    assert_equal(undisturbed, second)
    assert resumed.losses == expected.losses
    _, steps = read_metrics(tmp_path / METRICS_FILE)
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert all("reward_margin" in step and "reward_accuracy" in step for step in steps)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {folders!r}
from test_preference import *
def on_step(report):
    if report.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
run(Dropping(SHAPE, seed=1), PREFERENCES, LEARNT, checkpoint=Path(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has kill -9")
def test_a_killed_process_is_taken_up_and_ends_in_the_same_parameters(tmp_path):
    script = KILLED.format(folders=FOLDERS)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    reports = []
    resumed, _ = run(
        Dropping(SHAPE, seed=1), PREFERENCES, LEARNT, checkpoint=tmp_path, on_step=reports.append
    )
    assert reports[0].step == 8
    assert_equal(resumed, run(Dropping(SHAPE, seed=1), PREFERENCES, LEARNT)[0])


def test_two_processes_give_what_one_does(tmp_path):
    code = """
from test_preference import LEARNT, PREFERENCES
reports = []
decoder, result = run(sequences=PREFERENCES, settings=LEARNT, on_step=reports.append)
save((result.losses, result.tokens, [r.reward_margin for r in reports], decoder.state_dict()), "run")
"""
    assert together(tmp_path, code) == [0, 0]
    reports = []
    decoder, alone = run(sequences=PREFERENCES, settings=LEARNT, on_step=reports.append)
    losses, num_tokens, margins, weights = loaded(tmp_path, "run")
    assert losses == pytest.approx(alone.losses, rel=1e-4)
    assert num_tokens == alone.tokens
    assert margins == pytest.approx([r.reward_margin for r in reports], rel=1e-3, abs=1e-5)
    assert loaded(tmp_path, "run", 1)[0] == losses
    for name, value in decoder.state_dict().items():
        assert torch.equal(weights[name], loaded(tmp_path, "run", 1)[3][name])
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


# -- estimates, identity, errors -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Decoder, Dropping])
@pytest.mark.parametrize("most", [16_384, 40])
def test_the_estimate_counts_the_tokens_that_training_computes(kind, most):
    settings = replace(LEARNT, max_batch_tokens=most)
    decoder = kind(SHAPE, seed=1)
    plan = PlannedSteps(Run(decoder, dict(decoder.named_parameters()), PREFERENCES, settings, None))
    told = estimate_of(plan, Sizes.of(decoder), step_s=1.0)
    _, result = run(kind(SHAPE, seed=1), PREFERENCES, settings)
    assert (told.steps, told.tokens, told.shared_tokens) == (
        result.steps,
        result.tokens,
        result.shared_tokens,
    )
    assert told.reference_s == pytest.approx(5 / 3)  # an epoch, without its two backward parts
    assert told.longest == max(map(len, PREFERENCES))


def test_probing_changes_nothing_that_training_depends_on():
    expected = run(Dropping(SHAPE, seed=1), PREFERENCES, LEARNT)
    decoder = Dropping(SHAPE, seed=1)
    found = probe(PlannedSteps(Run(decoder, dict(decoder.named_parameters()), PREFERENCES, LEARNT, None)))
    assert found.step_s > 0
    again = run(decoder, PREFERENCES, LEARNT)
    assert again[1].losses == expected[1].losses
    assert_equal(again[0], expected[0])


def test_a_run_is_another_with_another_beta_or_other_rejected_completions_but_not_by_its_references():
    decoder = Decoder(SHAPE, seed=1)

    def named(units, settings=LEARNT):
        return identity_of(Run(decoder, dict(decoder.named_parameters()), units, settings, None), "")

    first = named(PREFERENCES)
    assert first == named([replace(p, reference=1.0) for p in PREFERENCES])
    assert first != named(PREFERENCES, replace(LEARNT, beta=0.2))
    swapped = [Preference(p.rejected, p.preferred) for p in PREFERENCES]
    assert first != named(swapped)
    flat = [sequence for p in PREFERENCES for sequence in p.sequences]
    assert hashed(flat) != hashed(PREFERENCES)


def hashed(units):
    import hashlib

    digest = hashlib.blake2b()
    add_to_hash(digest, units)
    return digest.digest()


def test_what_is_learnt_follows_from_beta_and_must_fit_the_sequences():
    assert objective_of(SEQUENCES, SETTINGS) == Completions()
    assert objective_of(PREFERENCES, LEARNT) == Preferences(BETA)
    with pytest.raises(
        RecipeError, match=r"beta is None, and there are preferences.*Give a beta, such as 0\.1"
    ):
        run(sequences=PREFERENCES)
    with pytest.raises(
        RecipeError, match=r"beta is 0\.3, .* 40 of 41 sequences are none\. Give each a rejected"
    ):
        run(sequences=[PREFERENCES[0], *SEQUENCES], settings=LEARNT)
    with pytest.raises(RecipeError, match=r"beta must be above 0 and finite\. Got 0"):
        replace(SETTINGS, beta=0)
    decoder = Decoder(SHAPE, seed=1)
    with pytest.raises(DataError, match="nothing to learn: none of 1 sequences"):
        train(decoder, dict(decoder.named_parameters()), [replace_weight(PREFERENCES[0], 0.0)], LEARNT)


def test_completions_of_two_prompts_or_weights_are_no_preference():
    with pytest.raises(AssertionError, match="one prompt"):
        Preference(TokenSequence((1,), (2,)), TokenSequence((3,), (2,)))
    with pytest.raises(AssertionError, match="one weight"):
        Preference(TokenSequence((1,), (2,)), TokenSequence((1,), (3,), weight=2.0))
