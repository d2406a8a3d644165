"""Which arms are compared where nobody names any."""

import pytest

from tailorbird.bases import Base
from tailorbird.default_arms import default_arms, has_device, weight_bytes, work
from tailorbird.records import Example

STARTER = (Base("starter", "starter"),)
FAR = (Base("far", "http://127.0.0.1:1/v1#far"),)


def chosen(bases=STARTER, *, classify=True, documents=False, num_train=500, device=False, letters=40):
    examples = [Example.pair("a" * letters, "b")] * num_train
    return default_arms(classify=classify, documents=documents, examples=examples, bases=bases, device=device)


def test_every_technique_takes_part_where_there_is_enough_to_learn_from():
    arms, notes = chosen(documents=True)
    assert arms == (
        "blank",
        "majority",
        "tfidf_linear",
        "embedding_linear",
        "nearest",
        "base",
        "few_shot",
        "knowledge",
        "few_shot+knowledge",
        "fine_tune",
        "few_shot+fine_tune",
        "knowledge+fine_tune",
        "from_scratch",
    )
    assert notes == ()


def test_free_answers_have_no_classifiers_and_no_documents_no_knowledge():
    arms, _ = chosen(classify=False)
    assert not {"tfidf_linear", "embedding_linear"} & set(arms)
    assert not [arm for arm in arms if "knowledge" in arm]


@pytest.mark.parametrize(
    ("num_train", "tuned", "scratch"), [(31, False, False), (32, True, False), (200, True, True)]
)
def test_few_examples_train_nothing(num_train, tuned, scratch):
    arms, notes = chosen(num_train=num_train)
    assert ("fine_tune" in arms) is tuned
    assert ("from_scratch" in arms) is scratch
    assert any("fine_tune" in note for note in notes) is not tuned
    if not tuned:
        assert notes[0] == (
            "left out: fine_tune, few_shot+fine_tune (31 examples to learn from, and fine-tuning on fewer than 32 is "
            "decided by chance); --arms names what is wanted"
        )


def test_an_endpoint_trains_nothing_and_what_brings_its_own_weights_stays():
    arms, notes = chosen(FAR)
    assert not [arm for arm in arms if "fine_tune" in arm]
    assert "from_scratch" in arms
    assert notes == ()
    assert "fine_tune" in chosen((*FAR, *STARTER))[0]


def test_what_would_take_many_hours_is_trained_by_default_only_where_there_is_a_gpu(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(25_000_000_000)  # sparse: nothing is written
    large = (Base("large", str(tmp_path)),)
    assert weight_bytes(large[0]) == 25e9
    arms, notes = chosen(large)
    assert not [arm for arm in arms if "fine_tune" in arm]
    assert len(notes) == 1
    assert notes[0].startswith(
        "left out: fine_tune, few_shot+fine_tune (without a GPU, training takes many hours)"
    )
    assert "fine_tune" in chosen(large, device=True)[0]
    assert "fine_tune" in chosen((*large, *STARTER))[0]


def test_long_examples_are_trained_alone_and_not_behind_five_others():
    arms, notes = chosen(letters=1200)
    assert "fine_tune" in arms
    assert "few_shot+fine_tune" not in arms
    assert notes[0].startswith("left out: few_shot+fine_tune (without a GPU")
    assert "few_shot+fine_tune" in chosen(letters=1200, device=True)[0]
    assert work("few_shot+fine_tune", [Example.pair("a" * 39, "b")] * 300, 1e8) == 6 * 1e8 * 3000 * 60


def test_a_gpu_is_told_by_its_device(tmp_path, monkeypatch):
    monkeypatch.setattr("tailorbird.default_arms.platform.system", lambda: "Linux")
    monkeypatch.setattr("tailorbird.default_arms.DEVICES", (str(tmp_path / "nvidia0"),))
    assert not has_device()
    (tmp_path / "nvidia0").touch()
    assert has_device()
    monkeypatch.setattr("tailorbird.default_arms.platform.system", lambda: "Darwin")
    for machine, has in (("x86_64", False), ("arm64", True)):
        monkeypatch.setattr("tailorbird.default_arms.platform.machine", lambda name=machine: name)
        assert has_device() is has
