"""One loaded base model with any number of LoRA adapters: scores labels, generates, computes once."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tailorbird.errors import InputError, IntegrityError, NotFound
from tailorbird.models.batching import Asked, batches
from tailorbird.models.causal import TransformersNetwork, past_of, save_pretrained, tensors_of, usable_context
from tailorbird.models.chat_template import ChatTemplate, Prompt
from tailorbird.models.four_bits import is_in_four_bits, keep_as_packed, save_tensors
from tailorbird.models.generation import Row, Writing
from tailorbird.models.label_scoring import score_labels
from tailorbird.models.noisy_channel import channel_log_p, with_channel
from tailorbird.models.prefill import Prefilled, PrefixCache, common_prefix, prefill, prefix_past
from tailorbird.models.request_checks import check_request, if_sure, only_choice
from tailorbird.models.schema_guide import SchemaGuides
from tailorbird.models.trie import Trie, build_trie
from tailorbird.network.sharding import twin_of
from tailorbird.records import Completion, Layout, Prior, Request, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from tailorbird.models.training_network import TrainingNetwork


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
        keep_as_packed(model)
        self.peft: Any = None
        self.tokenizer = tokenizer
        limit = usable_context(model)
        self.template = ChatTemplate(tokenizer, min(limit, context or limit))
        self.network = TransformersNetwork(model)
        self.device = next(model.parameters()).device
        self.num_parameters: int = model.num_parameters()  # of packed weights, what they stand for
        self.lock = threading.RLock()
        self._guides = SchemaGuides(self.template)
        self._prefixes = PrefixCache()
        self._trie = lru_cache(maxsize=64)(self._build_trie)
        self._adapters: set[str] = set()
        self._active: str | None = None
        self._without_gradients: Callable[[], AbstractContextManager[None]] = torch.inference_mode

    @classmethod
    def load(cls, folder: Path, context: int | None = None) -> Engine:
        """Loads a transformers folder (safetensors only, no code from the folder is run).

        Raises:
            NotFound: the folder has no config.json.
            InputError: transformers cannot load it.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        if not (folder / "config.json").is_file():
            raise NotFound(
                f"{folder}: no config.json there. Expected a transformers folder with config.json, "
                "model.safetensors and tokenizer.json, a .gguf file, 'starter', hf:org/name or URL#model."
            )
        logging.disable_progress_bar()
        device, dtype = place_to_work()
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, loading = loaded
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{folder}: transformers cannot load this model ({error}). "
                "Check that config.json, model.safetensors and tokenizer.json belong together."
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise InputError(
                f"{folder}: {len(missing)} tensors of the model are not in its files, such as "
                f"{missing[0]!r}; they would be random. Download the model again, or correct config.json."
            )
        return cls(model.to(device), tokenizer, context)

    # -- adapters -----------------------------------------------------------------------------

    def add_adapter(self, name: str, config: Any) -> dict[str, torch.nn.Parameter]:
        """Puts fresh LoRA layers in and returns their parameters by name."""
        import peft
        from transformers.pytorch_utils import Conv1D

        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in self.model.modules())
        with self.lock, warnings.catch_warnings():
            # PEFT asks transformers by a name that transformers has meanwhile renamed.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
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

    def remove_adapter(self, name: str) -> None:
        """Takes an adapter's layers out again and frees their memory."""
        with self.using(None):
            self._adapters.discard(name)
            self._prefixes.forget(name)
            with warnings.catch_warnings():  # which of the others is switched on is decided below
                warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
                self.peft.delete_adapter(name)
            self._switch_to(None)

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
            raise NotFound(
                f"{folder}: no adapter_model.safetensors there. Expected an adapter saved in PEFT's format."
            )
        config = peft.LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        self.add_adapter(name, config)
        with safe_open(str(file), "pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        try:
            result = peft.set_peft_model_state_dict(self.peft, tensors, adapter_name=name)
            applied = len(peft.get_peft_model_state_dict(self.peft, adapter_name=name))
            problem = f"{applied} places in the model, {len(result.unexpected_keys)} tensors without a place"
            fits = applied == len(tensors) and not result.unexpected_keys
        except RuntimeError as error:  # torch's word for tensors of other shapes
            fits, problem = False, str(error).strip().splitlines()[-1].strip()
        if not fits:
            self.remove_adapter(name)
            raise IntegrityError(
                f"{file}: its {len(tensors)} tensors do not fit this base model ({problem}). "
                "The adapter was trained on another one: name that as the base."
            )

    def save_adapter(self, name: str, folder: Path) -> None:
        """Writes an adapter in PEFT's format, so that other servers load it."""
        import peft
        from safetensors.torch import save_file

        with self.lock:
            tensors = peft.get_peft_model_state_dict(self.peft, adapter_name=name)
            save_file(
                {k: v.contiguous() for k, v in tensors.items()}, str(folder / "adapter_model.safetensors")
            )
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
            if is_in_four_bits(self.model):
                save_tensors(self.model.config, tensors, folder)
            else:
                save_pretrained(self.model, tensors, folder)
            self.tokenizer.save_pretrained(folder)

    @contextmanager
    def using(self, adapter: str | None) -> Generator[None]:
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

    def twin(self, adapter: str | None) -> Engine:
        """An engine of its own over the same weights, with this one adapter, to be shared out among processes."""
        with self.using(adapter):
            own = Engine(twin_of(self.model), self.tokenizer, self.template.context)
        own._adapters, own._active = {adapter} if adapter else set(), adapter
        # What a sharded layer makes in inference mode, such as its gathered weights, could not be trained later.
        own._without_gradients = torch.no_grad
        return own

    def move_to(self, device: torch.device) -> None:
        """Brings the weights and all adapters to another device."""
        with self.lock:
            self.model.to(device)
            self.device = device
            self._prefixes = PrefixCache()

    @contextmanager
    def training(
        self, adapter: str | None, dtype: torch.dtype, *, to_shard: bool = False
    ) -> Generator[TrainingNetwork]:
        """Holds the engine while it is trained; all that is asked meanwhile runs the same way.

        Args:
            adapter: what is trained; it is switched on. None where the weights themselves are.
            dtype: what matrix products are computed in.
            to_shard: whether the network's layers will be shared out.
        """
        from tailorbird.models.training_network import TrainingNetwork

        running = TrainingNetwork(self.model, adapter, dtype, to_shard=to_shard).running()
        with self.using(adapter), running as network:
            before, self.network = self.network, network
            try:
                yield network
            finally:
                self.network = before
                self.weights_changed(adapter)

    def fingerprint(self, adapter: str | None = None) -> str:
        """A hash that tells base weights, or an adapter's, apart: every tensor's name, shape and first values."""
        digest, mine = hashlib.blake2b(digest_size=16), f".{adapter}." if adapter else None
        for name, parameter in self.model.named_parameters():
            if (mine in name) if mine else (".lora_" not in name):
                plain = name.replace(mine, ".") if mine else name.replace(".base_layer.", ".")
                first = parameter.detach().flatten()[:64].float().cpu().numpy().tobytes()
                digest.update(f"{plain} {list(parameter.shape)}".encode() + first)
        return digest.hexdigest()

    def prefix(self, ids: tuple[int, ...], adapter: str | None) -> dict[str, torch.Tensor]:
        """Keys and values of a beginning that many prompts share, as `keep_prefix` takes them.

        They are computed anew, in one pass: what was continued from a shorter one may be rounded otherwise.
        """
        with self.using(adapter), self._without_gradients():
            past = prefix_past(self.network, ids, PrefixCache(), adapter, self.device)
            return {key: tensor.cpu() for key, tensor in tensors_of(past).items()}

    def keep_prefix(
        self, ids: tuple[int, ...], tensors: dict[str, torch.Tensor], adapter: str | None
    ) -> None:
        """Spares the computing of a beginning whose keys and values are there."""
        with self.lock:
            self._prefixes.give(adapter, ids, past_of({k: t.to(self.device) for k, t in tensors.items()}))

    def weights_changed(self, adapter: str | None) -> None:
        """Tells the engine that an adapter was trained on, so that nothing computed with it is reused."""
        self._prefixes.forget(adapter)

    # -- answers ------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], adapter: str | None) -> list[Completion]:
        """One completion a request, in order; closed sets are scored, the rest is generated.

        What several requests get depends on nothing that was asked before, to the last bit; a single one goes on from
        whatever it has in common with an earlier one.
        """
        for request in requests:
            check_request(request)
        prompts = [self.template.prompt(r) for r in requests]
        answers: list[Completion | None] = [None] * len(requests)
        groups: dict[tuple[tuple[str, ...] | None, Layout], list[Asked]] = {}
        for index, prompt in enumerate(prompts):
            choices = prompt.request.choices
            if choices is not None and len(choices) == 1:
                answers[index] = only_choice(prompt.request)
                continue
            groups.setdefault((choices, prompt.request.layout), []).append(Asked(index, prompt))
        for (choices, layout), group in groups.items():
            shared = common_prefix([asked.prompt.ids for asked in group]) if len(requests) > 1 else None
            for batch in batches(group):
                started = time.perf_counter()
                completions = (
                    self._score(batch, self._trie(choices, layout), adapter, shared)
                    if choices
                    else self._generate(batch, adapter, shared)
                )
                share = (time.perf_counter() - started) / len(batch)
                for asked, completion in zip(batch, completions, strict=True):
                    answers[asked.index] = replace(completion, seconds=share)
        return [a for a in answers if a is not None]

    def _score(
        self, batch: list[Asked], trie: Trie, adapter: str | None, shared: int | None
    ) -> list[Completion]:
        choices = batch[0].prompt.request.choices
        assert choices is not None
        with self.using(adapter), self._without_gradients():
            ready = self._prefill([asked.prompt for asked in batch], adapter, shared)
            priors = [self._prior(asked.prompt.request, adapter) for asked in batch]
            scores = score_labels(
                self.network, ready.last_BC, ready.past, ready.seen_BP, ready.lengths_B, trie, priors
            )
        p_BL = scores.log_p_BL.double().softmax(dim=-1)
        best_B = scores.log_p_BL.argmax(dim=-1).tolist()
        return [
            if_sure(
                Completion(
                    choices[best],
                    "choice",
                    Usage(len(asked.prompt.ids), num_nodes + 1, ready.shared_tokens),
                    probabilities=dict(zip(choices, p_L.tolist(), strict=True)),
                    asked=asked.prompt.request,
                    dropped=asked.prompt.dropped,
                ),
                asked.prompt.request,
            )
            for asked, best, p_L, num_nodes in zip(batch, best_B, p_BL, scores.num_nodes, strict=True)
        ]

    def _prior(self, request: Request, adapter: str | None) -> Prior | None:
        """What is known of the choices beside what the model makes of the request: with its channel, if it has one."""
        if not request.channel:
            return request.prior
        log_p = channel_log_p(self.network, self.template, request, adapter, self.device)
        return with_channel(request, log_p).prior

    def _build_trie(self, choices: tuple[str, ...], layout: Layout) -> Trie:
        labels = [self.template.answer(choice, layout) for choice in choices]
        return build_trie(labels, self.template.stop_of(layout))

    def _generate(self, batch: list[Asked], adapter: str | None, shared: int | None) -> list[Completion]:
        with self.lock:
            written = Writing([self._row(asked.prompt) for asked in batch], shared)
            for _ in self._write(written, adapter):
                pass
        return [row.completion(written.shared_tokens) for row in written.rows]

    def stream(self, request: Request, adapter: str | None) -> Generator[str, None, Completion]:
        """The pieces of `answer([request])[0].text` as they come; returns the whole completion.

        The engine is free between pieces: whoever reads slowly, stops reading or reads from another
        thread keeps nobody waiting.
        """
        check_request(request)
        prompt = self.template.prompt(request)
        if prompt.request.choices:
            completion = self.answer([request], adapter)[0]
            yield completion.text
            return completion
        row, sent = self._row(prompt), ""
        written, started = Writing([row]), time.perf_counter()
        for _ in self._write(written, adapter):
            settled = row.settled
            if len(settled) > len(sent):
                yield settled[len(sent) :]
                sent = settled
        return replace(row.completion(written.shared_tokens), seconds=time.perf_counter() - started)

    def _row(self, prompt: Prompt) -> Row:
        schema = prompt.request.schema
        return Row(prompt, self.template, self._guides.guide(schema) if schema is not None else None)

    def _prefill(self, prompts: list[Prompt], adapter: str | None, shared: int | None) -> Prefilled:
        ids, pad = [prompt.ids for prompt in prompts], self.template.pad_id
        return prefill(self.network, ids, self._prefixes, adapter, pad, self.device, shared_by_all=shared)

    def _write(self, written: Writing, adapter: str | None) -> Iterator[None]:
        """One token for every unfinished row a step.

        Nothing is held at a yield: neither the engine nor inference mode, which belongs to the thread.
        """
        rows = written.rows
        with self.using(adapter), self._without_gradients():
            ready = self._prefill([row.prompt for row in rows], adapter, written.shared_by_all)
            written.shared_tokens = ready.shared_tokens
            past, seen_BP, positions_B = ready.past, ready.seen_BP, ready.lengths_B
            logits_BV = self.network.logits(ready.last_BC)
        while True:
            for row, logits_V in zip(rows, logits_BV, strict=True):
                if row.finish_reason is None:
                    row.take(logits_V)
            yield
            if all(row.finish_reason for row in rows):
                return
            tokens = [self.template.pad_id if row.finish_reason else row.ids[-1] for row in rows]
            with self.using(adapter), self._without_gradients():
                ids_BT = torch.tensor(tokens, device=self.device).unsqueeze(1)
                seen_BP = torch.cat([seen_BP, seen_BP.new_ones(len(rows), 1)], dim=1)
                hidden_BTC, past = self.network.hidden(
                    ids_BT,
                    past=past,
                    mask_BTS=seen_BP.unsqueeze(1),
                    positions_BT=positions_B.unsqueeze(1),
                    keep_past=True,
                )
                logits_BV = self.network.logits(hidden_BTC[:, 0])
                positions_B = positions_B + 1


def place_to_work() -> tuple[torch.device, torch.dtype]:
    """Where models are held on this machine, and in which type: in bfloat16 on a CUDA device where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    return torch.device("cpu"), torch.float32
