import pytest

from tailorbird.errors import InputError, NotFound
from tailorbird.models.local import new_adapter_name, open_local
from tailorbird.records import Message, Request, Sampling
from tailorbird.testing.tiny import tiny_model

ASKED = Request((Message("user", "Where is my parcel?"),), Sampling(max_tokens=8))


def test_a_folder_is_opened_once_and_its_weights_are_shared(tmp_path):
    tiny_model().engine.save(tmp_path / "mine")
    model = open_local(str(tmp_path / "mine"))
    assert (model.name, model.reference, model.adapter) == ("mine", str(tmp_path / "mine"), None)
    assert open_local(str(tmp_path / "mine")).engine is model.engine
    assert model.answer([ASKED])[0].text == tiny_model().answer([ASKED])[0].text
    assert model.num_parameters == tiny_model().num_parameters > 10_000


def test_a_folder_whose_files_were_replaced_is_another_model(tmp_path):
    tiny_model().engine.save(tmp_path)
    open_local(str(tmp_path))
    tiny_model(seed=1).engine.save(tmp_path)
    assert open_local(str(tmp_path)).answer([ASKED])[0].text == tiny_model(seed=1).answer([ASKED])[0].text


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no such saved model, folder or file.*'starter'.*hf:org/name"):
        open_local(str(tmp_path / "nothing"))


def test_a_hub_model_that_cannot_be_had_is_not_found(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotFound, match=r"model 'hf:no-such/model': the hub did not give it.*HF_HUB_OFFLINE"):
        open_local("hf:no-such/model")
    with pytest.raises(NotFound, match="the hub did not give it"):
        open_local("hf:not a name")


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"ZIP!something")
    with pytest.raises(InputError, match=r"not a GGUF file. Got first bytes b'ZIP!'; expected b'GGUF'"):
        open_local(str(tmp_path / "model.gguf"))


def test_adapter_names_are_never_given_twice():
    assert len({new_adapter_name() for _ in range(100)}) == 100
