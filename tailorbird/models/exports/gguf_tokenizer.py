"""A byte-level BPE tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tailorbird.errors import Unsupported
from tailorbird.models.chat_template import PLAIN_TEMPLATE

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from tailorbird.models.chat_template import ChatTemplate

_DIGITS = {"type": "Digits", "individual_digits": True}
_WORDS_OF_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS_OF_QWEN_2 = _WORDS_OF_LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")


def write_tokenizer(writer: GGUFWriter, tokenizer: Any, template: ChatTemplate, vocab_size: int) -> None:
    """Writes tokens, merges, special tokens and the chat template.

    `vocab_size` is that of the weights; the tokens between the tokenizer's last and it are marked unused.

    Raises:
        Unsupported: llama.cpp knows no tokenizer that cuts texts as this one does.
    """
    import gguf

    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    pre = pre_tokenizer_name(described)
    model = described["model"]
    tokens = {i: token for token, i in model["vocab"].items()}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    for added in described["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)])
    writer.add_token_types([types.get(i, gguf.TokenType.UNUSED) for i in range(vocab_size)])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    )
    _write_special(writer, tokenizer, template)
    writer.add_chat_template(tokenizer.chat_template or PLAIN_TEMPLATE)


def _write_special(writer: GGUFWriter, tokenizer: Any, template: ChatTemplate) -> None:
    # The chat template writes every control token itself; none may come on top.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    eos = template.stop_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    writer.add_eos_token_id(eos)
    if template.stop_id != eos:
        writer.add_eot_token_id(template.stop_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(template.pad_id)


def pre_tokenizer_name(described: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer cuts a text into words, from the contents of tokenizer.json.

    Raises:
        Unsupported: it has none that is known to be the same.

    >>> whole = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    >>> pre_tokenizer_name({"model": {"type": "BPE"}, "normalizer": None, "pre_tokenizer": whole})
    'gpt-2'
    """
    model, normalizer, pre = described["model"], described["normalizer"], described["pre_tokenizer"]
    steps = pre.get("pretokenizers", [pre]) if pre else []
    ends_in_bytes = bool(steps) and steps[-1]["type"] == "ByteLevel" and not steps[-1]["add_prefix_space"]
    plain = normalizer is None or normalizer["type"] == "NFC"
    if model["type"] == "BPE" and plain and ends_in_bytes and not model.get("byte_fallback"):
        name = _name_of(steps[:-1], by_regex=steps[-1].get("use_regex", True))
        if name and (name == "llama-bpe" or not model.get("ignore_merges")):
            return name
    raise Unsupported(
        f"tokenizer: {model['type']} after pre-tokenizers {[step['type'] for step in steps]} has no counterpart that "
        "is known to be the same in llama.cpp. Byte-level BPE as in GPT-2, SmolLM2, Llama 3, Qwen 2 and Qwen 3 can "
        "be written. Export to safetensors instead."
    )


def _name_of(first: list[dict[str, Any]], *, by_regex: bool) -> str | None:
    if by_regex:
        return "gpt-2" if not first else "smollm" if first == [_DIGITS] else None
    if len(first) == 1 and first[0]["type"] == "Split" and first[0]["behavior"] == "Isolated":
        words = first[0]["pattern"].get("Regex")
        return {_WORDS_OF_LLAMA_3: "llama-bpe", _WORDS_OF_QWEN_2: "qwen2"}.get(words)
    return None
