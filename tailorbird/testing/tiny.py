"""A very small model and a very small task, for tests that must take milliseconds.

Example:
    >>> from tailorbird.testing.tiny import tiny_data, tiny_model
    >>> model, data = tiny_model(), tiny_data()
    >>> answer = model.answer([data.task.ask(data.test[0])])[0]
    >>> answer.text in data.task.labels
    True
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tailorbird.data.task import Data, infer_task
from tailorbird.models.engine import Engine
from tailorbird.models.local import LocalWeights
from tailorbird.records import NOT_IN_DOCUMENTS, Example
from tailorbird.techniques.from_scratch import new_tokenizer

VOCABULARY = 400
CONTEXT = 512

LABELS = {
    "order": ("my parcel is late", "where is my order", "the package got lost", "when do you ship it"),
    "repair": ("my bike is broken", "the brake makes a noise", "a wheel came off", "the chain fell apart"),
    "payment": ("my card was declined", "you charged me twice", "I want my money back", "the bill is wrong"),
}
"""Three labels and words that tell them apart."""
MANNERS = ("{}", "hello, {}", "{}, please help", "sorry but {} again")

DOCUMENTS = {
    "repairs.md": "# Repairs\n\nA repair takes three days.\n\nA new brake costs forty euros.\n",
    "shipping.md": "# Shipping\n\nParcels ship on Monday.\n\nA parcel abroad costs nine euros.\n",
    "opening.txt": "The shop opens at ten and closes at six.\n",
}
QUESTIONS = (
    ("How long does a repair take?", "three days", "repairs.md"),
    ("What does a new brake cost?", "forty euros", "repairs.md"),
    ("When do parcels ship?", "on Monday", "shipping.md"),
    ("What does a parcel abroad cost?", "nine euros", "shipping.md"),
    ("When does the shop open?", "at ten", "opening.txt"),
    ("When does the shop close?", "at six", "opening.txt"),
    ("Who painted Guernica?", NOT_IN_DOCUMENTS, None),
    ("Why do volcanoes erupt?", NOT_IN_DOCUMENTS, None),
)


def tiny_model(seed: int = 0, *, name: str = "tiny", context: int = CONTEXT) -> LocalWeights:
    """Random Llama weights of two layers, 32 wide, with a tokenizer of their own and a ChatML template.

    The weights are wide apart, so that what the model says depends visibly on what it was asked.
    Equal seeds give equal weights; every call gives an engine of its own.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return LocalWeights(name, Engine(model, tokenizer))


def tiny_tokenizer() -> Any:
    """A byte-level tokenizer of about `VOCABULARY` tokens, trained on the sentences of this module."""
    return new_tokenizer(list(_texts()), VOCABULARY)


@lru_cache(maxsize=1)
def _texts() -> tuple[str, ...]:
    sentences = [said for sayings in LABELS.values() for said in sayings]
    return (*sentences, *DOCUMENTS.values(), *(f"{q}\n{a}" for q, a, _ in QUESTIONS), " ".join(LABELS)) * 4


def tiny_data(documents: Path | None = None) -> Data:
    """A task of three labels: 24 examples to train on, 12 for dev and 12 for test."""
    examples = [
        Example.pair(manner.format(saying), label, file="tiny.jsonl", line=line)
        for line, (manner, (label, saying)) in enumerate(product(MANNERS, _sayings()), 1)
    ]
    return Data(
        infer_task(examples), tuple(examples[:24]), tuple(examples[24:36]), tuple(examples[36:]), documents
    )


def tiny_questions(documents: Path | None = None) -> Data:
    """A task of free answers, six from the tiny documents and two that those don't hold."""
    examples = tuple(Example.pair(question, answer, document=where) for question, answer, where in QUESTIONS)
    return Data(infer_task(examples), examples, examples[:2], examples[2:4], documents)


def tiny_documents(folder: Path) -> Path:
    """Writes the tiny documents into a folder, made if absent, and gives it back."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _sayings() -> list[tuple[str, str]]:
    """Labels and what is said, the labels taking turns."""
    rounds = zip(*LABELS.values(), strict=True)
    return [(label, saying) for sayings in rounds for label, saying in zip(LABELS, sayings, strict=True)]
