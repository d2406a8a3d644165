import json

import pytest
import torch

from tailorbird.errors import IntegrityError, NotFound, Unsupported
from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.llama_folder import from_llama_folder, save_llama

SHAPE = DecoderShape(53, 32, 2, 4, 2, 48, 40, rope_theta=5000.0, norm_eps=1e-6)


@pytest.fixture
def folder(tmp_path):
    save_llama(Decoder(SHAPE, seed=2), tmp_path / "saved", bos_id=0, eos_id=2, pad_id=0)
    return tmp_path / "saved"


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_saved_decoder_comes_back_the_same(folder):
    back = from_llama_folder(folder)
    assert back.shape == SHAPE
    for one, other in zip(Decoder(SHAPE, seed=2).parameters(), back.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_untied_head_is_saved_too(tmp_path):
    decoder = Decoder(DecoderShape(53, 32, 1, 2, 2, 48, 40, tied_embeddings=False))
    save_llama(decoder, tmp_path)
    assert torch.equal(from_llama_folder(tmp_path).head.weight, decoder.head.weight)


def test_a_config_of_before_transformers_5_is_understood(folder):
    change_config(folder, rope_parameters=None, rope_theta=777.0)
    assert from_llama_folder(folder).shape.rope_theta == 777.0


def test_an_empty_folder_is_no_decoder(tmp_path):
    with pytest.raises(NotFound, match=r"is no saved decoder: expected config.json"):
        from_llama_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', but our decoder has only 'llama'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope_type is 'llama3'"),
        ({"head_dim": 64}, "head_dim is 64"),
    ],
)
def test_other_architectures_are_refused(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(Unsupported, match=message):
        from_llama_folder(folder)


def test_weights_that_do_not_fit_the_config_are_refused(folder):
    change_config(folder, intermediate_size=64)
    with pytest.raises(IntegrityError, match=r"gate_proj.weight' should have shape \(64, 32\).*\(48, 32\)"):
        from_llama_folder(folder)
    change_config(folder, intermediate_size=48, num_hidden_layers=3)
    with pytest.raises(IntegrityError, match=r"layers.2.*there is nothing"):
        from_llama_folder(folder)
