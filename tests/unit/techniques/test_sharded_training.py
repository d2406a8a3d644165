"""Real processes over gloo train a tiny model with its layers shared out: the same comes of it."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from process_group import run_group
from test_fine_tune_preference import DATA as PREFERENCES

from tailorbird.errors import RecipeError
from tailorbird.models import training_network
from tailorbird.network import processes
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA = tiny_data()
QUICK = FineTune(rank=4, epochs=2, learning_rate=5e-3, batch_size=6, precision="float32")
SMALL = FromScratch(depth=1, vocab_size=300, context=256, text_epochs=1, epochs=1)

PROGRAM = """
import os, sys
from pathlib import Path
sys.path[:0] = {folders!r}
import torch
from test_sharded_training import *
torch.set_num_threads(1)
with processes.joined(int(os.environ["WORLD_SIZE"])):
    torch.save({code}, Path({folder!r}) / f"found-{{processes.rank()}}")
"""


def by_two(folder, code):
    """What the expression gives in each of two processes."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    assert run_group(PROGRAM.format(folders=folders, folder=str(folder), code=code)) == [0, 0]
    return [torch.load(folder / f"found-{rank}") for rank in range(2)]


class Said(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def made(technique, data=DATA):
    """Losses, what the model answers, which path training took, and whether the base answers as before."""
    losses, said, base = [], Said(), tiny_model()
    logger = logging.getLogger("tailorbird.techniques.fine_tune")
    logger.setLevel(logging.INFO)
    logger.addHandler(said)
    before = answers(base, data)
    model = replace(technique, on_step=lambda report: losses.append(report.loss)).apply(base, data)
    logger.removeHandler(said)
    assert not any(hasattr(parameter, "to_local") for parameter in model.engine.model.parameters())
    assert answers(base, data) == before
    path = next((line for line in said.lines if line.startswith("Training runs")), "")
    return losses, answers(model, data), path


def answers(model, data):
    given = model.answer([data.task.ask(example) for example in data.test])
    return [dict(answer.probabilities) if answer.probabilities else answer.text for answer in given]


def of_many(shard):
    """Every way of fine-tuning once."""
    lora = replace(QUICK, shard=shard)
    return {
        "lora": made(lora),
        "full": made(replace(lora, method="full", learning_rate=1e-3)),
        "dora": made(replace(lora, method="dora")),
        "pissa": made(replace(lora, method="pissa")),
        "race": made(replace(lora, learning_rate=(1e-3, 5e-3))),
        "text": made(lora, tiny_questions()),
        "preferences": made(replace(lora, objective="dpo", learning_rate=1e-3), PREFERENCES),
        "bfloat16": made(replace(lora, precision="bfloat16")),
        "full in bfloat16": made(replace(lora, method="full", learning_rate=1e-3, precision="bfloat16")),
    }


def assert_alike(found, expected, rel):
    assert found[0][:3] == pytest.approx(expected[0][:3], rel=rel)
    assert found[0] == pytest.approx(expected[0], rel=50 * rel)
    for one, other in zip(found[1], expected[1], strict=True):
        assert one == (other if isinstance(other, str) else pytest.approx(other, abs=100 * rel))


@pytest.mark.slow
def test_every_way_of_fine_tuning_makes_the_same_sharded(tmp_path):
    first, second = by_two(tmp_path, "of_many(shard=True)")
    alone = of_many(shard=False)
    for name, expected in alone.items():
        assert second[name][0] == []
        assert first[name][1] == second[name][1]
        assert_alike(first[name], expected, 1e-2 if "bfloat16" in name else 1e-5)
        assert first[name][2] == expected[2].removesuffix(".") + ", sharded by 2."
    assert alone["lora"][2] == "Training runs packed, fused, float32."
    assert "unfused" in alone["dora"][2]
    assert alone["bfloat16"][2] == "Training runs packed, fused, bfloat16."


def without_packs(shard):
    training_network.takes_attention = lambda model: False
    return made(replace(QUICK, shard=shard))


@pytest.mark.slow
def test_what_is_not_packed_is_sharded_on_the_plain_path(tmp_path, monkeypatch):
    first, _ = by_two(tmp_path, "without_packs(shard=True)")
    monkeypatch.setattr(training_network, "takes_attention", training_network.takes_attention)
    alone = without_packs(shard=False)
    assert alone[2] == "Training runs shared prefix, fused, float32."
    assert first[2] == "Training runs plain, fused, float32, sharded by 2."
    assert_alike(first, alone, 1e-5)


def from_nothing(shard):
    small = replace(SMALL, shard=shard)
    return {name: made(replace(small, architecture=name)) for name in ("tailorbird", "gpt2")}


@pytest.mark.slow
def test_training_from_scratch_makes_the_same_sharded(tmp_path):
    first, second = by_two(tmp_path, "from_nothing(shard=True)")
    for name, expected in from_nothing(shard=False).items():
        assert first[name][1] == second[name][1]
        assert_alike(first[name], expected, 1e-5)


@pytest.mark.parametrize("technique", [QUICK, SMALL])
def test_sharding_alone_is_refused_before_anything_is_done(technique):
    with pytest.raises(RecipeError, match=r"^shard: layers can be shared out between several processes only"):
        replace(technique, shard=True).apply(tiny_model(), DATA)


def test_sharding_is_no_part_of_what_is_made():
    assert replace(QUICK, shard=True) == QUICK
    assert processes.num_processes() == 1
