"""One loaded base model with any number of LoRA adapters: scores labels, generates, computes once."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tailorbird.errors import InputError, IntegrityError, NotFound
from tailorbird.models.causal import TransformersNetwork
from tailorbird.models.chat_template import ChatTemplate, Prompt
from tailorbird.models.label_scoring import Trie, build_trie, score_labels
from tailorbird.models.prefill import Prefilled, PrefixCache, prefill
from tailorbird.records import Completion, Request, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BATCH_TOKENS = 6_144
"""Prompt tokens of one batch, padding included: beyond it larger batches are no faster on CPUs."""
MAX_BATCH_ROWS = 32


@dataclass(frozen=True)
class _Asked:
    """One request on its way through a batch."""

    index: int
    prompt: Prompt


class Engine:
    """A causal model in memory, shared by every customized model over the same base.

    One request batch runs at a time (a lock); adapters are switched inside it, and an adapter that
    is not loaded is an error, never the base model's answer.

    Args:
        model: a transformers causal language model.
        tokenizer: its fast tokenizer.
        context: tokens of prompt and answer together; default: what the model was built for.
    """

    def __init__(self, model: Any, tokenizer: Any, context: int | None = None) -> None:
        self.model = model.eval()
        self.peft: Any = None
        self.tokenizer = tokenizer
        limit = getattr(model.config, "max_position_embeddings", None) or 2048
        self.template = ChatTemplate(tokenizer, min(limit, context or limit))
        self.network = TransformersNetwork(model)
        self.device = next(model.parameters()).device
        self.num_parameters = sum(p.numel() for p in model.parameters())
        self.lock = threading.RLock()
        self._prefixes = PrefixCache()
        self._tries: dict[tuple[str, ...], Trie] = {}
        self._adapters: set[str] = set()
        self._active: str | None = None

    @classmethod
    def load(cls, folder: Path, context: int | None = None) -> Engine:
        """Loads a transformers folder (safetensors only, no code from the folder is run).

        Raises:
            NotFound: the folder has no config.json.
            InputError: transformers cannot load it.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        if not (folder / "config.json").is_file():
            raise NotFound(
                f"{folder}: no config.json there. Expected a transformers folder with config.json, "
                "model.safetensors and tokenizer.json, a .gguf file, 'starter', hf:org/name or URL#model."
            )
        logging.disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.bfloat16 if on_gpu else torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"{folder}: transformers cannot load this model ({error}). "
                "Check that config.json, model.safetensors and tokenizer.json belong together."
            ) from error
        return cls(model.to("cuda") if on_gpu else model, tokenizer, context)

    # -- adapters -----------------------------------------------------------------------------

    def add_adapter(self, name: str, config: Any) -> dict[str, torch.nn.Parameter]:
        """Puts fresh LoRA layers in and returns their parameters by name."""
        import peft

        with self.lock:
            if self.peft is None:
                self.peft = peft.PeftModel(self.model, config, adapter_name=name)
            else:
                self.peft.add_adapter(name, config)
            self._adapters.add(name)
            self._switch_to(name)
            self.model.eval()
            return {n: p for n, p in self.model.named_parameters() if f".{name}." in n}

    def copy_adapter(self, source: str, name: str) -> dict[str, torch.nn.Parameter]:
        """A new adapter that starts with the weights of `source`; returns its parameters by name."""
        from copy import deepcopy

        with self.using(source):
            parameters = self.add_adapter(name, deepcopy(self.peft.peft_config[source]))
            own = dict(self.model.named_parameters())
            with torch.no_grad():
                for key, parameter in parameters.items():
                    parameter.copy_(own[key.replace(f".{name}.", f".{source}.")])
            return parameters

    def load_adapter(self, name: str, folder: Path) -> None:
        """Loads an adapter in PEFT's format and makes sure that all of it was applied.

        Raises:
            NotFound: no adapter in the folder.
            IntegrityError: tensors of the file found no place in the model, or the other way round.
        """
        import peft
        from safetensors import safe_open

        file = folder / "adapter_model.safetensors"
        if not file.is_file():
            raise NotFound(f"{folder}: no adapter_model.safetensors there. Expected an adapter saved in PEFT's format.")
        config = peft.LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        self.add_adapter(name, config)
        with safe_open(str(file), "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        result = peft.set_peft_model_state_dict(self.peft, tensors, adapter_name=name)
        applied = len(peft.get_peft_model_state_dict(self.peft, adapter_name=name))
        if applied != len(tensors) or result.unexpected_keys:
            raise IntegrityError(
                f"{file}: {len(tensors)} tensors in the file, {applied} places in the model, "
                f"{len(result.unexpected_keys)} unknown. The adapter was trained on another base model."
            )

    def save_adapter(self, name: str, folder: Path) -> None:
        """Writes an adapter in PEFT's format, so that other servers load it."""
        import peft
        from safetensors.torch import save_file

        with self.lock:
            tensors = peft.get_peft_model_state_dict(self.peft, adapter_name=name)
            save_file({k: v.contiguous() for k, v in tensors.items()}, str(folder / "adapter_model.safetensors"))
            config = self.peft.peft_config[name]
            config.inference_mode = True
            config.save_pretrained(str(folder))

    def save(self, folder: Path) -> None:
        """Writes the base weights and the tokenizer as a transformers folder, without adapters."""
        with self.lock:
            tensors = {
                key.replace(".base_layer.", "."): value
                for key, value in self.model.state_dict().items()
                if ".lora_" not in key
            }
            self.model.save_pretrained(folder, state_dict=tensors)
            self.tokenizer.save_pretrained(folder)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Holds the engine with this adapter (None: the bare base) switched on."""
        with self.lock:
            if adapter is not None and adapter not in self._adapters:
                raise NotFound(
                    f"adapter {adapter!r} is not loaded in this engine. Loaded: {sorted(self._adapters)}. "
                    "Load the model again."
                )
            if self.peft is not None and adapter != self._active:
                self._switch_to(adapter)
            yield

    def _switch_to(self, adapter: str | None) -> None:
        if adapter is None:
            self.peft.base_model.disable_adapter_layers()
        else:
            self.peft.base_model.enable_adapter_layers()
            self.peft.set_adapter(adapter)
        self._active = adapter

    def weights_changed(self, adapter: str | None) -> None:
        """Tells the engine that an adapter was trained on, so that nothing computed with it is reused."""
        self._prefixes.forget(adapter)

    # -- answers ------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], adapter: str | None) -> list[Completion]:
        """One completion a request, in order; closed sets are scored, the rest is generated."""
        prompts = [self.template.prompt(r) for r in requests]
        answers: list[Completion | None] = [None] * len(requests)
        groups: dict[tuple[str, ...] | None, list[_Asked]] = {}
        for index, prompt in enumerate(prompts):
            choices = prompt.request.choices
            if choices is not None and len(choices) == 1:
                answers[index] = only_choice(prompt.request)
                continue
            groups.setdefault(choices, []).append(_Asked(index, prompt))
        for choices, group in groups.items():
            for batch in _batches(group):
                started = time.perf_counter()
                completions = self._score(batch, choices, adapter) if choices else self._generate(batch, adapter)
                share = (time.perf_counter() - started) / len(batch)
                for asked, completion in zip(batch, completions, strict=True):
                    answers[asked.index] = _timed(completion, share)
        return [a for a in answers if a is not None]

    @torch.inference_mode()
    def _score(self, batch: list[_Asked], choices: tuple[str, ...], adapter: str | None) -> list[Completion]:
        if choices not in self._tries:
            self._tries[choices] = build_trie([self.template.text(c) for c in choices], self.template.stop_id)
        trie = self._tries[choices]
        with self.using(adapter):
            ready = self._prefill(batch, adapter)
            log_p_BL = score_labels(self.network, ready.last_BC, ready.past, ready.seen_BP, ready.lengths_B, trie)
        p_BL = log_p_BL.double().softmax(dim=-1)
        best_B = log_p_BL.argmax(dim=-1).tolist()
        return [
            Completion(
                choices[best],
                "choice",
                Usage(len(asked.prompt.ids), len(trie.tokens) + 1, ready.shared_tokens),
                probabilities=dict(zip(choices, p_L.tolist(), strict=True)),
                asked=asked.prompt.request,
                dropped=asked.prompt.dropped,
            )
            for asked, best, p_L in zip(batch, best_B, p_BL, strict=True)
        ]

    def _generate(self, batch: list[_Asked], adapter: str | None) -> list[Completion]:
        rows: list[list[int]] = [[] for _ in batch]
        shared = 0
        for step in self._decode(batch, adapter):
            shared = step.shared_tokens
            for row, token in zip(rows, step.tokens, strict=True):
                if token is not None:
                    row.append(token)
        return [self._finished(asked, row, shared) for asked, row in zip(batch, rows, strict=True)]

    def _finished(self, asked: _Asked, ids: list[int], shared: int) -> Completion:
        sampling = asked.prompt.request.sampling
        text, stopped_by_text = cut_at_stop(self.template.decode(ids), sampling.stop)
        length = len(ids) >= sampling.max_tokens and not stopped_by_text
        usage = Usage(len(asked.prompt.ids), len(ids), shared)
        return Completion(
            text,
            "length" if length else "stop",
            usage,
            asked=asked.prompt.request,
            dropped=asked.prompt.dropped,
        )

    def stream(self, request: Request, adapter: str | None) -> Iterator[str]:
        """The pieces of `answer([request])[0].text` as they come."""
        prompt = self.template.prompt(request)
        if prompt.request.choices:
            yield self.answer([request], adapter)[0].text
            return
        ids: list[int] = []
        sent = ""
        stops = prompt.request.sampling.stop
        hold = max(map(len, stops), default=0)
        for step in self._decode([_Asked(0, prompt)], adapter):
            if step.tokens[0] is not None:
                ids.append(step.tokens[0])
            text, stopped = cut_at_stop(self.template.decode(ids), stops)
            # The end may still change: a half-decoded character, or the beginning of a stop text.
            safe = text if stopped else text[: len(text) - hold].rstrip("\ufffd")
            if len(safe) > len(sent):
                yield safe[len(sent) :]
                sent = safe
            if stopped:
                return
        rest, _ = cut_at_stop(self.template.decode(ids), stops)
        if len(rest) > len(sent):
            yield rest[len(sent) :]

    def _prefill(self, batch: list[_Asked], adapter: str | None) -> Prefilled:
        return prefill(
            self.network, [a.prompt.ids for a in batch], self._prefixes, adapter, self.template.pad_id, self.device
        )

    def _decode(self, batch: list[_Asked], adapter: str | None) -> Iterator[_Step]:
        """One token for every unfinished row a step; the engine is held between steps."""
        with self.using(adapter), torch.inference_mode():
            ready = self._prefill(batch, adapter)
            past, seen_BP, last_BC = ready.past, ready.seen_BP, ready.last_BC
            positions_B = ready.lengths_B.clone()
            samplers = [Sampler(a.prompt.request) for a in batch]
            counts = [0] * len(batch)
            done = [False] * len(batch)
            while True:
                logits_BV = self.network.logits(last_BC)
                chosen = [
                    None if done[i] else samplers[i](logits_BV[i]) for i in range(len(batch))
                ]
                for i, token in enumerate(chosen):
                    if token is None or token in self.template.stop_ids:
                        done[i], chosen[i] = True, None
                        continue
                    counts[i] += 1
                    done[i] = counts[i] >= batch[i].prompt.request.sampling.max_tokens
                yield _Step(tuple(chosen), ready.shared_tokens)
                if all(done):
                    return
                ids_BT = torch.tensor([[self.template.pad_id if t is None else t] for t in chosen], device=self.device)
                seen_BP = torch.cat([seen_BP, seen_BP.new_ones(len(batch), 1)], dim=1)
                hidden_BTC, past = self.network.hidden(
                    ids_BT,
                    past=past,
                    mask_BTS=seen_BP.unsqueeze(1),
                    positions_BT=positions_B.unsqueeze(1),
                    keep_past=True,
                )
                last_BC = hidden_BTC[:, 0]
                positions_B = positions_B + 1


@dataclass(frozen=True)
class _Step:
    """The tokens of one decoding step, None for rows that are finished."""

    tokens: tuple[int | None, ...]
    shared_tokens: int


class Sampler:
    """Draws tokens for one request with a generator of its own, so that batching changes nothing."""

    def __init__(self, request: Request) -> None:
        self.sampling = request.sampling
        self.generator = torch.Generator()
        if request.sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(request.sampling.seed)

    def __call__(self, logits_V: torch.Tensor) -> int:
        """The next token: the most likely at temperature 0, else nucleus sampling (Holtzman et al. 2020)."""
        if self.sampling.temperature == 0:
            return int(logits_V.argmax())
        p_V = (logits_V.float().cpu() / self.sampling.temperature).softmax(dim=-1)
        sorted_p_V, order_V = p_V.sort(descending=True)
        outside_V = sorted_p_V.cumsum(dim=-1) - sorted_p_V >= self.sampling.top_p
        kept_V = sorted_p_V.masked_fill(outside_V, 0.0)
        return int(order_V[torch.multinomial(kept_V, 1, generator=self.generator)])


def only_choice(request: Request) -> Completion:
    """The answer to a request that leaves one choice: nothing needs to be computed."""
    assert request.choices is not None
    return Completion(request.choices[0], "choice", probabilities={request.choices[0]: 1.0}, asked=request)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop text, and whether one was found."""
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _timed(completion: Completion, seconds: float) -> Completion:
    from dataclasses import replace

    return replace(completion, seconds=seconds)


def _batches(group: list[_Asked]) -> Iterator[list[_Asked]]:
    """Prompts of like length together, under a budget of padded tokens."""
    batch: list[_Asked] = []
    for asked in sorted(group, key=lambda a: (len(a.prompt.ids), a.prompt.ids)):
        width = len(asked.prompt.ids)
        if batch and ((len(batch) + 1) * width > MAX_BATCH_TOKENS or len(batch) >= MAX_BATCH_ROWS):
            yield batch
            batch = []
        batch.append(asked)
    if batch:
        yield batch
