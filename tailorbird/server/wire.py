"""Chat completion requests: OpenAI's JSON -> our records. Pure: no HTTP, no model.

No field is dropped silently. A field is honoured (`HONOURED`), has no bearing on the answer and is
accepted and ignored (`IGNORED`), is accepted at the one value that changes nothing (`NEUTRAL`), or is
refused with `unsupported_parameter`. `null` stands for a field that was left out.

A closed set is scored, not drawn: it has one right answer, whatever the sampling.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tailorbird.records import Message, Request, Role, Scope
from tailorbird.server.failures import Refusal
from tailorbird.server.response_format import ClosedSet, Schema, read_response_format
from tailorbird.server.wire_scope import read_scope

if TYPE_CHECKING:
    from tailorbird.workbench import OpenModel

HONOURED = (
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "response_format",
    "logprobs",
    "top_logprobs",
    "tailorbird",
)
IGNORED = (
    "user",
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "parallel_tool_calls",
)
"""Accepted and ignored: they do not bear on the answer."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
}
"""Accepted at these values only, at which they change nothing."""

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
MESSAGE_FIELDS = ("role", "content")
IGNORED_MESSAGE_FIELDS = ("name",)

MOST_MESSAGES = 1000
MOST_TOKENS = 32_768
MOST_STOPS = 4
SEEDS = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion request, read and checked.

    `sampling` holds only the fields of `records.Sampling` that the client gave, so that the model's own
    stand for the rest. `closed_set` and `schema` are what its `response_format` limits the answer to, `only` is what
    part of the knowledge it may be answered from.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Mapping[str, Any]
    closed_set: ClosedSet | None = None
    schema: str | None = None
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    only: Scope | None = None

    def ask(self, opened: OpenModel) -> Request:
        """The request as the model was measured with, what the client gave taking its place.

        Raises:
            Refusal: logprobs of an answer that is no closed set.
        """
        choices = self.closed_set.choices if self.closed_set else None
        request = opened.request(self.messages, choices=choices, schema=self.schema)
        if self.logprobs and request.choices is None:
            raise Refusal(
                f"logprobs: model {opened.id!r} answers freely here, and only closed sets have "
                "probabilities. "
                "Leave logprobs out, or give a response_format whose schema is an enum.",
                param="logprobs",
                code="unsupported_parameter",
            )
        return replace(request, sampling=replace(request.sampling, **self.sampling), only=self.only)


def read_chat(body: Any) -> ChatRequest:
    """Reads the body of POST /v1/chat/completions.

    Raises:
        Refusal: a field is missing, wrong, or cannot be honoured.
    """
    if not isinstance(body, dict):
        raise Refusal(f"body: got {_named(body)}; expected a JSON object with 'model' and 'messages'.")
    fields = {key: value for key, value in body.items() if value is not None or not _is_known(key)}
    _check_support(fields)
    stream = _flag(fields, "stream")
    form = read_response_format(fields.get("response_format"))
    return ChatRequest(
        model=_model(fields),
        messages=_messages(fields),
        sampling=_sampling(fields),
        closed_set=form if isinstance(form, ClosedSet) else None,
        schema=form.text if isinstance(form, Schema) else None,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        logprobs=_logprobs(fields),
        only=read_scope(fields.get("tailorbird")),
    )


def _is_known(key: str) -> bool:
    return key in HONOURED or key in IGNORED or key in NEUTRAL


def _check_support(fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if key in NEUTRAL and value in NEUTRAL[key] and not isinstance(value, bool):
            continue
        if key in NEUTRAL:
            allowed = " or ".join(json.dumps(v) for v in NEUTRAL[key])
            raise _unsupported(key, f"only {allowed} is supported here, got {_shown(value)}. Leave it out.")
        if not _is_known(key):
            taken = ", ".join((*HONOURED, *NEUTRAL))
            raise _unsupported(
                key, f"not supported. Supported: {taken}; accepted and ignored: {', '.join(IGNORED)}."
            )


def _unsupported(param: str, message: str) -> Refusal:
    return Refusal(f"{_shown(param)[1:-1]}: {message}", param=param[:200], code="unsupported_parameter")


def _model(fields: Mapping[str, Any]) -> str:
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        got = _named(model) if "model" in fields else "nothing"
        raise Refusal(
            f"model: got {got}; expected the id of a model. GET /v1/models lists them.", param="model"
        )
    return model


# -- messages ---------------------------------------------------------------------------------


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        got = "an empty list" if messages == [] else _named(messages) if "messages" in fields else "nothing"
        raise Refusal(f"messages: got {got}; expected a list of at least one message.", param="messages")
    if len(messages) > MOST_MESSAGES:
        raise Refusal(f"messages: got {len(messages)}; expected at most {MOST_MESSAGES}.", param="messages")
    read = tuple(_message(message, f"messages[{i}]") for i, message in enumerate(messages))
    if read[-1].role != "user":
        raise Refusal(
            f"messages[{len(read) - 1}].role: the last message is the {read[-1].role}'s; "
            "expected the user's, which is what gets answered.",
            param="messages",
        )
    return read


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise Refusal(
            f"{where}: got {_named(message)}; expected an object with 'role' and 'content'.", param=where
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal(
            f"{where}.role: got {_shown(role)}; expected one of {', '.join(ROLES)}. Tools are not supported.",
            param=f"{where}.role",
        )
    # A client that appends our own answer to the conversation sends its empty fields along, and the
    # record that we added to it.
    for key, value in message.items():
        empty = value is None or value == []
        ours = role == "assistant" and key in {"tailorbird", "annotations"}
        if key not in MESSAGE_FIELDS and key not in IGNORED_MESSAGE_FIELDS and not empty and not ours:
            raise _unsupported(f"{where}.{key}", "not supported. A message has 'role' and 'content'.")
    return Message(ROLES[role], _content(message.get("content"), f"{where}.content"))


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise Refusal(
            f"{where}: got {_named(content)}; expected a string or a list of text parts.", param=where
        )
    return "\n".join(_text_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _text_part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, dict) else part
        raise Refusal(
            f"{where}: got a part of type {_shown(kind)}; expected {{'type': 'text', 'text': '…'}}. "
            "Only text can be read.",
            param=where,
        )
    if rest := set(part) - {"type", "text"}:
        raise _unsupported(f"{where}.{min(rest)}", "not supported. A text part has 'type' and 'text'.")
    return part["text"]


# -- sampling ---------------------------------------------------------------------------------


def _sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields of `records.Sampling`."""
    given: dict[str, Any] = {}
    for key, read in _SAMPLING.items():
        if key in fields:
            name = "max_tokens" if key == "max_completion_tokens" else key
            given[name] = read(key, fields[key])
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        raise Refusal(
            "max_tokens: given together with max_completion_tokens. Give one of them.",
            param="max_completion_tokens",
        )
    return given


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refusal(
                f"{key}: got {_shown(value)}; expected a whole number from {low} to {high}.", param=key
            )
        return value

    return read


def _temperature(key: str, value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 2:
        raise Refusal(f"{key}: got {_shown(value)}; expected a number from 0 to 2.", param=key)
    return float(value)


def _top_p(key: str, value: Any) -> float:
    if not _is_number(value) or not 0 < value <= 1:
        raise Refusal(
            f"{key}: got {_shown(value)}; expected a number above 0 and up to 1. "
            "For the most likely answer set temperature to 0.",
            param=key,
        )
    return float(value)


def _stop(key: str, value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(s, str) and s for s in stops)
    ):
        raise Refusal(f"{key}: got {_shown(value)}; expected a text or up to {MOST_STOPS} texts.", param=key)
    return tuple(stops)


_SAMPLING: Mapping[str, Callable[[str, Any], Any]] = {
    "max_tokens": _whole(1, MOST_TOKENS),
    "max_completion_tokens": _whole(1, MOST_TOKENS),
    "temperature": _temperature,
    "top_p": _top_p,
    "stop": _stop,
    "seed": _whole(*SEEDS),
}


# -- the rest ---------------------------------------------------------------------------------


def _flag(fields: Mapping[str, Any], key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise Refusal(f"{key}: got {_shown(value)}; expected true or false.", param=key)
    return value


def _include_usage(fields: Mapping[str, Any], stream: bool) -> bool:
    if "stream_options" not in fields:
        return False
    options = fields["stream_options"]
    if not stream:
        raise Refusal("stream_options: only allowed with stream: true. Leave it out.", param="stream_options")
    if not isinstance(options, dict):
        raise Refusal(f"stream_options: got {_named(options)}; expected an object.", param="stream_options")
    given = {key: value for key, value in options.items() if value is not None}
    # Obfuscation pads chunks against eavesdroppers; the padding is no part of the answer.
    if rest := set(given) - {"include_usage", "include_obfuscation"}:
        raise _unsupported(f"stream_options.{min(rest)}", "not supported. Supported: include_usage.")
    return _flag(
        {"stream_options.include_usage": given.get("include_usage", False)}, "stream_options.include_usage"
    )


def _logprobs(fields: Mapping[str, Any]) -> bool:
    wanted = _flag(fields, "logprobs")
    if "top_logprobs" in fields:
        _whole(0, 20)("top_logprobs", fields["top_logprobs"])
        if not wanted:
            raise Refusal(
                "top_logprobs: needs logprobs: true. Set it, or leave both out.", param="top_logprobs"
            )
    return wanted


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _named(value: Any) -> str:
    """What kind of JSON value this is."""
    kinds: Sequence[tuple[type, str]] = (
        (bool, "a truth value"),
        (str, "a string"),
        (list, "a list"),
        (dict, "an object"),
    )
    return (
        "null"
        if value is None
        else next((name for kind, name in kinds if isinstance(value, kind)), "a number")
    )


def _shown(value: Any) -> str:
    """A value as JSON, cut short: messages do not repeat a whole body."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…" + text[-1]
