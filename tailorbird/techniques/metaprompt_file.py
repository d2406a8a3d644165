"""metaprompt.toml <-> Metaprompt: readable, and safe to edit by hand.

What is `measured` and what the metaprompt is `made_of` is written for people, and made anew with what is fitted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any, get_args

import tomli_w

from tailorbird.errors import RecipeError
from tailorbird.records import LAYOUTS, Example, Message, Role, content_hash
from tailorbird.techniques.calibration import KINDS, NOT_CALIBRATED, read_calibration
from tailorbird.techniques.selection import LIKENESSES, ORDERS, SELECTS

MOST_EXAMPLES = 16
HEAD = """\
# A metaprompt: what is put before every request. `tailor metaprompt edit` makes a new version of it, measured again,
# and keeps this one. version, parent, pool, abstain_below, calibration, measured and made_of are made anew then.
"""
PLAIN_KEYS = (
    "version", "k", "select", "core", "likeness", "order", "layout", "instruction", "shortlist", "prompt_tokens",
    "abstain_below", "calibrate", "precision",
)  # fmt: skip
TABLES = ("descriptions", "calibration", "measured", "made_of", "examples")


def to_text(made: Mapping[str, Any]) -> str:
    """The file's text, of a metaprompt's fields. What is None stands nowhere."""
    values = {key: made[key] for key in PLAIN_KEYS}
    rows: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if made["versions"]:
        rows["parent"] = len(made["versions"])
    rows["pool"] = {"examples": len(made["pool"]), "hash": content_hash([e.id for e in made["pool"]])}
    tables = {
        "descriptions": dict(made["descriptions"]),
        "calibration": made["calibration"].to_json(),
        "measured": dict(made["measured"]),
        "made_of": dict(made["made_of"]),
        "examples": [_row(example) for example in made["shown"]],
    }
    rows |= {key: table for key, table in tables.items() if table}
    return HEAD + tomli_w.dumps(rows, multiline_strings=True)


def read_fields(text: str, where: str) -> dict[str, Any]:
    """The fields of the metaprompt that a file's text says; its pool is not among them.

    Raises:
        RecipeError: not TOML, an unknown key, or a value that it can't have.
    """
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML ({error}). Correct the line it names.") from error
    known = (*PLAIN_KEYS, "parent", "pool", *TABLES)
    if unknown := sorted(set(rows) - set(known)):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r}. Known: {', '.join(known)}.")
    for key, allowed in (
        ("select", SELECTS),
        ("likeness", LIKENESSES),
        ("order", ORDERS),
        ("layout", LAYOUTS),
        ("calibrate", ("auto", *KINDS)),
    ):
        if rows.get(key, allowed[0]) not in allowed:
            raise RecipeError(f"{where}: {key} is {rows[key]!r}; expected one of {', '.join(allowed)}.")
    _check_number(where, rows, "k", (0, MOST_EXAMPLES))
    _check_number(where, rows, "core", (0, MOST_EXAMPLES))
    _check_number(where, rows, "version", (1, None))
    _check_number(where, rows, "shortlist", (2, None))
    _check_number(where, rows, "prompt_tokens", (1, None))
    below = rows.get("abstain_below", 0.0)
    if not isinstance(below, int | float) or not 0 <= below < 1:
        raise RecipeError(f"{where}: abstain_below is {below!r}; expected a number from 0 to below 1.")
    if not isinstance(rows.get("instruction", ""), str):
        raise RecipeError(f"{where}: instruction is {rows['instruction']!r}; expected a text.")
    values: dict[str, Any] = {
        "k": 0,
        "select": "fixed",
        **{key: rows[key] for key in PLAIN_KEYS if key in rows},
    }
    values["abstain_below"] = float(below)
    shown = tuple(_example(where, n, row) for n, row in enumerate(rows.get("examples", []), 1))
    return {
        **values,
        "descriptions": _descriptions(where, rows.get("descriptions", {})),
        "calibration": _calibration(where, rows.get("calibration")),
        "measured": rows.get("measured", {}),
        "made_of": rows.get("made_of", {}),
        "shown": shown,
    }


def _check_number(where: str, rows: Mapping[str, Any], key: str, bounds: tuple[int, int | None]) -> None:
    value, (low, high) = rows.get(key), bounds
    if value is None:
        return
    if type(value) is not int or value < low or (high is not None and value > high):
        expected = (
            f"a whole number from {low} to {high}" if high is not None else f"a whole number from {low}"
        )
        raise RecipeError(f"{where}: {key} is {value!r}; expected {expected}.")


def _descriptions(where: str, table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise RecipeError(f'{where}: descriptions is {table!r}; expected label = "what it means" lines.')
    return dict(table)


def _calibration(where: str, table: Any) -> Any:
    if table is None:
        return NOT_CALIBRATED
    if not isinstance(table, dict) or table.get("kind") not in KINDS:
        raise RecipeError(
            f"{where}: calibration is {table!r}; expected a table with kind = one of {', '.join(KINDS)}."
        )
    try:
        return read_calibration(table)
    except (TypeError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"{where}: calibration holds something that is no number ({error}). Leave everything but `kind` out; it is "
            "fitted again."
        ) from error


def _row(example: Example) -> dict[str, Any]:
    one_turn = len(example.messages) == 1 and example.messages[0].role == "user"
    said: dict[str, Any] = {"prompt": example.prompt} if one_turn else {"messages": example.turns}
    return {**said, "completion": example.completion, "id": example.id, "hash": _hash(example)}


def _hash(example: Example) -> str:
    return content_hash([example.turns, example.completion])


def _example(where: str, number: int, row: Any) -> Example:
    """One of the examples; one whose text was edited gets a new id."""
    place = f"{where}: example {number}"
    if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
        raise RecipeError(f"{place} has no completion. Got {row!r}; expected prompt and completion.")
    if unknown := sorted(set(row) - {"prompt", "messages", "completion", "id", "hash"}):
        raise RecipeError(
            f"{place}: unknown key {unknown[0]!r}. Known: prompt or messages, completion; id and hash are made anew."
        )
    turns: Any = [["user", row["prompt"]]] if "prompt" in row else row.get("messages")
    if not (isinstance(turns, list) and turns and all(map(_is_turn, turns)) and turns[-1][0] == "user"):
        raise RecipeError(
            f'{place} has no prompt. Got keys {sorted(row)}; expected prompt = "…", or messages = [["user", "…"]] that '
            "end with the user's."
        )
    made = Example(tuple(Message(role, content) for role, content in turns), row["completion"])
    if isinstance(row.get("id"), str) and row.get("hash") == _hash(made):
        return Example(made.messages, made.completion, id=row["id"])
    return made


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, list) and len(turn) == 2 and turn[0] in get_args(Role) and isinstance(turn[1], str)
    )
