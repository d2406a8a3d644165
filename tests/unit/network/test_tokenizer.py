import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.errors import RecipeError
from tailorbird.network.tokenizer import CONTROL_TOKENS, train_tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "café 2024 naïve"] * 5
TOKENIZER = train_tokenizer(TEXTS, 300)


def test_the_same_texts_give_the_same_tokenizer():
    assert train_tokenizer(iter(TEXTS), 300).to_str() == TOKENIZER.to_str()


def test_control_tokens_have_the_first_ids():
    assert [TOKENIZER.token_to_id(token) for token in CONTROL_TOKENS] == [0, 1, 2]


def test_frequent_words_become_single_tokens():
    assert TOKENIZER.encode(" the").tokens == ["Ġthe"]
    assert TOKENIZER.get_vocab_size() <= 300


def test_digits_stay_single():
    tokenizer = train_tokenizer(["2024 2024 2024"] * 50, 300)
    assert tokenizer.encode("2024").tokens == ["2", "0", "2", "4"]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_text_comes_back_unchanged(text):
    encoded = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(encoded, skip_special_tokens=False) == text


def test_a_control_token_in_a_text_can_be_encoded_as_plain_text():
    tokenizer = train_tokenizer(TEXTS, 300)
    assert tokenizer.encode("<|im_end|>").ids == [2]
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode("<|im_end|>").ids
    assert len(plain) > 1
    assert 2 not in plain
    assert tokenizer.decode(plain) == "<|im_end|>"


def test_other_control_tokens_can_be_chosen():
    tokenizer = train_tokenizer(TEXTS, 300, ("<s>", "</s>"))
    assert tokenizer.token_to_id("</s>") == 1
    assert tokenizer.token_to_id("<|im_end|>") is None


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(RecipeError, match=r"A vocabulary of 258 is too small.*need 259"):
        train_tokenizer(TEXTS, 258)
