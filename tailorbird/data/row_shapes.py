"""What a row looks like: prompt and completion, a chat, Alpaca, ShareGPT, a preference; told by its keys.

    {"prompt": "…", "completion": "…"}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…", "weight": 1}]}
    {"instruction": "…", "input": "…", "output": "…", "system": "…", "history": [["…", "…"]]}
    {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}
    {"prompt": "…", "chosen": "…", "rejected": "…"}          the prompt may also stand in both answers
    {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}

Prompts, completions and preferred answers may be lists of messages as well.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, cast

from tailorbird.data.columns import COMPLETION_NAMES, PROMPT_NAMES
from tailorbird.data.problems import RowFault, json_type, quote
from tailorbird.data.turns import (
    Answered,
    Turn,
    answers_of,
    chat_turn,
    chat_turns,
    filled,
    sharegpt_turns,
    system_turn,
)
from tailorbird.records import Example, Message, Role


@dataclass(frozen=True, slots=True)
class _Shape:
    """A kind of row: the keys it is told by, all the keys that it uses, and how it is read."""

    needs: frozenset[str]
    keys: frozenset[str]
    read: Callable[[Mapping[str, Any]], list[tuple[Answered, str | None]]]


def examples_of(row: Mapping[str, Any], file: str, line: int) -> list[Example]:
    """The examples of one row: one, or as many as it has answers that carry a weight.

    Raises:
        RowFault: The row is no example.
    """
    facts = _facts(row)
    try:
        return [
            Example(
                a.messages, a.completion, file=file, line=line, weight=a.weight, rejected=rejected, **facts
            )
            for a, rejected in _shape(row).read(row)
        ]
    except UnicodeEncodeError:
        what = "the text holds half of a surrogate pair (such as \\ud83d), which is no character."
        raise RowFault(what, "Write the whole character, or the file with ensure_ascii=False.") from None


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of any shape may say of its example: where the answer stands, and whether it was written."""
    document, span, synthetic = (row.get(key) for key in ("document", "span", "synthetic"))
    if document is not None and not isinstance(document, str):
        what = f"'document' is a {json_type(document)} ({quote(document)}); expected a string or null."
        raise RowFault(what, "Name the file inside your documents folder, such as 'returns.md'.")
    if span is not None and not _is_span(span):
        what = (
            f"'span' is {quote(span)}; expected the answer's start and end in its document's text, or null."
        )
        raise RowFault(what, "Write two numbers of characters, such as [120, 131], or leave it out.")
    if synthetic is not None and not isinstance(synthetic, bool):
        what = f"'synthetic' is {quote(synthetic)}; expected true or false."
        raise RowFault(what, "Write true where a program wrote the question, or leave it out.")
    return {"document": document or None, "span": tuple(span) if span else None, "synthetic": bool(synthetic)}


def _is_span(value: Any) -> bool:
    numbers = cast("list[Any]", value) if isinstance(value, list) else []
    return len(numbers) == 2 and all(type(n) is int for n in numbers) and 0 <= numbers[0] < numbers[1]


def is_known_shape(keys: Sequence[str]) -> bool:
    """Whether rows with these keys can be read as they are."""
    row = dict.fromkeys(keys)
    return _shape(row) is not _PAIR or {"prompt", "completion"} <= row.keys()


def unused_keys(row: Mapping[str, Any]) -> set[str]:
    """The row's keys that its shape does not look at."""
    return set(row) - _shape(row).keys - _FACTS


def _shape(row: Mapping[str, Any]) -> _Shape:
    """A row with messages is a chat, one with prompt and completion a pair, whatever else they hold."""
    return next((shape for shape in _SHAPES if shape.needs <= row.keys()), _PAIR)


def to_row(example: Example) -> dict[str, Any]:
    """The JSON object that `examples_of` reads back as the same example, and as no other."""
    alone = len(example.messages) == 1 and example.messages[0].role == "user"
    before = [{"role": m.role, "content": m.content} for m in example.messages]
    answer: dict[str, Any] = {"role": "assistant", "content": example.completion}
    if example.weight != 1:
        before = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in before]
        answer["weight"] = example.weight
    if example.rejected is not None:
        better = example.completion if example.weight == 1 else [answer]
        prompt = example.prompt if alone else before
        row: dict[str, Any] = {"prompt": prompt, "chosen": better, "rejected": example.rejected}
    elif alone and example.weight == 1:
        row = {"prompt": example.prompt, "completion": example.completion}
    else:
        row = {"messages": [*before, answer]}
    if example.document is not None:
        row["document"] = example.document
    if example.span is not None:
        row["span"] = list(example.span)
    return {**row, "synthetic": True} if example.synthetic else row


# --- one answer


def _read_pair(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    if "prompt" not in row or "completion" not in row:
        raise _missing(row)
    if _is_turns(row["prompt"]) or _is_turns(row["completion"]):
        return [(_joined(row["prompt"], row["completion"], "completion"), None)]
    prompt, completion = (filled(row[key], f"'{key}'") for key in ("prompt", "completion"))
    return [(Answered((Message("user", prompt),), completion), None)]


def _read_chat(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    if "prompt" in row or "completion" in row:
        raise RowFault("got both 'messages' and 'prompt' or 'completion'; expected one.", "Keep one form.")
    return [(answered, None) for answered in answers_of(chat_turns(row["messages"]))]


def _read_sharegpt(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    return [(answered, None) for answered in answers_of(sharegpt_turns(row))]


def _read_alpaca(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    prompt = filled(row["instruction"], "'instruction'")
    if row.get("input") not in (None, ""):
        prompt += "\n\n" + filled(row["input"], "'input'")
    messages = [turn.message for turn in system_turn(row)] + _history(row.get("history"))
    completion = filled(row["output"], "'output'")
    return [(Answered((*messages, Message("user", prompt)), completion), None)]


def _history(value: Any) -> list[Message]:
    messages: list[Message] = []
    for i, pair in enumerate(value if isinstance(value, list) else [value] if value else []):
        if not isinstance(pair, list) or len(cast("list[Any]", pair)) != 2:
            what = f"'history' is {quote(value)}; expected a list of pairs of a question and its answer."
            raise RowFault(what, 'Write [["…", "…"]], or leave it out.')
        asked, answered = cast("list[Any]", pair)
        messages.append(Message("user", filled(asked, f"the question of history[{i}]")))
        messages.append(Message("assistant", filled(answered, f"the answer of history[{i}]")))
    return messages


# --- preferences


def _read_preference(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if prompt is None:
        prompt, chosen, rejected = _implicit_prompt(chosen, rejected)
    better = _joined(prompt, chosen, "chosen")
    return [_preferred(better, _joined(prompt, rejected, "rejected"))]


def _read_openai_preference(row: Mapping[str, Any]) -> list[tuple[Answered, str | None]]:
    asked = cast("Any", row.get("input"))
    messages = cast("dict[str, Any]", asked).get("messages") if isinstance(asked, dict) else None
    if not _is_turns(messages):
        what = f"'input' is {quote(asked)}; expected an object with the messages before the answer."
        raise RowFault(what, 'Write {"messages": [{"role": "user", "content": "…"}]}.')
    names = ("preferred_output", "non_preferred_output")
    better, worse = (_joined(messages, row.get(name), name) for name in names)
    return [_preferred(better, worse)]


def _preferred(better: Answered, worse: Answered) -> tuple[Answered, str]:
    if better.messages != worse.messages:
        what = "the preferred and the rejected answer follow different messages; expected the same."
        raise RowFault(what, "Let only the last message, the answer, differ.")
    if better.completion == worse.completion:
        what = f"the preferred and the rejected answer are the same ({quote(better.completion)})."
        raise RowFault(what, "Delete the row, or give two answers that differ.")
    return better, worse.completion


def _joined(prompt: Any, answer: Any, name: str) -> Answered:
    """A prompt and its answer, each a text or a list of messages; the answer is the last message."""
    *before, last = _as_turns(prompt, "prompt", "user") + _as_turns(answer, name, "assistant")
    earlier = [replace(t, weight=0.0 if t.message.role == "assistant" else None) for t in before]
    return answers_of([*earlier, last])[0]


def _as_turns(value: Any, name: str, role: Role) -> list[Turn]:
    if _is_turns(value):
        return [chat_turn(turn, f"{name}[{i}]") for i, turn in enumerate(value)]
    return [Turn(Message(role, filled(value, f"'{name}'")))]


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _implicit_prompt(chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """What both answers begin with: whole messages, or whole words."""
    both = _is_turns(chosen) and _is_turns(rejected)
    if not (both or (isinstance(chosen, str) and isinstance(rejected, str))):
        what = (
            "'prompt' is missing, and 'chosen' and 'rejected' are not both texts or both lists of messages."
        )
        raise RowFault(what, "Add 'prompt'.")
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    same = min(same, len(chosen) - 1, len(rejected) - 1) if both else chosen[:same].rfind(" ") + 1
    if not same:
        what = "'prompt' is missing, and 'chosen' and 'rejected' do not begin with the same one."
        raise RowFault(what, "Add 'prompt'.")
    prompt = chosen[:same] if both else chosen[:same].rstrip()
    return prompt, chosen[same:], rejected[same:]


# --- what is missing


def _missing(row: Mapping[str, Any]) -> RowFault:
    absent = [key for key in ("prompt", "completion") if key not in row]
    names = " and ".join(f"'{key}'" for key in absent)
    what = f"{names} {'is' if len(absent) == 1 else 'are'} missing. Got keys {quote(list(row), 120)}; "
    return RowFault(what + "expected 'prompt' and 'completion'.", _rename_fix(row, absent))


def _rename_fix(row: Mapping[str, Any], absent: list[str]) -> str:
    renames: list[str] = []
    free = [key for key in row if key not in {"prompt", "completion", "document"}]
    for key in absent:
        guess = _guess(key, free)
        if guess is not None:
            free.remove(guess)
            renames.append(f"rename {quote(guess)} to '{key}'")
    if len(renames) < len(absent):
        return "Give each line both keys, or 'messages' for a chat."
    sentence = " and ".join(renames) + "."
    return sentence[0].upper() + sentence[1:]


def _guess(key: str, free: list[str]) -> str | None:
    """The key that most likely was meant: a known other name, else a slip of the pen, else none."""
    lower = {name.lower().strip(): name for name in reversed(free)}
    known = (key, *(PROMPT_NAMES if key == "prompt" else COMPLETION_NAMES))
    for name in known:
        if name in lower:
            return lower[name]
    close = difflib.get_close_matches(key, lower, n=1, cutoff=0.75)
    return lower[close[0]] if close else None


def _told_by(needs: set[str], read: Callable[..., list[tuple[Answered, str | None]]], *more: str) -> _Shape:
    return _Shape(frozenset(needs), frozenset({*needs, *more}), read)


_PAIR = _told_by({"prompt", "completion"}, _read_pair)
_FACTS = frozenset({"document", "span", "synthetic"})
_OPENAI_KEYS = ("input", "preferred_output", "non_preferred_output")
_SHAPES = (
    _told_by({"messages"}, _read_chat),
    _PAIR,
    _told_by({"conversations"}, _read_sharegpt, "system"),
    _told_by({"preferred_output"}, _read_openai_preference, *_OPENAI_KEYS),
    _told_by({"non_preferred_output"}, _read_openai_preference, *_OPENAI_KEYS),
    _told_by({"chosen", "rejected"}, _read_preference, "prompt"),
    _told_by({"instruction", "output"}, _read_alpaca, "input", "system", "history"),
)
