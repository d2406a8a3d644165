"""Real processes over gloo share the layers of `test_training`'s decoder out, and train it as one process does."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from process_group import run_group
from test_preference import LEARNT, PREFERENCES
from test_processes import FOLDERS, PROGRAM, UNEVEN, gradients, loaded
from test_training import SETTINGS, SHAPE, run
from torch import nn

from tailorbird.errors import RecipeError, Unsupported
from tailorbird.network.decoder import Decoder
from tailorbird.network.run import Run
from tailorbird.network.sharding import handed_over, layers_of, sharded, twin_of

HELPERS = """
from test_sharding import *
from tailorbird.network import estimate, probe
def sharded_run(decoder=None, sequences=SEQUENCES, settings=SETTINGS, **rest):
    decoder = decoder or Decoder(SHAPE, seed=1)
    with sharded(decoder) as twin:
        return decoder, run(twin, sequences, settings, **rest)[1]
"""


def together(folder, code, num_processes=2):
    """Runs the code in a group of so many processes; their exit codes."""
    indented = "\n".join(f"        {line}" for line in (HELPERS + code).strip().splitlines())
    return run_group(PROGRAM.format(folders=FOLDERS, folder=str(folder), code=indented), num_processes)


def sharded_gradients(decoder, sequences, settings=SETTINGS):
    """Loss and whole gradients of one step, the tokens counted, and the part of the numbers held."""
    with sharded(decoder) as twin:
        trained = Run(twin, dict(twin.named_parameters()), sequences, settings, None)
        loss = trained.gradients_of(list(sequences))
        parts = trained.parts
        found = {name: whole_gradient(trained, name) for name in parts.own}
        held = sum(part.numel() for part in parts.own.values())
        return loss, found, trained.progress.tokens, held


def whole_gradient(trained, name):
    part = trained.parts.own[name]
    whole = trained.parts.whole(part.grad, part)
    return whole if len(whole) else None  # where the first process alone gets it


NARROW = replace(SETTINGS, max_batch_tokens=14)


def test_a_step_of_sharded_layers_is_that_of_one_process(tmp_path):
    codes = together(
        tmp_path,
        """
save(sharded_gradients(Decoder(SHAPE, seed=1), UNEVEN), "many")
save(sharded_gradients(Decoder(SHAPE, seed=1), UNEVEN[:1]), "one")
save(sharded_gradients(Decoder(SHAPE, seed=1), UNEVEN[:5], NARROW), "split")
""",
    )
    assert codes == [0, 0]
    total = sum(parameter.numel() for parameter in Decoder(SHAPE).parameters())
    for name, sequences in (("many", UNEVEN), ("one", UNEVEN[:1]), ("split", UNEVEN[:5])):
        decoder = Decoder(SHAPE, seed=1)
        expected_loss, _, expected_tokens = gradients(decoder, sequences)
        loss, found, tokens, held = loaded(tmp_path, name)
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        assert tokens == expected_tokens
        assert held == total - sum(p.numel() for block in decoder.blocks for p in block.parameters()) // 2
        for key, parameter in decoder.named_parameters():
            difference = (found[key] - parameter.grad).norm()
            assert difference < 1e-5 * parameter.grad.norm() + 1e-9, key


def test_a_sharded_run_is_that_of_one_process_and_leaves_a_plain_model(tmp_path):
    codes = together(
        tmp_path,
        """
decoder, result = sharded_run(sequences=UNEVEN)
assert not [p for p in decoder.parameters() if type(p) is not nn.Parameter]
save((result.losses, result.tokens, decoder.state_dict()), "run")
""",
        3,  # rows don't go round: the shape's 8 rows of keys are 3, 3 and 2
    )
    assert codes == [0, 0, 0]
    decoder, alone = run(sequences=UNEVEN)
    first = loaded(tmp_path, "run")
    assert first[0] == pytest.approx(alone.losses, rel=1e-5)
    assert first[1] == alone.tokens
    for rank in (1, 2):
        losses, tokens, weights = loaded(tmp_path, "run", rank)
        assert (losses, tokens) == first[:2]
        assert all(torch.equal(weights[name], value) for name, value in first[2].items())
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(first[2][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_preferences_are_learnt_with_sharded_layers_as_by_one_process(tmp_path):
    code = """
from test_preference import LEARNT, PREFERENCES
decoder, result = sharded_run(sequences=PREFERENCES[:5], settings=replace(LEARNT, max_batch_tokens=30))
save((result.losses, result.tokens), "run")
"""
    assert together(tmp_path, code) == [0, 0]
    _, alone = run(sequences=PREFERENCES[:5], settings=LEARNT)
    for rank in (0, 1):
        losses, tokens = loaded(tmp_path, "run", rank)
        assert losses == pytest.approx(alone.losses, rel=1e-4)
        assert tokens == alone.tokens


TRAINED = """
decoder = Dropping(SHAPE, seed=1)
seen = []
def on_step(report):
    assert processes.is_first()
    seen.append(report.step)
    {killing}
def score():
    ids = torch.arange(12)[None]
    with torch.no_grad():
        return -float(asked[0].logits(asked[0].hidden(ids)[0][0]).abs().sum())
asked = []
with sharded(decoder) as twin:
    asked.append(twin)
    result = run(twin, settings=SCORED, checkpoint=Path({kept!r}), on_step=on_step, dev_score=score)[1]
save((decoder.state_dict(), result.losses, result.best_score, seen), {name!r})
"""


def trained(folder, name, kept, killing="pass"):
    return together(folder, TRAINED.format(killing=killing, kept=str(folder / kept), name=name))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="only POSIX has kill -9")
def test_a_killed_sharded_group_is_taken_up_and_ends_the_same_bit_for_bit(tmp_path):
    assert trained(tmp_path, "undisturbed", "a") == [0, 0]
    codes = trained(tmp_path, "killed", "b", killing="report.step == 7 and os.kill(os.getpid(), 9)")
    assert codes == [-signal.SIGKILL, 0]
    assert loaded(tmp_path, "error", 1).startswith("ProcessLost: Process 1 lost the others of this training")
    assert trained(tmp_path, "resumed", "b") == [0, 0]
    undisturbed = loaded(tmp_path, "undisturbed")
    assert undisturbed[2] is not None
    for rank in range(2):
        weights, losses, best, seen = loaded(tmp_path, "resumed", rank)
        assert seen == ([8, 9, 10] if rank == 0 else [])
        assert (losses, best) == undisturbed[1:3]
        assert all(torch.equal(weights[name], value) for name, value in undisturbed[0].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, "sharded_run"), (1, "run")),
        ((1, "run"), (2, "sharded_run")),
        ((2, "sharded_run"), (2, "run")),
    ],
)
def test_a_run_is_taken_up_sharded_or_whole_by_another_number_of_processes(tmp_path, before, after):
    code = """
settings = replace(SETTINGS, patience=99)
score = lambda: -1.0
try:
    {call}(checkpoint=Path({kept!r}), settings=settings, dev_score=score, on_step=stop_after(7))
except Stop:
    os._exit(0)
"""
    kept = str(tmp_path / "kept")
    together(tmp_path, code.format(kept=kept, call=before[1]), before[0])
    code = """
settings = replace(SETTINGS, patience=99)
seen = []
note = lambda report: seen.append(report.step)
kept = {{"checkpoint": Path({kept!r}), "settings": settings, "dev_score": lambda: -1.0, "on_step": note}}
decoder, result = {call}(Decoder(SHAPE, seed=5), **kept)
save((decoder.state_dict(), result.losses, result.best_step, seen), "resumed")
"""
    assert together(tmp_path, code.format(kept=kept, call=after[1]), after[0]) == [0] * after[0]
    decoder, alone = run(settings=replace(SETTINGS, patience=99), dev_score=lambda: -1.0)
    weights, losses, best_step, seen = loaded(tmp_path, "resumed")
    assert seen == [8, 9, 10]
    assert losses == pytest.approx(alone.losses, rel=1e-5)
    assert best_step == alone.best_step == 5
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_a_sharded_group_after_the_same_step(tmp_path):
    code = """
reports = []
class Signalling(Decoder):
    steps = 0
    def logits(self, hidden_NC):
        self.steps += self.training
        if processes.rank() == 1 and self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().logits(hidden_NC)
signal.signal(signal.SIGTERM, lambda *_: None)
every_s = 0.0 if processes.is_first() else 99.0
settings = replace(SETTINGS, checkpoint_every_steps=None, checkpoint_every_s=every_s)
note = lambda report: reports.append(report.step)
try:
    sharded_run(Signalling(SHAPE, seed=1), settings=settings, checkpoint=Path({kept!r}), on_step=note)
except KeyboardInterrupt:
    save(reports, "stopped")
"""
    assert together(tmp_path, code.format(kept=str(tmp_path / "kept"))) == [0, 0]
    steps = loaded(tmp_path, "stopped")
    assert loaded(tmp_path, "stopped", 1) == []
    assert 1 < len(steps) < 10
    assert max((tmp_path / "kept").glob("*-*")).name.endswith(f"-{steps[-1]:09d}")


@pytest.mark.slow
def test_what_a_sharded_training_will_take_counts_one_processs_part(tmp_path):
    codes = together(
        tmp_path,
        """
def planned(decoder):
    return estimate.PlannedSteps(Run(decoder, dict(decoder.named_parameters()), SEQUENCES, SETTINGS, None))
decoder = Decoder(SHAPE, seed=1)
with sharded(decoder) as twin:
    plan = planned(twin)
    probed = probe.probe(plan)
    told = estimate.estimate_of(plan, probed.sizes, step_s=probed.step_s, checkpoints=True)
    assert all(part.grad is None for part in plan.run.parts.own.values())
save((probed.step_s, told.to_json()), "told")
save(estimate.estimate_of(planned(decoder), probed.sizes).to_json(), "whole")
""",
    )
    assert codes == [0, 0]
    (step_s, told), whole = loaded(tmp_path, "told"), loaded(tmp_path, "whole")
    assert step_s > 0
    assert (told["shared_among"], whole["shared_among"]) == (2, 1)
    assert (told["num_trained"], told["tokens"]) == (whole["num_trained"], whole["tokens"])
    decoder = Decoder(SHAPE)
    layers = sum(p.numel() for block in decoder.blocks for p in block.parameters())
    assert whole["state_bytes"] - told["state_bytes"] == 4 * 4 * layers // 2


def test_what_cannot_be_sharded_is_refused(tmp_path):
    codes = together(
        tmp_path,
        """
def refused(call, name):
    try:
        call()
    except TailorbirdError as error:
        save(f"{type(error).__name__}: {error}", name)
refused(lambda: sharded_run(settings=replace(SETTINGS, optimizer="muon")), "muon")
refused(lambda: sharded_run(settings=SCORED, dev_score=lambda: float("nan")), "score")
refused(lambda: (run if processes.is_first() else sharded_run)(), "different")
""",
    )
    assert codes == [0, 0]
    for rank in range(2):
        assert loaded(tmp_path, "muon", rank).startswith("RecipeError: optimizer 'muon' needs whole matrices")
        assert "dev_score gave nan" in loaded(tmp_path, "score", rank)
        assert "Of 2 processes, 1 would train something else" in loaded(tmp_path, "different", rank)


def test_a_process_alone_and_a_network_without_layers_are_refused():
    with (
        pytest.raises(
            RecipeError, match=r"between several processes only, and this one is alone\. Add --processes 2"
        ),
        sharded(Decoder(SHAPE)),
    ):
        pass
    with pytest.raises(Unsupported, match=r"Linear keeps its layers in no list.*without --shard"):
        layers_of(nn.Linear(2, 2))


def test_a_twin_lies_in_the_same_memory_and_what_it_learns_comes_back():
    decoder = Decoder(SHAPE, seed=1)
    twin = twin_of(decoder)
    before = decoder.embedding.weight.data_ptr()
    assert twin.embedding.weight.data_ptr() == before
    assert twin.embedding.weight is not decoder.embedding.weight
    frozen = decoder.norm.weight.requires_grad_(False)
    with handed_over(decoder, twin), torch.no_grad():
        assert decoder.embedding.weight.numel() == 0
        assert frozen.numel() == SHAPE.width
        twin.embedding.weight.add_(1.0)
    assert torch.equal(decoder.embedding.weight, Decoder(SHAPE, seed=1).embedding.weight + 1.0)


LEAVING = """
import sys
from pathlib import Path
for folder in {folders!r}:
    sys.path.insert(0, folder)
from test_sharding import *
from tailorbird.network import processes
def train_a_little():
    with sharded(Decoder(SHAPE, seed=1)) as twin:
        run(twin, settings=replace(SETTINGS, max_steps=2), on_step=stop)
def stop(report):
    if {lost} and processes.is_first():
        os._exit(0)
try:
    with processes.joined(2):
        train_a_little()
except processes.ProcessLost:
    assert {lost}
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize("lost", [False, True])
def test_no_thread_of_a_sharded_group_outlives_it(lost):
    assert run_group(LEAVING.format(lost=lost, folders=FOLDERS)) == [0, 0]
