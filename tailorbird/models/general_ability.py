"""What weights can do besides their task: how well they predict plain text, and what they answer.

perplexity     exp(-mean log p(token | tokens before it in its window))
bits per byte  -Σ log₂ p(token | …) / bytes of the text: comparable between tokenizers
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files

import torch

from tailorbird.errors import InputError
from tailorbird.models.local import LocalWeights
from tailorbird.network.batches import Batch
from tailorbird.network.loss import completion_loss
from tailorbird.network.sequences import blocks
from tailorbird.records import Message, Request, Sampling

WINDOW = 256
"""Tokens that are predicted from one another."""
WINDOWS_AT_ONCE = 2
"""The head is computed for every token, so few windows fit in memory together."""
MOST_BYTES = 16_384
"""A longer text is read up to here, so that the check costs seconds."""
ANSWER_TOKENS = 40

QUESTIONS = (
    "What is the capital of France?",
    "Name three kinds of fruit.",
    "How much is seven plus five?",
    "Write one sentence about the sea in winter.",
    "Why do people sleep? Answer in one sentence.",
)


@dataclass(frozen=True)
class GeneralAbility:
    """How well weights predict a general text, and what they answer to `QUESTIONS`."""

    perplexity: float
    bits_per_byte: float
    answers: tuple[str, ...]


def shipped_text() -> str:
    """Plain English prose of several kinds, written for this check."""
    return files("tailorbird.models").joinpath("general_text.txt").read_text(encoding="utf-8")


def beginning(text: str) -> str:
    """The part of a text that the check reads: at most `MOST_BYTES`, whole characters."""
    return text.encode()[:MOST_BYTES].decode(errors="ignore")


def general_ability(weights: LocalWeights, text: str) -> GeneralAbility:
    """Measured without wrappers and without an instruction.

    Raises:
        InputError: the text is too short to predict anything.
    """
    nll, predicted = _negative_log_likelihood(weights, text)
    asked = [
        Request((Message("user", question),), Sampling(max_tokens=ANSWER_TOKENS)) for question in QUESTIONS
    ]
    answers = tuple(answer.text.strip() for answer in weights.answer(asked))
    return GeneralAbility(math.exp(nll / predicted), nll / math.log(2) / len(text.encode()), answers)


@torch.no_grad()
def _negative_log_likelihood(weights: LocalWeights, text: str) -> tuple[float, int]:
    """Of all tokens but the first, in nats, and their number."""
    engine = weights.engine
    windows = blocks(engine.template.text(text), min(WINDOW, engine.template.context - 1))
    if not windows:
        raise InputError("The general text has fewer than two tokens. Give a file with some pages of prose.")
    nll = 0.0
    with engine.using(weights.adapter):
        for start in range(0, len(windows), WINDOWS_AT_ONCE):
            batch = Batch(tuple(windows[start : start + WINDOWS_AT_ONCE]))
            nll += float(completion_loss(engine.network, batch, device=engine.device, share=False)[0])
    return nll, sum(window.num_labels for window in windows)
