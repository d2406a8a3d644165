"""The starter, fine-tuned for a few steps on real messages, in every format."""

import random
from dataclasses import replace

import pytest
from gguf import GGUFReader

from tailorbird.data.formats import read_examples
from tailorbird.data.task import Data, infer_task
from tailorbird.errors import ReplayMismatch
from tailorbird.models.exports import export, gguf_adapter, merged
from tailorbird.models.exports.export import export_model
from tailorbird.models.exports.replay import TOLERANCES
from tailorbird.models.gguf_file import starter_file
from tailorbird.models.local import open_local
from tailorbird.techniques.fine_tune import FineTune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EACH = [("safetensors", "f32"), ("safetensors", "bf16"), ("gguf", "f16"), ("gguf", "q8_0"), ("vllm", "f32")]


@pytest.fixture(scope="module")
def data(request):
    examples = list(read_examples(request.config.rootpath / "sample" / "tickets.jsonl"))
    random.Random(0).shuffle(examples)
    return Data(infer_task(examples), tuple(examples[:160]), tuple(examples[160:184]))


@pytest.fixture(scope="module")
def sorter(data):
    return FineTune(rank=8, epochs=1, precision="float32", seed=0).apply(open_local("starter"), data)


@pytest.mark.parametrize(("form", "dtype"), EACH)
def test_every_format_answers_as_the_fine_tuned_starter(sorter, data, tmp_path, form, dtype):
    found = export_model(sorter, data.task, data.dev, tmp_path / "out", form=form, name="sorter", dtype=dtype)
    assert len(found.replay.answers) == 24
    assert found.replay.from_model < found.replay.from_base
    assert found.replay.other_tokens == 0
    if form == "gguf":
        assert found.replay.engine.startswith("xllamacpp")
        _says_what_the_starters_own_file_says(tmp_path / "out" / "sorter.gguf")


def _says_what_the_starters_own_file_says(path):
    own, written = GGUFReader(starter_file()), GGUFReader(path)
    shape = [name for name in own.fields if name.startswith("llama.")]
    assert len(shape) > 8
    for name in shape:
        assert written.fields[name].contents() == own.fields[name].contents(), name
    assert {t.name: list(t.shape) for t in written.tensors} == {t.name: list(t.shape) for t in own.tensors}


def test_the_starter_itself_goes_back_to_the_4_bits_it_came_from(data, tmp_path):
    found = export_model(
        open_local("starter"), data.task, data.dev, tmp_path / "out", form="gguf", name="starter", dtype="q4"
    )
    assert found.replay.alike == 24
    _says_what_the_starters_own_file_says(tmp_path / "out" / "starter.gguf")


def test_four_bits_keep_what_was_trained_in_a_file_of_its_own(sorter, data, tmp_path):
    found = export_model(
        sorter, data.task, data.dev, tmp_path / "out", form="gguf", name="sorter", dtype="q4"
    )
    assert found.files == ("Modelfile", "replay.json", "sorter-adapter.gguf", "sorter-base.gguf")
    assert len(found.replay.answers) == found.replay.alike == 24
    # As near as 8 bits, since the starter's weights came from four.
    assert found.replay.largest_difference < TOLERANCES["q8_0"].difference
    assert found.replay.from_model < found.replay.from_base / 4
    _says_what_the_starters_own_file_says(tmp_path / "out" / "sorter-base.gguf")


def test_four_bits_with_the_adapter_merged_cost_a_fine_tuned_starter_its_labels(
    sorter, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "_gguf_files", lambda weights, name, dtype: (f"{name}.gguf", None))
    with pytest.raises(ReplayMismatch, match=r"export as q4.* Choose a finer --dtype: q8_0 or f16"):
        export_model(sorter, data.task, data.dev, tmp_path / "out", form="gguf", name="sorter", dtype="q4")
    assert list(tmp_path.iterdir()) == []


def test_free_answers_of_the_starter_survive_16_bits(data, tmp_path):
    task = infer_task(data.train[:3], "Answer in one short sentence.")
    assert task.kind == "answer"
    for form in ("gguf", "safetensors"):
        dtype = "f16" if form == "gguf" else "f32"
        found = export_model(
            open_local("starter"), task, data.dev[:8], tmp_path / form, form=form, name="starter", dtype=dtype
        )
        assert all(len(answer.ours) > 20 for answer in found.replay.answers)


def test_a_lost_adapter_is_blocked_at_every_precision(sorter, data, tmp_path, monkeypatch):
    changes = merged.adapter_changes
    for module in (merged, gguf_adapter):
        monkeypatch.setattr(
            module,
            "adapter_changes",
            lambda weights: {k: replace(v, b=0 * v.b) for k, v in changes(weights).items()},
        )
    for dtype in ("f16", "q8_0", "q4"):
        with pytest.raises(ReplayMismatch, match="Nothing was written"):
            export_model(sorter, data.task, data.dev, tmp_path / "out", form="gguf", name="s", dtype=dtype)
    assert list(tmp_path.iterdir()) == []
