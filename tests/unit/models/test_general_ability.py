import math
from dataclasses import replace

import pytest
import torch

from tailorbird.errors import InputError
from tailorbird.models import general_ability as module
from tailorbird.models.general_ability import QUESTIONS, beginning, general_ability, shipped_text
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.testing.tiny import tiny_data, tiny_model

TEXT = "The shop opens at ten and closes at six.\n" * 50


def test_the_text_that_is_shipped_is_some_pages_of_several_kinds():
    text = shipped_text()
    assert 6_000 < len(text.encode()) < 9_000
    assert len(text.split("\n\n")) >= 10
    assert text.isascii()


def test_perplexity_is_that_of_the_plain_model_in_fixed_windows():
    weights = tiny_model()
    ids = weights.engine.template.text(TEXT)
    nll = 0.0
    for start in range(0, len(ids) - 1, module.WINDOW):
        window = torch.tensor([ids[start : start + module.WINDOW + 1]])
        log_p = weights.engine.model(window[:, :-1]).logits.double().log_softmax(-1)
        nll -= float(log_p.gather(2, window[:, 1:, None]).sum().detach())
    found = general_ability(weights, TEXT)
    assert len(ids) > 2 * module.WINDOW
    assert found.perplexity == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(nll / math.log(2) / len(TEXT.encode()), rel=1e-4)


def test_adapter_off_and_on_differ_on_one_engine_and_off_stays_as_it_was():
    base = tiny_model()
    before = general_ability(base, TEXT)
    trained = FineTune(rank=4, epochs=2, learning_rate=1e-2).apply(base, replace(tiny_data(), dev=()))
    after = general_ability(trained, TEXT)
    assert after.perplexity != before.perplexity
    assert len(after.answers) == len(before.answers) == len(QUESTIONS)
    assert after.answers != before.answers
    assert general_ability(base, TEXT) == before


def test_a_long_text_is_read_up_to_whole_characters():
    text = beginning("é" * 20_000)
    assert len(text.encode()) == module.MOST_BYTES
    assert set(text) == {"é"}
    assert set(beginning("a" + "é" * 20_000)) == {"a", "é"}


def test_a_text_that_predicts_nothing_is_refused():
    with pytest.raises(InputError, match="The general text has fewer than two tokens"):
        general_ability(tiny_model(), "")
