"""One chat template: the function that turns a Request into tokens, for training and serving alike.

The tokenizer's own Jinja template is rendered once per sequence of roles, with a placeholder where
each content stands. Text around the placeholders is the template's and may hold control tokens;
text put into them is a user's or a document's and is encoded as plain text, so that a
`<|im_start|>` inside a passage never becomes a control token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tailorbird.errors import ContextTooLong, InputError, RequestError
from tailorbird.records import Message, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n"
    "{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""For tokenizers that bring no chat template (base models)."""

_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Prompt:
    """A request as tokens. `request` is what is left after trimming, `dropped` what was trimmed."""

    ids: tuple[int, ...]
    request: Request
    dropped: tuple[str, ...] = ()


class ChatTemplate:
    """Turns requests and completions into token ids.

    Args:
        tokenizer: a fast transformers tokenizer.
        context: the most tokens that a prompt and its answer may take together.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise InputError(
                f"tokenizer {type(tokenizer).__name__} has no fast backend. "
                "Tailorbird needs a tokenizer.json next to the weights; convert the tokenizer with "
                "transformers."
            )
        from tokenizers import Tokenizer

        self.tokenizer, self.context = tokenizer, context
        self._control = tokenizer.backend_tokenizer
        self._plain = Tokenizer.from_str(self._control.to_str())
        self._plain.encode_special_tokens = True
        self._segments = lru_cache(maxsize=256)(self._render)
        self.stop_id = self._find_stop()
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset(i for i in (self.stop_id, eos) if i is not None)
        self.pad_id = next(i for i in (tokenizer.pad_token_id, eos, 0) if i is not None)

    def prompt(self, request: Request) -> Prompt:
        """The tokens up to where the answer begins.

        Evidence that does not fit is dropped from the least useful (last) end and named.

        Raises:
            ContextTooLong: the messages alone do not fit.
        """
        room = self.context - min(request.sampling.max_tokens, self.context // 2)
        evidence, dropped = list(request.evidence), []
        while True:
            kept = request.with_evidence(tuple(evidence))
            ids = self._encode_turns(self.messages(kept))
            if len(ids) <= room:
                return Prompt(tuple(ids), kept, tuple(reversed(dropped)))
            if not evidence:
                raise ContextTooLong(
                    f"request: {len(ids)} tokens of messages, but the model has room for {room} beside its "
                    "answer "
                    f"(context {self.context}, answer {request.sampling.max_tokens}). Shorten the messages."
                )
            dropped.append(f"evidence {evidence.pop().id}: context full")

    def messages(self, request: Request) -> tuple[Message, ...]:
        """The conversation as the template takes it: evidence put in, the system text where it has its place."""
        return self._roles_as_known(with_evidence(request))

    def text_of(self, messages: Sequence[Message]) -> str:
        """The conversation as a text, control tokens and all, up to where the answer begins.

        Raises:
            InputError: the template refuses these roles.
        """
        roles = tuple(m.role for m in messages)
        parts = _PLACEHOLDER.split(self._layout(roles))
        return "".join(messages[int(part)].content if i % 2 else part for i, part in enumerate(parts))

    def completion(self, text: str) -> tuple[int, ...]:
        """The answer's tokens as trained: the text, then the stop token."""
        return (*self.text(text), self.stop_id)

    def text(self, text: str) -> tuple[int, ...]:
        """Plain text as tokens; control tokens in it stay text."""
        # Lone surrogates, from broken JSON escapes, have no UTF-8; the tokenizer takes none.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens back to text, control tokens left out."""
        return self._control.decode(list(ids), skip_special_tokens=True)

    def token_text(self, token_id: int) -> str:
        """One token as it would be read; control tokens by their names."""
        return self._control.decode([token_id], skip_special_tokens=False)

    def _encode_turns(self, messages: tuple[Message, ...]) -> list[int]:
        ids: list[int] = []
        for segment in self._segments(tuple(m.role for m in messages)):
            if isinstance(segment, int):
                ids.extend(self.text(messages[segment].content))
            else:
                ids.extend(segment)
        return ids

    def _roles_as_known(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Templates without a system role get the system text in front of the first user message."""
        if not messages or messages[0].role != "system" or self._knows_system:
            return messages
        system, rest = messages[0], messages[1:]
        if not rest:
            return (Message("user", system.content),)
        return (replace(rest[0], content=f"{system.content}\n\n{rest[0].content}"), *rest[1:])

    @property
    def _knows_system(self) -> bool:
        try:
            return 0 in self._segments(("system", "user"))
        except InputError:
            return False

    def _render(
        self, roles: tuple[str, ...], answer_follows: bool = True
    ) -> tuple[int | tuple[int, ...], ...]:
        """The template for these roles: token ids, and the index of the content that goes between."""
        parts = _PLACEHOLDER.split(self._layout(roles, answer_follows))
        return tuple(
            int(part) if i % 2 else tuple(self._control.encode(part, add_special_tokens=False).ids)
            for i, part in enumerate(parts)
        )

    def _layout(self, roles: tuple[str, ...], answer_follows: bool = True) -> str:
        """The template's text for these roles, with a placeholder where each content stands."""
        turns = [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)]
        template = None if self.tokenizer.chat_template else PLAIN_TEMPLATE
        try:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answer_follows, chat_template=template
            )
        except Exception as error:
            raise InputError(
                f"chat template: it refuses the roles {list(roles)} ({error}). "
                "Alternate user and assistant messages and end with a user message."
            ) from error

    def _find_stop(self) -> int:
        """The first control token that the template puts after an assistant's words."""
        after = self._render(("user", "assistant"), answer_follows=False)[-1]
        ids = after if isinstance(after, tuple) else ()
        special = set(self.tokenizer.all_special_ids)
        eos = self.tokenizer.eos_token_id
        found = next((i for i in ids if i in special), eos)
        if found is None:
            raise InputError(
                "tokenizer: neither its chat template nor its settings name a stop token, so the model "
                "could never learn to stop. Set eos_token in tokenizer_config.json."
            )
        return found


def with_evidence(request: Request) -> tuple[Message, ...]:
    """The messages with the numbered evidence in front of the last user message."""
    if not request.evidence:
        return request.messages
    last = max((i for i, m in enumerate(request.messages) if m.role == "user"), default=None)
    if last is None:
        raise RequestError(
            "request: it has evidence but no user message to put it before. Add a user message."
        )
    blocks = [f"[{n}] {_caption(p.title, p.headings)}{p.text}" for n, p in enumerate(request.evidence, 1)]
    content = "\n\n".join([*blocks, f"Question: {request.messages[last].content}"])
    return (*request.messages[:last], Message("user", content), *request.messages[last + 1 :])


def _caption(title: str, headings: Sequence[str]) -> str:
    """Where the passage stands: a passage cut under a heading is often unintelligible without it."""
    path = list(dict.fromkeys(part for part in (title, *headings) if part))
    return " > ".join(path) + "\n" if path else ""
