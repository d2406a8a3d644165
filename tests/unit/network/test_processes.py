"""Real processes over gloo train the decoder of `test_training` together."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from process_group import run_group
from test_training import SEQUENCES, SETTINGS, SHAPE, run

from tailorbird.network.batches import share_out
from tailorbird.network.decoder import Decoder
from tailorbird.network.run import Run
from tailorbird.network.sequences import TokenSequence

FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
"""Where a program finds this module and what it imports."""
PROGRAM = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {folders!r}
import torch
from process_group import run_group
from test_training import *
from test_processes import *
from tailorbird.errors import TailorbirdError
from tailorbird.network import processes
torch.set_num_threads(1)
def save(value, name):
    torch.save(value, Path({folder!r}) / f"{{name}}-{{processes.rank()}}")
with processes.joined(int(os.environ["WORLD_SIZE"])):
    try:
{code}
    except TailorbirdError as error:
        save(f"{{type(error).__name__}}: {{error}}", "error")
"""


def together(folder, code, num_processes=2):
    """Runs the code in a group of so many processes; their exit codes."""
    indented = "\n".join(f"        {line}" for line in code.strip().splitlines())
    return run_group(PROGRAM.format(folders=FOLDERS, folder=str(folder), code=indented), num_processes)


def loaded(folder, name, rank=0):
    return torch.load(folder / f"{name}-{rank}")


def gradients(decoder, sequences):
    trained = Run(decoder, dict(decoder.named_parameters()), sequences, SETTINGS, None)
    loss = trained.gradients_of(list(sequences))
    found = torch.cat([p.grad.flatten() for p in decoder.parameters()])
    return loss, found, trained.progress.tokens


UNEVEN = [TokenSequence(s.prompt, s.completion[: 1 + n % 2], 1 + n % 3) for n, s in enumerate(SEQUENCES)]


def test_a_step_of_many_processes_is_that_of_one_and_they_end_alike(tmp_path):
    codes = together(
        tmp_path,
        """
save(gradients(Decoder(SHAPE, seed=1), UNEVEN), "many")
save(gradients(Decoder(SHAPE, seed=1), UNEVEN[:1]), "one")
decoder, result = run(sequences=UNEVEN)
save((result.losses, result.tokens, decoder.state_dict()), "run")
""",
    )
    assert codes == [0, 0]
    for name, sequences in (("many", UNEVEN), ("one", UNEVEN[:1])):
        loss, gradient, tokens = gradients(Decoder(SHAPE, seed=1), sequences)
        for rank in range(2):
            found = loaded(tmp_path, name, rank)
            assert found[0] == pytest.approx(loss, rel=1e-6)
            assert (found[1] - gradient).norm() < 1e-6 * gradient.norm()
            assert found[2] == tokens
    decoder, alone = run(sequences=UNEVEN)
    (losses, tokens, first), second = loaded(tmp_path, "run"), loaded(tmp_path, "run", 1)
    assert losses == pytest.approx(alone.losses, rel=1e-5)
    assert losses[:2] == pytest.approx(alone.losses[:2], rel=1e-6)
    assert tokens == alone.tokens
    assert (losses, tokens) == second[:2]
    for name, value in first.items():
        assert torch.equal(value, second[2][name])
        torch.testing.assert_close(value, decoder.state_dict()[name], rtol=1e-3, atol=1e-4)


SCORED = replace(SETTINGS, patience=99, evaluations_per_epoch=2)
TRAINED = """
decoder = Dropping(SHAPE, seed=processes.rank())
decoder.load_state_dict(Dropping(SHAPE, seed=1).state_dict())
seen = []
def on_step(report):
    assert processes.is_first()
    seen.append(report.step)
    {killing}
def score():
    assert processes.is_first()
    return -float(decoder.embedding.weight.abs().sum())
result = run(decoder, settings=SCORED, checkpoint=Path({kept!r}), on_step=on_step, dev_score=score)[1]
save((decoder.state_dict(), result.losses, seen), {name!r})
"""


def trained(folder, name, kept, num_processes=2, killing="pass"):
    code = TRAINED.format(killing=killing, kept=str(folder / kept), name=name)
    return together(folder, code, num_processes)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has kill -9")
def test_a_killed_group_is_taken_up_and_ends_the_same_bit_for_bit(tmp_path):
    assert trained(tmp_path, "undisturbed", "a") == [0, 0]
    killing = "report.step == 7 and os.kill(os.getpid(), 9)"
    codes = trained(tmp_path, "killed", "b", killing=killing)
    assert codes == [-signal.SIGKILL, 0]
    assert loaded(tmp_path, "error", 1).startswith("ProcessLost: Process 1 lost the others of this training")
    assert trained(tmp_path, "resumed", "b") == [0, 0]
    undisturbed = loaded(tmp_path, "undisturbed")
    for rank in range(2):
        weights, losses, seen = loaded(tmp_path, "resumed", rank)
        assert seen == ([8, 9, 10] if rank == 0 else [])
        assert losses == undisturbed[1]
        assert all(torch.equal(weights[name], value) for name, value in undisturbed[0].items())
    told = [
        [json.loads(line) for line in (tmp_path / kept / "metrics.jsonl").read_text().splitlines()]
        for kept in ("a", "b")
    ]
    without_time = [[{k: v for k, v in line.items() if k != "seconds"} for line in lines] for lines in told]
    assert without_time[0] == without_time[1]


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_a_run_is_taken_up_by_another_number_of_processes(tmp_path, before, after):
    code = """
try:
    run(checkpoint=Path({kept!r}), on_step=stop_after(4))
except Stop:
    os._exit(0)
"""
    kept = str(tmp_path / "kept")
    together(tmp_path, code.format(kept=kept), before)
    code = """
decoder, result = run(Decoder(SHAPE, seed=5), checkpoint=Path({kept!r}))
save((decoder.state_dict(), result.losses), "resumed")
"""
    assert together(tmp_path, code.format(kept=kept), after) == [0] * after
    decoder, alone = run()
    weights, losses = loaded(tmp_path, "resumed")
    assert losses == pytest.approx(alone.losses, rel=1e-5)
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    code = """
reports = []
def note(report):
    reports.append(report.step)
class Signalling(Decoder):
    steps = 0
    def logits(self, hidden_NC):
        self.steps += self.training
        if processes.rank() == 1 and self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().logits(hidden_NC)
signal.signal(signal.SIGTERM, lambda *_: None)
decoder = Signalling(SHAPE, seed=1)
try:
    run(decoder, checkpoint=Path({kept!r}), on_step=note)
except KeyboardInterrupt:
    save(reports, "stopped")
"""
    assert together(tmp_path, code.format(kept=str(tmp_path / "kept"))) == [0, 0]
    steps = loaded(tmp_path, "stopped")
    assert loaded(tmp_path, "stopped", 1) == []
    assert 1 < len(steps) < 10
    assert max((tmp_path / "kept").glob("*-*")).name.endswith(f"-{steps[-1]:09d}")


def test_errors_of_the_first_reach_all_and_processes_with_other_data_are_refused(tmp_path):
    code = """
try:
    run(settings=SCORED, dev_score=lambda: float("nan"))
except TailorbirdError as error:
    save(str(error), "score")
run(sequences=SEQUENCES[processes.rank():])
"""
    assert together(tmp_path, code) == [0, 0]
    for rank in range(2):
        assert "dev_score gave nan" in loaded(tmp_path, "score", rank)
        assert "Of 2 processes, 1 would train something else" in loaded(tmp_path, "error", rank)


LEAVING = """
import os
from pathlib import Path
from tailorbird.network import processes
try:
    with processes.joined(2):
        processes.from_first(lambda: "something")
        import torch._dynamo  # as PEFT does, the first time that an adapter is added
        if {lost}:
            if processes.rank():
                os._exit(0)
            processes.summed([1.0], "cpu")
except processes.ProcessLost:
    assert {lost}
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize("lost", [False, True])
def test_no_thread_of_a_group_outlives_it(tmp_path, lost):
    assert run_group(LEAVING.format(lost=lost)) == [0, 0]


def test_a_step_is_shared_out_evenly_and_by_length():
    sequences = [TokenSequence(tuple(range(20 + n)), (1,)) for n in range(10)]
    for share in (True, False):
        parts = share_out(sequences[::-1], 3, share=share)
        assert [s for part in parts for s in part] == sequences
        costs = [sum(len(s.inputs) - 19 * share for s in part) for part in parts]
        assert max(costs) < 2.5 * min(costs)
    assert sum(map(len, share_out(sequences[:2], 4, share=True))) == 2
