"""Which columns of a table, or keys of its rows, hold the prompt and the completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailorbird.data.problems import RowFault, quote

PROMPT_NAMES = (
    "question", "query", "instruction", "input", "text", "user", "utterance", "sentence", "message", "source",
    "context", "request", "title",
)  # fmt: skip
COMPLETION_NAMES = (
    "answer", "response", "output", "label", "target", "category", "intent", "class", "reply", "assistant",
    "result", "solution", "chosen", "text",
)  # fmt: skip
FLAGS = {"prompt": "--prompt-column", "completion": "--completion-column"}


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns to use as prompt and as completion; None where that is to be found out.

    >>> Columns(completion="intent").rename({"prompt": "hi", "intent": "greeting"})
    {'prompt': 'hi', 'completion': 'greeting'}
    """

    prompt: str | None = None
    completion: str | None = None

    def __bool__(self) -> bool:
        return self.prompt is not None or self.completion is not None

    def rename(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with these columns called `prompt` and `completion`.

        Raises:
            RowFault: The row has no such column.
        """
        wanted = {"prompt": self.prompt or "prompt", "completion": self.completion or "completion"}
        for name in wanted.values():
            if name not in row:
                what = f"column {quote(name)} is missing. Got {quote(list(row), 120)}."
                raise RowFault(what, "Add it, or name another with --prompt-column or --completion-column.")
        taken = {*wanted, *wanted.values()}
        rest = {key: value for key, value in row.items() if key not in taken}
        return {**{name: row[column] for name, column in wanted.items()}, **rest}


def recognised(names: Sequence[str]) -> Columns | None:
    """The only columns that can be meant by these names, or None where there are several or none."""
    free = [name for name in names if name.lower().strip() not in {"document", "id", "idx"}]
    completion = _only(free, "completion", COMPLETION_NAMES)
    # a table of texts and their answers calls the prompt text; with nothing else it may be either
    prompt = _only([name for name in free if name != completion], "prompt", PROMPT_NAMES)
    return Columns(prompt, completion) if prompt and completion else None


def _only(names: Sequence[str], wanted: str, others: Sequence[str]) -> str | None:
    exact = [name for name in names if name.lower().strip() == wanted]
    likely = [name for name in names if name.lower().strip() in set(others) - {"text"}]
    if wanted == "prompt" and not exact:
        likely = [name for name in names if name.lower().strip() in others]
    found = exact or likely
    return found[0] if len(found) == 1 else None


def in_doubt(names: Sequence[str]) -> tuple[str, str]:
    """What to say where the columns cannot be recognised: what is wrong, and the flags to give."""
    lower = {name.lower().strip(): name for name in reversed(names)}
    prompt = _likeliest(lower, ("prompt", *PROMPT_NAMES))
    rest = {key: name for key, name in lower.items() if name != prompt}
    guess = {"prompt": prompt, "completion": _likeliest(rest, ("completion", *COMPLETION_NAMES))}
    what = f"which columns hold the prompt and the completion is not clear from {quote(list(names), 160)}."
    flags = " ".join(f"{FLAGS[wanted]} {_word(name)}" for wanted, name in guess.items())
    return what, f"Say it: {flags}."


def _likeliest(columns: Mapping[str, str], known: Sequence[str]) -> str:
    return next((columns[name] for name in known if name in columns), "NAME")


def _word(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'
