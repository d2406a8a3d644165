import json
from dataclasses import replace

import pytest

from tailorbird.errors import InputError, IntegrityError, NotFound, Unsupported
from tailorbird.models.blank import Blank, Scripted
from tailorbird.models.embedding_linear import EmbeddingLinear
from tailorbird.models.floors import Majority, NearestExample, TfidfLinear
from tailorbird.models.folders import load_model, read_back, remove_model, save_model, write_examples
from tailorbird.models.local import open_local
from tailorbird.models.remote import RemoteWeights
from tailorbird.records import Example, Message, Request, Sampling
from tailorbird.techniques.few_shot import FewShot, load_metaprompt
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.floors import NearestFloor
from tailorbird.techniques.from_scratch import FromScratch
from tailorbird.techniques.knowledge import Knowledge
from tailorbird.techniques.lookup import load_lookup
from tailorbird.techniques.technique import Recipe
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data, tiny_documents, tiny_model, tiny_questions

REWRITES = {"knowledge": load_lookup, "few_shot": load_metaprompt}
FREE = Request((Message("user", "How long does a repair take?"),), Sampling(max_tokens=8))
QUICK = FineTune(rank=2, epochs=1, learning_rate=1e-2)
SCRATCH = FromScratch(depth=1, vocab_size=300, context=256, text_epochs=1, epochs=1)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    monkeypatch.setenv("TAILORBIRD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


@pytest.fixture
def data(tmp_path):
    return tiny_data(tiny_documents(tmp_path / "documents"))


@pytest.fixture
def base(tmp_path):
    tiny_model().engine.save(tmp_path / "base")
    return open_local(str(tmp_path / "base"))


MADE = {
    "blank": lambda base, data: Blank(),
    "majority": lambda base, data: Majority(data.train),
    "tfidf_linear": lambda base, data: TfidfLinear(data.train),
    "embedding_linear": lambda base, data: EmbeddingLinear(data.train, WordHash()),
    "nearest": lambda base, data: NearestExample(data.train, WordHash()),
    "nearest_sentence": lambda base, data: NearestFloor().apply(base, tiny_questions(data.documents)),
    "base": lambda base, data: base,
    "few_shot": lambda base, data: FewShot(k=2).apply(base, data),
    "few_shot_fixed": lambda base, data: FewShot(k=2, select="fixed", instruction="Choose!").apply(
        base, data
    ),
    "knowledge": lambda base, data: Knowledge(k=1, threshold=0.0).apply(base, data),
    "fine_tune": QUICK.apply,
    "from_scratch": SCRATCH.apply,
    "weights_in_memory": lambda base, data: QUICK.apply(tiny_model(), data),
    "all_four": lambda base, data: Recipe((SCRATCH, Knowledge(k=1), FewShot(k=1), QUICK)).apply(base, data),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_a_saved_model_comes_back_and_answers_alike(make, base, data, tmp_path):
    model = make(base, data)
    asked = [*(data.task.ask(e) for e in data.test[:3]), FREE]
    save_model(model, tmp_path / "saved", task=data.task, lineage={"recipe": "x"})
    saved = load_model(tmp_path / "saved", REWRITES)
    assert saved.model.name == model.name
    assert (saved.task, saved.lineage) == (data.task, {"recipe": "x"})
    for found, expected in zip(saved.model.answer(asked), model.answer(asked), strict=True):
        assert found.text == expected.text
        assert dict(found.probabilities or {}) == pytest.approx(dict(expected.probabilities or {}), abs=1e-5)
        assert replace(found.asked, evidence=()) == replace(expected.asked, evidence=())
        assert [p.text for p in found.asked.evidence] == [p.text for p in expected.asked.evidence]


def test_examples_to_replay_are_kept_with_a_model(base, data, tmp_path):
    save_model(base, tmp_path / "saved", task=data.task, replay=data.dev)
    assert [(e.id, e.prompt, e.completion) for e in load_model(tmp_path / "saved", {}).replay] == [
        (e.id, e.prompt, e.completion) for e in data.dev
    ]
    assert "replay.jsonl" in json.loads((tmp_path / "saved" / "model.json").read_text())["sha256"]
    save_model(base, tmp_path / "without", task=data.task)
    assert load_model(tmp_path / "without", {}).replay == ()


def test_remote_weights_are_saved_without_their_key(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    remote = RemoteWeights("http://127.0.0.1:1/v1", "m", key_env="SOME_KEY", labels="parse", concurrency=2)
    save_model(remote, tmp_path / "saved", task=None)
    assert load_model(tmp_path / "saved", {}).model == remote
    assert "secret" not in (tmp_path / "saved" / "model.json").read_text()


def test_weights_that_exist_only_here_travel_in_the_folder_and_others_do_not(base, data, tmp_path):
    save_model(SCRATCH.apply(base, data), tmp_path / "scratch", task=data.task)
    save_model(QUICK.apply(base, data), tmp_path / "tuned", task=data.task)
    assert (tmp_path / "scratch" / "weights" / "model.safetensors").is_file()
    assert not (tmp_path / "tuned" / "weights").exists()
    assert (tmp_path / "tuned" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_model_made_from_a_saved_one_takes_its_weights_along(base, data, tmp_path):
    save_model(SCRATCH.apply(base, data), tmp_path / "scratch", task=data.task)
    tuned = QUICK.apply(load_model(tmp_path / "scratch", REWRITES).model, data)
    expected = tuned.answer([FREE])[0].text
    save_model(tuned, tmp_path / "tuned", task=data.task)
    remove_model(tmp_path / "scratch")
    (tmp_path / "tuned").rename(tmp_path / "moved")
    assert load_model(tmp_path / "moved", REWRITES).model.answer([FREE])[0].text == expected


def test_a_model_that_replaces_another_under_its_name_is_the_one_that_answers(data, tmp_path):
    for seed in (0, 1):
        save_model(tiny_model(seed), tmp_path / "saved", task=None, replace_old=True)
        loaded = load_model(tmp_path / "saved", {}).model
        assert loaded.answer([FREE])[0].text == tiny_model(seed).answer([FREE])[0].text


def test_a_fine_tuned_model_goes_on_from_where_it_was_saved(base, data, tmp_path):
    tuned = QUICK.apply(base, data)
    expected = tuned.answer([data.task.ask(data.test[0])])[0]
    save_model(tuned, tmp_path / "saved", task=data.task)
    loaded = load_model(tmp_path / "saved", REWRITES).model
    for first in (tuned, loaded):
        further = QUICK.apply(first, data)
        assert further.adapter != first.adapter
        assert dict(first.answer([expected.asked])[0].probabilities) == pytest.approx(
            dict(expected.probabilities), abs=1e-6
        )
        assert dict(further.answer([expected.asked])[0].probabilities) != pytest.approx(
            dict(expected.probabilities), abs=1e-4
        )


def test_an_existing_folder_is_not_overwritten_unasked(tmp_path):
    save_model(Blank(), tmp_path / "saved", task=None)
    with pytest.raises(InputError, match="already exists"):
        save_model(Blank(), tmp_path / "saved", task=None)
    save_model(Blank(), tmp_path / "saved", task=None, lineage={"n": 2}, replace_old=True)
    assert load_model(tmp_path / "saved", {}).lineage == {"n": 2}


def test_what_cannot_be_saved_leaves_no_folder(tmp_path):
    with pytest.raises(Unsupported, match=r"'scripted' of type Scripted cannot be saved"):
        save_model(Scripted(lambda _: "x"), tmp_path / "saved", task=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "rewrites/0/metaprompt.toml"])
def test_a_file_that_was_changed_or_is_gone_is_refused(base, data, tmp_path, name):
    model = Recipe((FewShot(k=1, select="fixed"), QUICK)).apply(base, data)
    save_model(model, tmp_path / "saved", task=data.task)
    file = tmp_path / "saved" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=r"sha256 differs.*make the model again"):
        load_model(tmp_path / "saved", REWRITES)
    file.unlink()
    with pytest.raises(IntegrityError, match="the file is gone"):
        load_model(tmp_path / "saved", REWRITES)


def test_a_wrapper_that_is_not_installed_is_unsupported(base, data, tmp_path):
    save_model(FewShot(k=1).apply(base, data), tmp_path / "saved", task=data.task)
    with pytest.raises(
        Unsupported, match=r"wrapped by 'few_shot', which is not installed. Known: \['knowledge'\]"
    ):
        load_model(tmp_path / "saved", {"knowledge": load_lookup})


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", IntegrityError, "not valid JSON"),
        ("[]", IntegrityError, "not a JSON object"),
        ('{"format": 2}', Unsupported, "format 2; this version reads 1. Update"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path, content, error, message):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(error, match=message):
        load_model(tmp_path, {})


def test_weights_of_a_kind_of_another_version_are_unsupported(tmp_path):
    save_model(Blank(), tmp_path / "saved", task=None)
    manifest = tmp_path / "saved" / "model.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights": {"kind": "quantum"}}))
    with pytest.raises(Unsupported, match="weights of kind 'quantum' are unknown"):
        load_model(tmp_path / "saved", {})


def test_a_folder_without_a_model_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no model.json there.*tailor models list"):
        load_model(tmp_path, {})
    with pytest.raises(NotFound):
        remove_model(tmp_path)
    assert tmp_path.is_dir()


def test_a_removed_model_is_gone(tmp_path):
    remove_model(save_model(Blank(), tmp_path / "saved", task=None))
    assert list(tmp_path.iterdir()) == []


def test_examples_come_back_as_they_were_written(tmp_path):
    turns = (
        Message("system", "s"),
        Message("user", 'a\nb\u2028c "q"'),
        Message("assistant", "ok"),
        Message("user", "é🦜"),
    )
    examples = (Example(turns, "x\ty", document="d.md"), Example.pair("p", "c", id="own"))
    write_examples(tmp_path / "examples.jsonl", examples)
    assert read_back(tmp_path / "examples.jsonl") == examples
