import json
from dataclasses import replace
from unittest.mock import Mock

import pytest

from tailorbird.errors import OutOfMemory
from tailorbird.network.metrics_file import read_metrics
from tailorbird.techniques import measured_training
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.testing.tiny import tiny_data, tiny_model, tiny_questions

DATA = tiny_data()
QUICK = FineTune(rank=4, epochs=2, learning_rate=1e-2)


@pytest.fixture
def told():
    return []


@pytest.fixture
def tell(told):
    """Is told estimates and lets training start."""
    return lambda estimate: told.append(estimate) or True


def free_memory(monkeypatch, size_bytes):
    monkeypatch.setattr("tailorbird.network.estimate.available_bytes", lambda device: size_bytes)


def test_what_training_takes_is_told_before_and_measured_after(tmp_path, told, tell):
    steps = []
    technique = replace(QUICK, checkpoint=tmp_path, on_estimate=tell, on_step=steps.append)
    technique.apply(tiny_model(), DATA)
    [estimate] = told
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["stage"] == "fine_tune"
    assert record["estimate"] == estimate.to_json()
    measured = record["measured"]
    assert (measured["steps"], measured["evaluations"]) == (estimate.steps, estimate.evaluations) == (6, 2)
    assert (measured["tokens"], measured["shared_tokens"]) == (estimate.tokens, estimate.shared_tokens)
    assert measured["seconds"] == steps[-1].seconds
    assert measured["peak_bytes"] > 50e6
    assert record["path"] == "packed, fused, float32"
    assert record["expected_s"] == estimate.seconds > 0
    assert record["settings"]["batch_size"] == 8
    assert len(read_metrics(tmp_path / "metrics.jsonl")[1]) == 6


def test_nothing_is_trained_where_whoever_is_told_does_not_want_it(tmp_path, told):
    steps = []
    technique = replace(QUICK, checkpoint=tmp_path, on_step=steps.append)
    model = replace(technique, on_estimate=told.append).apply(tiny_model(), DATA)
    assert len(told) == 1
    assert steps == []
    assert not (tmp_path / "training.json").exists()
    layers = [p for name, p in model.engine.model.named_parameters() if "lora_B" in name]
    assert all(float(p.detach().abs().sum()) == 0 for p in layers)


def test_being_told_changes_nothing_of_what_is_learnt(tell):
    losses, alone = [], []
    replace(QUICK, on_estimate=tell, on_step=lambda r: losses.append(r.loss)).apply(tiny_model(), DATA)
    replace(QUICK, on_step=lambda r: alone.append(r.loss)).apply(tiny_model(), DATA)
    assert losses == alone


def test_both_stages_from_scratch_are_told(tmp_path, told, tell):
    technique = FromScratch(depth=1, vocab_size=300, text_epochs=1, epochs=1, context=512)
    from tailorbird.models.blank import Blank

    replace(technique, checkpoint=tmp_path, on_estimate=tell).apply(Blank(), DATA)
    assert [estimate.stage for estimate in told] == ["from_scratch, text", "from_scratch, examples"]
    assert {path.parent.name for path in tmp_path.rglob("training.json")} == {"text", "examples"}


class KilledError(Exception):
    pass


def test_a_run_that_goes_on_knows_its_estimate_and_is_not_probed_again(tmp_path, told, tell, monkeypatch):
    def killed(report):
        raise KilledError

    technique = replace(QUICK, checkpoint=tmp_path, on_estimate=tell)
    with pytest.raises(KilledError):
        replace(technique, on_step=killed).apply(tiny_model(), DATA)
    monkeypatch.setattr(measured_training, "probe", None)
    technique.apply(tiny_model(), DATA)
    assert replace(told[0], available_bytes=0) == replace(told[1], available_bytes=0)


def test_of_another_run_in_the_same_folder_nothing_is_believed(tmp_path, told, tell):
    technique = replace(QUICK, checkpoint=tmp_path, on_estimate=tell)
    technique.apply(tiny_model(), DATA)
    replace(technique, epochs=1).apply(tiny_model(), DATA)
    assert [estimate.steps for estimate in told] == [6, 3]


def test_too_little_memory_is_refused_before_anything_is_computed(monkeypatch, tmp_path):
    free_memory(monkeypatch, 1_000_000)
    steps = []
    technique = replace(QUICK, checkpoint=tmp_path, on_step=steps.append)
    with pytest.raises(OutOfMemory) as refused:
        technique.apply(tiny_model(), DATA)
    message = str(refused.value)
    assert message.startswith("fine_tune: training needs about ")
    assert "this machine has 1 MB free" in message
    assert "What would fit: max_batch_tokens = " in message
    assert "which takes" in message
    assert "a base model of about" in message
    assert steps == []


def test_what_the_refusal_says_would_fit_fits(monkeypatch):
    free_memory(monkeypatch, 1_000_000)
    with pytest.raises(OutOfMemory) as refused:
        QUICK.apply(tiny_model(), DATA)
    said = str(refused.value).split("max_batch_tokens = ")[1].split(",")[0]
    losses, whole = [], []
    replace(QUICK, max_batch_tokens=int(said), on_step=lambda r: losses.append(r.loss)).apply(
        tiny_model(), DATA
    )
    monkeypatch.undo()
    replace(QUICK, on_step=lambda r: whole.append(r.loss)).apply(tiny_model(), DATA)
    assert losses == pytest.approx(whole, rel=1e-4)


def test_where_one_example_is_too_long_the_refusal_says_how_many_are(monkeypatch):
    free_memory(monkeypatch, 350_000)
    with pytest.raises(OutOfMemory, match=r"shorter examples: \d+ of 24 have more than \d+ tokens"):
        QUICK.apply(tiny_model(), DATA)


def test_where_too_much_is_trained_the_refusal_names_a_smaller_dial(monkeypatch):
    free_memory(monkeypatch, 6_000_000)
    with pytest.raises(OutOfMemory, match=r"rank = \d+"):
        replace(QUICK, rank=512).apply(tiny_model(), DATA)
    free_memory(monkeypatch, 60_000_000)
    from tailorbird.models.blank import Blank

    with pytest.raises(OutOfMemory, match=r"from_scratch, text: .*depth = [1-7]"):
        FromScratch(depth=8, vocab_size=300).apply(Blank(), DATA)


@pytest.mark.parametrize("data", [tiny_data(), tiny_questions()])
def test_evaluations_are_timed_by_a_few_examples(data, monkeypatch):
    asked, clock = [], [0.0]

    def answer(weights, model, data, examples):
        asked.append(len(examples))
        tokens = data.task.max_tokens if data.task.kind == "answer" else 1
        clock[0] += len(examples) * (2.0 + tokens)

    monkeypatch.setattr(measured_training, "dev_score", answer)
    monkeypatch.setattr(measured_training, "time", Mock(perf_counter=lambda: clock[0]))
    model = tiny_model()
    dev = data.dev[:2] * 50
    told = measured_training.dev_seconds(model, model, data, dev)
    longest = max(len(model.engine.template.completion(e.completion)) for e in dev)
    tokens = min(data.task.max_tokens, longest) if data.task.kind == "answer" else 1
    assert told == pytest.approx(len(dev) * (2.0 + tokens))
    assert max(asked) < len(dev)
