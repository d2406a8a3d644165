"""Training from scratch: weights of your own, learnt from nothing but your documents and examples.

The architecture is our decoder, or a pre-built one by its transformers name with fresh weights; the
tokenizer is trained on the same texts. Two stages, one loop: first the plain text (next-token loss on
all of it), then the examples as the wrappers show them (loss on completions).
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tailorbird.data.documents import read_folder
from tailorbird.data.task import Data
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.causal import usable_context
from tailorbird.models.engine import Engine, place_to_work
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, retrained
from tailorbird.models.sharded import sharded_network, sharded_weights
from tailorbird.network.sharding import require_others
from tailorbird.records import Document
from tailorbird.techniques.through_wrappers import OnEstimate, OnStep, dev_score, to_sequences

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, the form that most open models use."""

OURS = "tailorbird"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class FromScratch:
    """Replaces the weights beneath the wrappers by new ones.

    Args:
        depth: the one dial: layers; width is 64 times as much.
        architecture: "tailorbird" (our decoder, Llama-shaped) or a model type of transformers, such as
            "gpt2" or "qwen3", which gets the sizes that `depth` stands for.
        vocab_size: tokens of the tokenizer, at most.
        context: tokens that prompt and answer may take together.
        text_epochs: passes over documents and prompts as plain text.
        epochs: passes over the examples.
        learning_rate: peak rate of both stages.
        patience: evaluations on dev without a better score before the second stage stops.
        max_dev: dev examples that early stopping looks at, at most.
        max_batch_tokens: tokens computed at once, at most; fewer take less memory and give the same result.
        seed: of fresh weights and of all orders.
        shard: share the layers out between the processes that train together; what comes of it differs by
            rounding.
        checkpoint: folder for checkpoints; None keeps none.
        on_step: told about every step.
        on_estimate: told what each stage will take before it starts; if it gives False, it is left out.

    Raises:
        RecipeError: an unknown architecture, a setting out of range, or `shard` where this process is alone.
        DataError: no training example.
        OutOfMemory: it would need more memory than there is.
    """

    depth: int = 4
    architecture: str = OURS
    vocab_size: int = 4096
    context: int = 1024
    text_epochs: float = 4.0
    epochs: float = 8.0
    learning_rate: float = 1e-3
    patience: int = 3
    max_dev: int = 64
    max_batch_tokens: int = 16_384
    seed: int = 0
    shard: bool = field(default=False, compare=False)
    checkpoint: Path | None = field(default=None, compare=False)
    on_step: OnStep | None = field(default=None, compare=False, repr=False)
    on_estimate: OnEstimate | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 48:
            raise RecipeError(f"from_scratch: depth is {self.depth}; expected 1 to 48 layers.")
        if self.context < 64:
            raise RecipeError(f"from_scratch: context is {self.context} tokens; expected 64 or more.")

    def apply(self, model: Model, data: Data) -> Model:
        if not data.train:
            raise DataError(
                "from_scratch: there are no training examples. Give prompt/completion lines with --examples."
            )
        return retrained(model, data, lambda _, bare: self._train(bare, data))

    def _train(self, model: Model, data: Data) -> LocalWeights:
        if self.shard:
            require_others()
        texts = plain_texts(data)
        tokenizer = new_tokenizer(texts, self.vocab_size)
        network = self._fresh_network(len(tokenizer), tokenizer)
        with sharded_network(network) if self.shard else nullcontext(network) as running:
            self._learn_text(running, texts, tokenizer)
        weights = self._as_weights(network, tokenizer)
        self._learn_examples(weights, model, data)
        # As they are held when they are saved and loaded, so that what is measured is what is served.
        weights.engine.model.to(place_to_work()[1])
        return weights

    def _fresh_network(self, vocab_size: int, tokenizer: Any) -> Any:
        from tailorbird.models.causal import TransformersNetwork
        from tailorbird.network.decoder import Decoder, shape_for

        shape = shape_for(self.depth, vocab_size, context=self.context)
        if self.architecture == OURS:
            return Decoder(shape, seed=self.seed).to(place_to_work()[0])
        model = prebuilt(self.architecture, shape, tokenizer, self.seed)
        usable_context(model)  # refuses, before any training, what could not be run exactly
        return TransformersNetwork(model.to(place_to_work()[0]))

    def _learn_text(self, network: Any, texts: list[str], tokenizer: Any) -> None:
        """Stage one: every document and prompt, each closed by the end-of-text token, as one long text."""
        from tailorbird.network.sequences import blocks
        from tailorbird.network.settings import TrainSettings
        from tailorbird.techniques.measured_training import Watch, train_measured

        end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        backend = tokenizer.backend_tokenizer
        ids = [i for e in backend.encode_batch(texts, add_special_tokens=False) for i in (*e.ids, end)]
        settings = TrainSettings(
            learning_rate=self.learning_rate,
            epochs=self.text_epochs,
            batch_size=16,
            max_batch_tokens=self.max_batch_tokens,
            weight_decay=0.1,
            warmup_fraction=0.05,
            seed=self.seed,
            checkpoint_every_s=20.0,
        )
        train_measured(
            Watch("from_scratch, text", on_estimate=self.on_estimate, dial=("depth", self.depth, 3)),
            network,
            dict((network if self.architecture == OURS else network.model).named_parameters()),
            blocks(ids, min(256, self.context)),
            settings,
            checkpoint=self.checkpoint / "text" if self.checkpoint else None,
            identity=f"{self.architecture} {self.depth}",
            on_step=self.on_step,
        )

    def _learn_examples(self, weights: LocalWeights, model: Model, data: Data) -> None:
        """Stage two: the examples, as the wrappers show them; the best weights on dev are kept."""
        from tailorbird.network.settings import TrainSettings
        from tailorbird.techniques.measured_training import Watch, dev_seconds, train_measured

        dev = data.dev[: self.max_dev]
        for parameter in weights.engine.model.parameters():
            parameter.requires_grad_(True)
        settings = TrainSettings(
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            batch_size=16,
            max_batch_tokens=self.max_batch_tokens,
            weight_decay=0.1,
            patience=self.patience,
            seed=self.seed,
            checkpoint_every_s=20.0,
        )
        sequences, identity = to_sequences(weights, model, data, data.train), weights.engine.fingerprint()
        with (
            weights.engine.lock,
            sharded_weights(weights) if self.shard else nullcontext(weights) as trained,
        ):
            train_measured(
                Watch(
                    "from_scratch, examples",
                    on_estimate=self.on_estimate,
                    dev_seconds=(lambda: dev_seconds(trained, model, data, dev)) if dev else None,
                    dial=("depth", self.depth, 3),
                ),
                trained.engine.network,
                dict(trained.engine.model.named_parameters()),
                sequences,
                settings,
                dev_score=(lambda: dev_score(trained, model, data, dev)) if dev else None,
                checkpoint=self.checkpoint / "examples" if self.checkpoint else None,
                identity=identity,
                on_step=self.on_step,
            )
            weights.engine.weights_changed(None)

    def _as_weights(self, network: Any, tokenizer: Any) -> LocalWeights:
        """The network as a transformers model, which is what answers and what is saved."""
        name = f"from_scratch{next(_numbers)}"
        if self.architecture != OURS:
            return LocalWeights(name, Engine(network.model, tokenizer, self.context))
        from transformers import AutoModelForCausalLM

        from tailorbird.network.llama_folder import save_llama

        with tempfile.TemporaryDirectory() as folder:
            ids = {
                "bos_id": tokenizer.bos_token_id,
                "eos_id": tokenizer.eos_token_id,
                "pad_id": tokenizer.pad_token_id,
            }
            save_llama(network, Path(folder), **ids)
            model = quietly(lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        return LocalWeights(name, Engine(model.to(place_to_work()[0]), tokenizer, self.context))


def plain_texts(data: Data) -> list[str]:
    """All that may be read: the documents, and the training prompts with their completions."""
    documents: list[str] = []
    if data.documents is not None:
        documents = [d.text for d in read_folder(data.documents) if isinstance(d, Document)]
    return [*documents, *(f"{e.prompt}\n{e.completion}" for e in data.train)]


def new_tokenizer(texts: list[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer trained on the texts, in transformers' form, with a ChatML template."""
    from transformers import PreTrainedTokenizerFast

    from tailorbird.network.tokenizer import train_tokenizer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(texts, vocab_size),
        bos_token="<|im_start|>",  # noqa: S106 - tokens of text, not of access
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def prebuilt(architecture: str, shape: Any, tokenizer: Any, seed: int) -> Any:
    """A transformers model of this type and of these sizes, with fresh weights.

    Raises:
        RecipeError: transformers has no such causal language model, or cannot build it in these sizes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    try:
        known = AutoConfig.for_model(architecture)
        names = {**getattr(known, "attribute_map", {})}
        config = AutoConfig.for_model(
            architecture, **{names.get(key, key): value for key, value in sizes.items()}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return quietly(lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32)).eval()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).split("\n", 1)[0][:200]  # transformers goes on to list all that it knows
        raise RecipeError(
            f"from_scratch: transformers cannot build architecture {architecture!r} ({reason}). "
            "Expected 'tailorbird' or a causal model type such as llama, qwen3, gpt2, gemma3_text, olmo2, "
            "smollm3 or mistral."
        ) from error


def quietly(load: Callable[[], Any]) -> Any:
    """Runs a transformers loader without its progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    return load()
