"""What all requests begin with is kept with a saved model, and used by the very weights that made it."""

import pytest

from tailorbird.models import kept_prefix
from tailorbird.models.folders import load_model, save_model
from tailorbird.models.model import weights_of
from tailorbird.techniques.few_shot import FewShot, load_metaprompt
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_model

DATA = tiny_data()
REWRITES = {"few_shot": load_metaprompt}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


def saved(tmp_path, **settings):
    model = FewShot(calibrate="none", **settings).apply(tiny_model(), DATA)
    save_model(model, tmp_path / "saved", task=DATA.task)
    return model


def kept(model):
    return list(weights_of(model).engine._prefixes._entries)


def test_a_metaprompt_that_is_the_same_for_all_is_computed_once_for_good(tmp_path):
    before = saved(tmp_path, k=4, select="balanced")
    assert (tmp_path / "saved" / kept_prefix.FILE).is_file()
    loaded = load_model(tmp_path / "saved", REWRITES).model
    ((_, ids),) = kept(loaded)
    assert len(ids) >= kept_prefix.LEAST_TOKENS
    requests = [DATA.task.ask(e) for e in DATA.test[:4]]
    for request, mine in zip(requests, before.answer(requests), strict=True):
        answer = loaded.answer([request])[0]
        assert answer.usage.cached_tokens >= kept_prefix.LEAST_TOKENS
        assert dict(answer.probabilities) == pytest.approx(dict(mine.probabilities), abs=1e-5)


@pytest.mark.parametrize("settings", [{"k": 4, "select": "nearest"}, {"k": 0}])
def test_a_short_beginning_is_not_kept(tmp_path, settings):
    saved(tmp_path, **settings)
    assert not (tmp_path / "saved" / kept_prefix.FILE).exists()


def test_other_weights_do_not_use_it(tmp_path):
    saved(tmp_path, k=4, select="balanced")
    other = FewShot(k=4, select="balanced", calibrate="none").apply(tiny_model(seed=1), DATA)
    kept_prefix.use_prefix(other, tmp_path / "saved")
    assert kept(other) == []


def test_a_model_saved_twice_keeps_the_same_bytes_whatever_was_asked_between(tmp_path):
    saved(tmp_path / "one", k=4, select="balanced")
    model = saved(tmp_path / "two", k=4, select="balanced")
    model.answer([DATA.task.ask(e) for e in DATA.test[:3]])
    kept_prefix.keep_prefix(model, DATA.task, tmp_path / "two" / "saved")
    files = [(tmp_path / name / "saved" / kept_prefix.FILE).read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_what_an_earlier_version_kept_is_computed_again(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(tmp_path, k=4, select="balanced")
    path, same = tmp_path / "saved" / kept_prefix.FILE, tiny_model()
    tensors = load_file(path)
    kept_prefix.use_prefix(same, tmp_path / "saved")
    assert len(kept(same)) == 1
    save_file(tensors, path, {"ids": "[1, 2]", "weights": kept_prefix._identity(same)})
    again = tiny_model()
    kept_prefix.use_prefix(again, tmp_path / "saved")
    assert kept(again) == []


def test_many_answers_are_the_same_to_the_last_bit_whatever_was_asked_before(tmp_path):
    saved(tmp_path, k=4, select="balanced")
    requests = [DATA.task.ask(e) for e in DATA.test[:5]]
    fresh = load_model(tmp_path / "saved", REWRITES).model.answer(requests)
    busy = load_model(tmp_path / "saved", REWRITES).model
    for request in [*requests[3:], *map(DATA.task.ask, DATA.dev[:3])]:
        busy.answer([request])
    busy.answer([DATA.task.ask(e) for e in DATA.dev[:4]])
    again = busy.answer(requests)
    assert [a.probabilities for a in again] == [a.probabilities for a in fresh]
    assert [a.usage for a in again] == [a.usage for a in fresh]
    assert fresh[0].usage.cached_tokens >= kept_prefix.LEAST_TOKENS
