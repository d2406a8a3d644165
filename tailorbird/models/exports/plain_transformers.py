"""Asks a transformers folder as any program would that has never heard of Tailorbird."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tailorbird.models.exports.replay import Answered, Asked


class PlainFolder:
    """A folder loaded by transformers, in the precision that it is stored in.

    Args:
        folder: with config, weights, tokenizer and chat template; or a hub id.
        adapter: a folder in PEFT's format, put on top.
    """

    def __init__(self, folder: Path | str, adapter: Path | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(adapter or folder)
        if adapter is not None:
            import peft

            with warnings.catch_warnings():
                # PEFT asks transformers by a name that transformers has meanwhile renamed.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                loaded = peft.PeftModel.from_pretrained(loaded, str(adapter))
        self.model = loaded.eval()

    @torch.inference_mode()
    def answer(self, asked: Sequence[Asked]) -> list[Answered]:
        """One answer a request."""
        return [self._write(one) if one.choices is None else self._choose(one) for one in asked]

    def _prompt(self, asked: Asked) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            list(asked.messages), add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(encoded["input_ids"])

    def _write(self, asked: Asked) -> Answered:
        prompt = self._prompt(asked)
        ids_1T = torch.tensor([prompt], device=self.model.device)
        written_1T = self.model.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            do_sample=False,
            max_new_tokens=asked.max_tokens,
        )
        text = self.tokenizer.decode(written_1T[0, len(prompt) :], skip_special_tokens=True)
        for stop in asked.stop:
            text = text.split(stop, 1)[0]
        return Answered(tuple(prompt), text)

    def _choose(self, asked: Asked) -> Answered:
        """Every label is written after the prompt, and its tokens' probabilities are multiplied."""
        assert asked.choices is not None
        prompt, labels = self._prompt(asked), self._labels(asked)
        device = self.model.device
        start = self.model(input_ids=torch.tensor([prompt], device=device), use_cache=True)
        width = max(map(len, labels))
        padded_LT = torch.tensor([[*label, *[0] * (width - len(label))] for label in labels], device=device)
        past = copy.deepcopy(start.past_key_values)
        past.batch_repeat_interleave(len(labels))
        rest_LTV = self.model(input_ids=padded_LT, past_key_values=past).logits
        logits_LTV = torch.cat([start.logits[:, -1:].expand(len(labels), -1, -1), rest_LTV[:, :-1]], dim=1)
        log_p_LT = logits_LTV.double().log_softmax(-1).gather(-1, padded_LT.unsqueeze(-1)).squeeze(-1)
        log_p_L = torch.stack(
            [row_T[: len(label)].sum() for row_T, label in zip(log_p_LT, labels, strict=True)]
        )
        p_L = log_p_L.softmax(-1).tolist()
        best = max(range(len(labels)), key=p_L.__getitem__)
        chances = dict(zip(asked.choices, p_L, strict=True))
        return Answered(tuple(prompt), asked.choices[best], chances)

    def _labels(self, asked: Asked) -> list[list[int]]:
        """Each label's tokens; one that begins another is closed by the token that ends an answer."""
        assert asked.choices is not None
        labels = [self.tokenizer(label, add_special_tokens=False)["input_ids"] for label in asked.choices]
        begins = {tuple(label[:n]) for label in labels for n in range(1, len(label))}
        end = self.tokenizer.convert_tokens_to_ids(asked.end)
        return [[*label, end] if tuple(label) in begins else label for label in labels]
