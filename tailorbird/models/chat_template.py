"""One chat template: the function that turns a Request into tokens, for training and serving alike.

The tokenizer's own Jinja template is rendered once per sequence of roles, with a placeholder where
each content stands. Text around the placeholders is the template's and may hold control tokens;
text put into them is a user's or a document's and is encoded as plain text, so that a
`<|im_start|>` inside a passage never becomes a control token.

In the plain layout no control token stands at all: `Input: …`, `Output: …`, a blank line. Weights that were
never taught to chat often continue that better. Every text follows a blank there, as words do in running text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from tailorbird.errors import ContextTooLong, InputError, RequestError
from tailorbird.records import Layout, Message, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n"
    "{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""For tokenizers that bring no chat template (base models)."""

PLAIN_TURNS = {"system": ("", "\n\n"), "user": ("Input:", "\n"), "assistant": ("Output:", "\n\n")}
"""What stands before and after each role's text in the plain layout; after the blank that begins the text."""
PLAIN_STOPS = ("\n", "\n\n")
"""What ends an answer there."""

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
        plain_end = PLAIN_TURNS["assistant"][1] + PLAIN_TURNS["user"][0]
        self._plain_stop_id = self.text(plain_end)[0]
        self.pad_id = next(i for i in (tokenizer.pad_token_id, eos, 0) if i is not None)

    def prompt(self, request: Request) -> Prompt:
        """The tokens up to where the answer begins.

        What there is no room for is left out and named: evidence from the least useful (last) end but for the
        best passage, then examples from the first on, then that passage.

        Raises:
            ContextTooLong: the messages alone do not fit.
        """
        room = self.context - min(request.sampling.max_tokens, self.context // 2)
        reason = "context full"
        if request.prompt_tokens is not None and request.prompt_tokens < room:
            room, reason = request.prompt_tokens, f"budget of {request.prompt_tokens} tokens full"
        kept, dropped = request, list[str]()
        while len(ids := self._encode_turns(self.messages(kept), kept.layout)) > room:
            fewer = with_less(kept)
            if fewer is None:
                raise too_long(request, len(ids), room, self.context)
            kept, left_out = fewer
            dropped.append(f"{left_out}: {reason}")
        return Prompt(tuple(ids), kept, tuple(reversed(dropped)))

    def messages(self, request: Request) -> tuple[Message, ...]:
        """The conversation as the template takes it: all put in, the system text where it has its place."""
        turns = turns_of(request)
        return turns if request.layout == "plain" else self._roles_as_known(turns)

    def text_of(self, messages: Sequence[Message]) -> str:
        """The conversation as a text, control tokens and all, up to where the answer begins.

        Raises:
            InputError: the template refuses these roles.
        """
        roles = tuple(m.role for m in messages)
        parts = _PLACEHOLDER.split(self._layout(roles))
        return "".join(messages[int(part)].content if i % 2 else part for i, part in enumerate(parts))

    def completion(self, text: str, layout: Layout = "chat") -> tuple[int, ...]:
        """The answer's tokens as trained: the text, then the stop token."""
        return (*self.answer(text, layout), self.stop_of(layout))

    def answer(self, text: str, layout: Layout = "chat") -> tuple[int, ...]:
        """An answer's tokens as they follow a prompt."""
        return self.text(f" {text}" if layout == "plain" else text)

    def read_answer(self, ids: Sequence[int], layout: Layout = "chat") -> str:
        """The text of an answer's tokens."""
        text = self.decode(ids)
        return text.removeprefix(" ") if layout == "plain" else text

    def stop_of(self, layout: Layout) -> int:
        """The token that ends a trained answer."""
        return self.stop_id if layout == "chat" else self._plain_stop_id

    def stops_of(self, layout: Layout) -> frozenset[int]:
        """The tokens at which an answer ends."""
        return self.stop_ids if layout == "chat" else self._plain_stops

    @cached_property
    def _plain_stops(self) -> frozenset[int]:
        ends = (self.text(end) for end in PLAIN_STOPS)
        return self.stop_ids | {self._plain_stop_id} | {ids[0] for ids in ends if len(ids) == 1}

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

    def _encode_turns(self, messages: tuple[Message, ...], layout: Layout) -> list[int]:
        ids: list[int] = []
        if layout == "plain":
            for piece in plain_pieces(messages):
                ids.extend(self.text(piece))
            return ids
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


def turns_of(request: Request) -> tuple[Message, ...]:
    """The messages with the examples, and the numbered evidence, in front of the last user message."""
    turns = request.conversation
    if not request.evidence:
        return turns
    last = max((i for i, m in enumerate(turns) if m.role == "user"), default=None)
    if last is None or not any(m.role == "user" for m in request.messages):
        raise RequestError(
            "request: it has evidence but no user message to put it before. Add a user message."
        )
    blocks = [f"[{n}] {_caption(p.title, p.headings)}{p.text}" for n, p in enumerate(request.evidence, 1)]
    content = "\n\n".join([*blocks, f"Question: {turns[last].content}"])
    return (*turns[:last], Message("user", content), *turns[last + 1 :])


def plain_pieces(messages: Sequence[Message]) -> list[str]:
    r"""The plain layout's texts, the fixed ones and the messages' in turn: each is made tokens by itself.

    >>> "".join(plain_pieces([Message("system", "Sort."), Message("user", "hi"), Message("assistant", "ok")]))
    'Sort.\n\nInput: hi\nOutput: ok\n\nOutput:'
    """
    pieces, fixed = list[str](), ""
    for message in messages:
        before, after = PLAIN_TURNS[message.role]
        pieces += [fixed + before, f" {message.content}" if before else message.content]
        fixed = after
    return [piece for piece in (*pieces, fixed + PLAIN_TURNS["assistant"][0]) if piece]


def with_less(request: Request) -> tuple[Request, str] | None:
    """The request without what can best be spared, and what that is; None where nothing can."""
    evidence, examples = request.evidence, request.examples
    if len(evidence) > 1 or (evidence and not examples):
        return replace(request, evidence=evidence[:-1]), f"evidence {evidence[-1].id}"
    if examples:
        return replace(request, examples=examples[1:]), f"example {examples[0].id}"
    return None


def too_long(request: Request, num_tokens: int, room: int, context: int) -> ContextTooLong:
    """The error of a request of which nothing can be spared."""
    answer = request.sampling.max_tokens
    if request.prompt_tokens == room:
        return ContextTooLong(
            f"request: {num_tokens} tokens of messages, but its prompt may have {room}. Shorten the messages or the "
            "instruction, or raise prompt_tokens."
        )
    return ContextTooLong(
        f"request: {num_tokens} tokens of messages, but the model has room for {room} beside its answer "
        f"(context {context}, answer {answer}). Shorten the messages."
    )


def _caption(title: str, headings: Sequence[str]) -> str:
    """Where the passage stands: a passage cut under a heading is often unintelligible without it."""
    path = list(dict.fromkeys(part for part in (title, *headings) if part))
    return " > ".join(path) + "\n" if path else ""
