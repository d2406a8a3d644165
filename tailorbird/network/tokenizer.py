"""Training a tokenizer: byte-level BPE, so that every text can be written and comes back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tailorbird.errors import RecipeError

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""End of text, start and end of a turn; they get the ids 0, 1 and 2."""
NUM_BYTES = 256


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, control_tokens: Sequence[str] = CONTROL_TOKENS
) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens; the same texts give the same tokenizer.

    Byte-pair encoding (Sennrich et al., arXiv 1508.07909): start from the 256 bytes and merge, again
    and again, the pair of neighbouring tokens that occurs most often. Digits stay single, so that numbers
    of any length are written alike. Fewer tokens result if the texts run out of pairs to merge.

    Control tokens come first, in the given order. A text that spells one out is encoded as the control
    token unless `tokenizer.encode_special_tokens` is set.

    Raises:
        RecipeError: `vocab_size` has no room for the bytes and the control tokens.

    >>> tokenizer = train_tokenizer(["low lower lowest"] * 4, vocab_size=270)
    >>> tokenizer.decode(tokenizer.encode("lower 42").ids)
    'lower 42'
    """
    least = NUM_BYTES + len(control_tokens)
    if vocab_size < least:
        raise RecipeError(
            f"A vocabulary of {vocab_size} is too small: {NUM_BYTES} bytes and {len(control_tokens)} control "
            f"tokens need {least}. Ask for a few thousand."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(control_tokens),
        # Sorted, since a set's order differs from run to run and would pass into the ids.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
