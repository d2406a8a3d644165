"""The mask preview shows what training gets, and training refuses what teaches nothing."""

from dataclasses import replace

import pytest

from tailorbird.errors import DataError
from tailorbird.models.chat_template import ChatTemplate
from tailorbird.records import Example, Message
from tailorbird.techniques.fine_tune import FineTune
from tailorbird.techniques.mask import preview_mask
from tailorbird.techniques.through_wrappers import to_sequences
from tailorbird.testing.tiny import CONTEXT, tiny_data, tiny_model, tiny_tokenizer


class NeverStops(ChatTemplate):
    """A template that forgets the stop token."""

    def completion(self, text, layout="chat"):
        return self.text(text)


def test_the_preview_is_what_training_gets():
    data, weights = tiny_data(), tiny_model()
    preview = preview_mask(weights.engine.template, data, 5)
    sequences = to_sequences(weights, weights, data, data.train[:5])
    for shown, sequence in zip(preview.examples, sequences, strict=True):
        ids = sequence.prompt + sequence.completion
        assert tuple(token.id for token in shown.tokens) == ids
        assert [token.loss for token in shown.tokens] == [i >= sequence.first_label for i in range(len(ids))]
        assert (shown.num_prompt_tokens, shown.num_completion_tokens) == (
            len(sequence.prompt),
            len(sequence.completion),
        )
    assert preview.num_train == len(data.train)
    assert [example.where for example in preview.examples] == [f"tiny.jsonl:{n}" for n in range(1, 6)]


def test_control_tokens_are_shown_by_their_names_and_the_text_is_whole():
    data = tiny_data()
    (example,) = preview_mask(tiny_model().engine.template, data, 1).examples
    text = "".join(token.text for token in example.tokens)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith(f"<|im_start|>assistant\n{data.train[0].completion}<|im_end|>")


def test_it_says_that_the_model_will_learn_to_stop():
    preview = preview_mask(tiny_model().engine.template, tiny_data(), 3)
    assert preview.learns_to_stop
    assert preview.sentence == (
        "The model will learn to stop: the stop token '<|im_end|>' ends the completion and carries loss in 3 of the "
        "3 examples shown."
    )
    assert all(example.tokens[-1].loss for example in preview.examples)


def test_an_example_without_weight_carries_no_loss_and_teaches_nothing():
    data = replace(tiny_data(), train=(replace(tiny_data().train[0], weight=0.0),))
    preview = preview_mask(tiny_model().engine.template, data, 3)
    assert not preview.learns_to_stop
    assert not any(token.loss for token in preview.examples[0].tokens)
    assert preview.sentence.startswith(
        "The model will not learn to stop, nor anything else: no token carries loss in 0"
    )


def test_without_a_stop_token_it_says_that_the_model_will_not_learn_to_stop():
    preview = preview_mask(NeverStops(tiny_tokenizer(), CONTEXT), tiny_data(), 2)
    assert not preview.learns_to_stop
    assert any(token.loss for token in preview.examples[0].tokens)
    assert preview.sentence == (
        "The model will not learn to stop: the stop token '<|im_end|>' carries loss in 0 of the 2 examples shown."
    )


def test_the_weight_of_an_example_becomes_that_of_its_sequence():
    data, weights = tiny_data(), tiny_model()
    examples = [replace(data.train[0], weight=0.25), data.train[1]]
    assert [s.weight for s in to_sequences(weights, weights, data, examples)] == [0.25, 1.0]


def test_training_refuses_a_set_in_which_nothing_carries_loss():
    data, weights = tiny_data(), tiny_model()
    data = replace(data, train=tuple(replace(example, weight=0.0) for example in data.train))
    with pytest.raises(DataError) as caught:
        FineTune(epochs=1).apply(weights, data)
    assert str(caught.value) == (
        "training set: no token carries loss (24 of 24 examples reach the weights, all with weight 0 or an empty "
        "completion); expected at least one completion with a weight above 0. Give the answers that are to be learnt "
        "a weight of 1."
    )


def test_training_refuses_a_set_from_which_the_model_would_never_learn_to_stop():
    data, weights = tiny_data(), tiny_model()
    weights.engine.template = NeverStops(tiny_tokenizer(), CONTEXT)
    with pytest.raises(DataError) as caught:
        FineTune(epochs=1).apply(weights, data)
    assert str(caught.value) == (
        "training set: none of 24 completions ends with the stop token '<|im_end|>' as a token that carries loss, so "
        "the model would never learn to stop. Mend the tokenizer's chat template so that an assistant's message ends "
        "with it."
    )


def test_one_sequence_that_stops_is_enough():
    data, weights = tiny_data(), tiny_model()
    examples = [replace(e, weight=0.0) for e in data.train[1:]] + [data.train[0]]
    assert len(to_sequences(weights, weights, data, examples)) == 24


def test_a_conversation_is_shown_with_the_earlier_answers_in_the_prompt():
    turns = (Message("user", "my bike is broken"), Message("assistant", "repair"), Message("user", "thanks"))
    data = replace(tiny_data(), train=(Example(turns, "order", file="x.jsonl", line=4),))
    (example,) = preview_mask(tiny_model().engine.template, data, 1).examples
    assert "".join(t.text for t in example.tokens if t.loss) == "order<|im_end|>"
    assert "repair<|im_end|>" in "".join(t.text for t in example.tokens if not t.loss)
