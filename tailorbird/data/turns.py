"""Conversations in rows: lists of messages, as OpenAI and as ShareGPT write them, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from tailorbird.data.problems import RowFault, json_type, quote
from tailorbird.records import Message, Role

_SHAREGPT_ROLES: Mapping[str, Role] = {
    "system": "system", "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bard": "assistant",
}  # fmt: skip
_CHAT = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
_SHAREGPT = '[{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]'


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a row; `weight` is None where the row gives it none."""

    message: Message
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What precedes an answer, the answer, and how much it counts."""

    messages: tuple[Message, ...]
    completion: str
    weight: float = 1.0


def chat_turns(value: Any, name: str = "messages") -> list[Turn]:
    """A list of objects with `role` and `content`, and on assistant messages perhaps a `weight`."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) < 2:
        what = f"'{name}' is {quote(value)}; expected a list of a user's message and the assistant's answer."
        raise RowFault(what, f"Write {_CHAT}.")
    return [chat_turn(turn, f"{name}[{i}]") for i, turn in enumerate(cast("list[Any]", value))]


def chat_turn(turn: Any, name: str) -> Turn:
    """One object with `role` and `content`."""
    if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
        what = f"{name} is {quote(turn)}; expected an object with 'role' and 'content'."
        fix = (
            "Rename 'from' to 'role' and 'value' to 'content'."
            if is_sharegpt_turn(turn)
            else "Give it both keys."
        )
        raise RowFault(what, fix)
    fields = cast("dict[str, Any]", turn)
    role = fields["role"]
    if role not in get_args(Role):
        fixes = {
            "developer": "Rename it to 'system'.",
            "human": "Rename it to 'user'.",
            "gpt": "Rename it to 'assistant'.",
        }
        what = f"{name} has role {quote(role)}; expected 'system', 'user' or 'assistant'."
        raise RowFault(what, fixes.get(str(role), "Leave messages of other roles out."))
    message = Message(role, filled(fields["content"], f"the content of {name}"))
    return Turn(message, _weight(fields.get("weight"), name, role))


def sharegpt_turns(row: Mapping[str, Any]) -> list[Turn]:
    """A list of objects with `from` and `value`; the row's own `system`, if any, comes first."""
    value = row["conversations"]
    if not isinstance(value, list) or len(cast("list[Any]", value)) < 2:
        what = (
            f"'conversations' is {quote(value)}; expected a list of a human's message and the model's answer."
        )
        raise RowFault(what, f"Write {_SHAREGPT}.")
    turns = [_sharegpt_turn(turn, f"conversations[{i}]") for i, turn in enumerate(cast("list[Any]", value))]
    return [*system_turn(row), *turns]


def _sharegpt_turn(turn: Any, name: str) -> Turn:
    if isinstance(turn, dict) and {"role", "content"} <= turn.keys():
        return chat_turn(turn, name)
    if not is_sharegpt_turn(turn):
        what = f"{name} is {quote(turn)}; expected an object with 'from' and 'value'."
        raise RowFault(what, "Give it both keys.")
    fields = cast("dict[str, Any]", turn)
    role = _SHAREGPT_ROLES.get(str(fields["from"]))
    if role is None:
        what = f"{name} is from {quote(fields['from'])}; expected 'human', 'gpt' or 'system'."
        raise RowFault(what, "Leave messages of others out.")
    message = Message(role, filled(fields["value"], f"the value of {name}"))
    return Turn(message, _weight(fields.get("weight"), name, role))


def is_sharegpt_turn(turn: Any) -> bool:
    """Whether it is an object with `from` and `value`."""
    return isinstance(turn, dict) and {"from", "value"} <= turn.keys()


def system_turn(row: Mapping[str, Any]) -> list[Turn]:
    """The row's `system`, if it has any, as a first message."""
    system = row.get("system")
    return [Turn(Message("system", filled(system, "'system'")))] if system not in (None, "") else []


def _weight(value: Any, name: str, role: Role) -> float | None:
    if value is None:
        return None
    if role != "assistant":
        what = f"{name} is the {role}'s and has a weight ({quote(value)}); expected one on answers only."
        raise RowFault(what, "Give a weight to the assistant's messages only.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        what = f"the weight of {name} is {quote(value)}; expected a number from 0 to 1."
        raise RowFault(what, "Write 0 for an answer that is not to be learnt, 1 for one that is.")
    return float(value)


def answers_of(turns: list[Turn]) -> list[Answered]:
    """The answers that are learnt: the last; or where weights are given, all that weigh more than 0."""
    if turns[-1].message.role != "assistant":
        what = (
            f"the last message is the {turns[-1].message.role}'s; expected the assistant's, the completion."
        )
        raise RowFault(what, "Add the answer as the last message, with role 'assistant'.")
    if all(turn.weight is None for turn in turns):
        return [_answer_at(turns, len(turns) - 1)]
    learnt = [i for i, t in enumerate(turns) if t.message.role == "assistant" and t.weight != 0]
    if not learnt:
        what = "every answer has weight 0; expected at least one that is to be learnt."
        raise RowFault(what, "Give one a weight above 0, or delete the row.")
    return [_answer_at(turns, i) for i in learnt]


def _answer_at(turns: list[Turn], index: int) -> Answered:
    before = turns[index - 1].message.role if index else None
    if before != "user":
        what = "the completion is the first message; expected a user's before it."
        if before:
            what = f"the message before the completion is the {before}'s; expected the user's."
        raise RowFault(what, "Let the assistant's answer follow a message of the user.")
    weight = turns[index].weight
    return Answered(
        tuple(turn.message for turn in turns[:index]),
        turns[index].message.content,
        1.0 if weight is None else weight,
    )


def filled(value: Any, name: str) -> str:
    """The value, if it is a text that is not blank."""
    if not isinstance(value, str):
        fix = f'Put it in quotes: "{value}".' if isinstance(value, int | float) else _structure_fix(value)
        raise RowFault(f"{name} is a {json_type(value)} ({quote(value)}); expected a string.", fix)
    if not value.strip():
        raise RowFault(f"{name} is empty; expected some text.", "Fill it in or delete the line.")
    return value


def _structure_fix(value: Any) -> str:
    return (
        "Use chat rows with 'messages'." if isinstance(value, list) else "Give its text, or delete the line."
    )
