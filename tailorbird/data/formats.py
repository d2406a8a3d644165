"""Reading examples from JSONL: prompt/completion rows and chat rows, mixed as they come.

    {"prompt": "My card has not come", "completion": "card_arrival"}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}

Either may name its `document`. A file that cannot be used as it is, is explained, never guessed at.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from tailorbird.data.problems import Problem, plural, quote
from tailorbird.errors import DataError, NotFound
from tailorbird.records import Example, Message, Role

_PROMPT_NAMES = (
    "question", "query", "instruction", "input", "text", "user", "utterance", "sentence", "message", "source",
    "context", "request", "title",
)  # fmt: skip
_COMPLETION_NAMES = (
    "answer", "response", "output", "label", "target", "category", "intent", "class", "reply", "assistant",
    "result", "solution", "chosen", "text",
)  # fmt: skip
_BOM = b"\xef\xbb\xbf"
_NOT_TEXT = {
    b"PK\x03\x04": (
        "a zip archive or an Excel workbook",
        "Unpack it, or export the sheet and convert it to JSONL.",
    ),
    b"\x1f\x8b": ("compressed with gzip", "Unpack it with gunzip."),
    b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8."),
    b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8."),
    b"%PDF": ("a PDF", "Pass it as a document instead of as examples."),
}


class _RowFault(Exception):  # noqa: N818  -- becomes a Problem or a DataError, never seen itself
    """A row that is no example: what is wrong with it, and the way out."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def read_examples(path: Path) -> tuple[Example, ...]:
    """All examples of a JSONL file, in file order; strict: the first bad row is an error.

    Raises:
        NotFound: There is no such file.
        DataError: The file or a row cannot be used; says how many further problems there are.
    """
    examples, problems = scan(path)
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        more = len(errors) - 1
        hint = f" ({plural(more, 'more problem')}: tailor check {path.name} lists them.)" if more else ""
        raise DataError(f"{errors[0]}{hint}")
    return tuple(examples)


def scan(path: Path) -> tuple[list[Example], list[Problem]]:
    """The good rows as examples, and every problem; each bad row gives exactly one error.

    Keys that are not used are one `info` at the end. Raises only where there is no file to read.

    Raises:
        NotFound: There is no such file.
        DataError: It is a folder, or the system refuses to open it.
    """
    _refuse_no_file(path)
    whole = _whole_file_problem(path)
    if whole:
        return [], [whole]
    examples: list[Example] = []
    problems: list[Problem] = []
    extra: Counter[str] = Counter()
    for line, outcome in _rows(path):
        try:
            if isinstance(outcome, _RowFault):
                raise outcome
            examples.append(_example(outcome, path.name, line))
            extra.update(outcome.keys() - {"prompt", "completion", "messages", "document"})
        except _RowFault as fault:
            problems.append(Problem("error", f"{path.name}:{line}", fault.what, fault.fix))
    if not examples and not problems:
        problems.append(_empty(path))
    problems += [_extra_key(path, key, count) for key, count in sorted(extra.items())]
    return examples, problems


def parse_row(row: Mapping[str, Any], file: str = "", line: int = 0) -> Example:
    """One decoded JSON object as an example.

    Raises:
        DataError: The row is no example; names `file:line`, what was got, what was expected, a fix.
    """
    try:
        return _example(row, file, line)
    except _RowFault as fault:
        raise DataError(str(Problem("error", f"{file}:{line}", fault.what, fault.fix))) from None


def to_row(example: Example) -> dict[str, Any]:
    """The JSON object that `parse_row` reads back as the same example."""
    if len(example.messages) == 1 and example.messages[0].role == "user":
        row: dict[str, Any] = {"prompt": example.prompt, "completion": example.completion}
    else:
        turns = [*example.messages, Message("assistant", example.completion)]
        row = {"messages": [{"role": m.role, "content": m.content} for m in turns]}
    return row if example.document is None else {**row, "document": example.document}


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Writes a JSONL file that `read_examples` reads back."""
    lines = (json.dumps(to_row(e), ensure_ascii=False) + "\n" for e in examples)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


# --- files


def _refuse_no_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.jsonl"))[:5]
        fix = f"Name one of its files: {', '.join(inside)}." if inside else "Name a JSONL file."
        raise DataError(f"{path}: is a folder; expected a JSONL file. {fix}")
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        fix = f"Did you mean {near[0]}?" if near else "Check the name and the folder you are in."
        raise NotFound(f"{path}: there is no such file. {fix}")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}). Check its permissions.") from None


def _names_beside(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _whole_file_problem(path: Path) -> Problem | None:
    """A file of another kind is explained once, not once a line."""
    with path.open("rb") as file:
        head = file.read(65536)
    for magic, (kind, fix) in _NOT_TEXT.items():
        if head.startswith(magic):
            return Problem("error", path.name, f"the file is {kind}; expected JSONL in UTF-8.", fix)
    text = head.removeprefix(_BOM).lstrip()
    if not text:
        return _empty(path)
    first = text.split(b"\n", 1)[0].strip().decode("utf-8", "replace")
    name, out = path.name, path.with_suffix(".jsonl").name
    out = f"rows-{out}" if out == name else out
    if first.startswith("["):
        what = "the file is one JSON array; expected JSONL: one object a line."
        return Problem("error", name, what, f"Convert it: jq -c '.[]' {name} > {out}")
    if first == "{":
        what = (
            "the file is one object spread over several lines; expected JSONL: a whole object on each line."
        )
        return Problem("error", name, what, f"Convert it: jq -c . {name} > {out}")
    if not first.startswith("{") and (
        path.suffix.lower() in {".csv", ".tsv"} or "," in first or "\t" in first
    ):
        return _table_problem(path, first, out)
    return None


def _table_problem(path: Path, header: str, out: str) -> Problem:
    tab = "\t" in header or path.suffix.lower() == ".tsv"
    reader = "csv.DictReader(open(f, encoding='utf-8-sig', newline=''), delimiter='\\t')"
    reader = reader if tab else "csv.DictReader(open(f, encoding='utf-8-sig', newline=''))"
    code = f"import csv,json; f='{path.name}'; [print(json.dumps(r)) for r in {reader}]"
    what = (
        f"the file looks like {'TSV' if tab else 'CSV'} (its first line is {quote(header)}); expected JSONL."
    )
    fix = f'Name its columns prompt and completion and convert it: python -c "{code}" > {out}'
    return Problem("error", path.name, what, fix)


def _empty(path: Path) -> Problem:
    what = "the file is empty; expected one JSON object a line."
    return Problem("error", path.name, what, 'Write lines such as {"prompt": "…", "completion": "…"}.')


def _extra_key(path: Path, key: str, count: int) -> Problem:
    what = f"key {quote(key)} in {plural(count, 'row')} is not used."
    return Problem("info", path.name, what, "Nothing to do, unless it was meant as part of the prompt.")


# --- rows


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | _RowFault]]:
    """Line number (from 1) and decoded object of each line that is not blank."""
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line.strip():
                try:
                    yield number, _decode(line, offset + len(raw) - len(line))
                except _RowFault as fault:
                    yield number, fault
            offset += len(raw)


def _decode(line: bytes, offset: int) -> dict[str, Any]:
    """The JSON object of one line; `offset` is where the line starts in the file, in bytes."""
    try:
        text = line.decode().rstrip()
    except UnicodeDecodeError as error:
        what = f"byte 0x{line[error.start]:02x} (byte {offset + error.start + 1:,} of the file) is not UTF-8."
        raise _RowFault(
            what, "Save the file as UTF-8, for instance: iconv -f WINDOWS-1252 -t UTF-8."
        ) from None
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        what = f"not valid JSON at column {error.colno}: {error.msg}. Got {quote(text.strip())}."
        raise _RowFault(what, _json_fix(text, error)) from None
    except RecursionError:
        raise _RowFault("the JSON is nested too deeply.", "Give one flat object a line.") from None
    except ValueError as error:  # a number of thousands of digits
        raise _RowFault(f"not valid JSON: {error}.", "Put the number in quotes.") from None
    if not isinstance(row, dict):
        what = f"got a JSON {_type(row)}; expected an object with 'prompt' and 'completion'."
        raise _RowFault(what, 'Write {"prompt": "…", "completion": "…"}.')
    return cast("dict[str, Any]", row)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _RowFault(f"key {quote(twice)} appears twice in one object.", "Keep one of them.")
    return row


def _json_fix(text: str, error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return "Put each object on a line of its own."
    if text.lstrip().startswith("{'"):
        return "JSON wants double quotes: write the file with json.dumps instead of str."
    if not text.rstrip().endswith("}"):
        return "The line is cut off: an object must begin and end on one line; write line breaks as \\n."
    return "Write the file with json.dumps, one object a line."


def _example(row: Mapping[str, Any], file: str, line: int) -> Example:
    document = row.get("document")
    if document is not None and not isinstance(document, str):
        what = f"'document' is a {_type(document)} ({quote(document)}); expected a string or null."
        raise _RowFault(what, "Name the file inside your documents folder, such as 'returns.md'.")
    messages, completion = _chat(row) if "messages" in row else _pair(row)
    try:
        return Example(messages, completion, document or None, file, line)
    except UnicodeEncodeError:
        what = "the text holds half of a surrogate pair (such as \\ud83d), which is no character."
        raise _RowFault(what, "Write the whole character, or the file with ensure_ascii=False.") from None


def _pair(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    if "prompt" not in row or "completion" not in row:
        raise _missing(row)
    prompt, completion = (_filled(row[key], f"'{key}'") for key in ("prompt", "completion"))
    return (Message("user", prompt),), completion


def _filled(value: Any, name: str) -> str:
    if not isinstance(value, str):
        fix = f'Put it in quotes: "{value}".' if isinstance(value, int | float) else _structure_fix(value)
        raise _RowFault(f"{name} is a {_type(value)} ({quote(value)}); expected a string.", fix)
    if not value.strip():
        raise _RowFault(f"{name} is empty; expected some text.", "Fill it in or delete the line.")
    return value


def _structure_fix(value: Any) -> str:
    return (
        "Use chat rows with 'messages'." if isinstance(value, list) else "Give its text, or delete the line."
    )


def _missing(row: Mapping[str, Any]) -> _RowFault:
    absent = [key for key in ("prompt", "completion") if key not in row]
    names = " and ".join(f"'{key}'" for key in absent)
    what = f"{names} {'is' if len(absent) == 1 else 'are'} missing. Got keys {quote(list(row), 120)}; "
    return _RowFault(what + "expected 'prompt' and 'completion'.", _rename_fix(row, absent))


def _rename_fix(row: Mapping[str, Any], absent: list[str]) -> str:
    if "conversations" in row:
        return "Rename 'conversations' to 'messages', 'from' to 'role' and 'value' to 'content'."
    if row.get("input") and {"instruction", "output"} <= row.keys():
        return "Join 'instruction' and 'input' into 'prompt' and rename 'output' to 'completion'."
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
    """The key that most likely was meant: a known other name, else a slip of the pen, else the only one."""
    lower = {name.lower().strip(): name for name in reversed(free)}
    known = (key, *(_PROMPT_NAMES if key == "prompt" else _COMPLETION_NAMES))
    for name in known:
        if name in lower:
            return lower[name]
    close = difflib.get_close_matches(key, lower, n=1, cutoff=0.75)
    return lower[close[0]] if close else None


def _chat(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    if "prompt" in row or "completion" in row:
        raise _RowFault("got both 'messages' and 'prompt' or 'completion'; expected one.", "Keep one form.")
    turns = row["messages"]
    if not isinstance(turns, list) or len(cast("list[Any]", turns)) < 2:
        what = (
            f"'messages' is {quote(turns)}; expected a list of a user's message and the assistant's answer."
        )
        raise _RowFault(
            what, 'Write [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}].'
        )
    messages = [_message(turn, i) for i, turn in enumerate(cast("list[Any]", turns))]
    if messages[-1].role != "assistant":
        what = f"the last message is the {messages[-1].role}'s; expected the assistant's, the completion."
        raise _RowFault(what, "Add the answer as the last message, with role 'assistant'.")
    if messages[-2].role != "user":
        what = f"the message before the completion is the {messages[-2].role}'s; expected the user's."
        raise _RowFault(what, "Let the assistant's answer follow a message of the user.")
    return tuple(messages[:-1]), messages[-1].content


def _message(turn: Any, index: int) -> Message:
    name = f"messages[{index}]"
    if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
        what = f"{name} is {quote(turn)}; expected an object with 'role' and 'content'."
        fix = (
            "Rename 'from' to 'role' and 'value' to 'content'."
            if _is_sharegpt(turn)
            else "Give it both keys."
        )
        raise _RowFault(what, fix)
    fields = cast("dict[str, Any]", turn)
    role = fields["role"]
    if role not in get_args(Role):
        fixes = {
            "developer": "Rename it to 'system'.",
            "human": "Rename it to 'user'.",
            "gpt": "Rename it to 'assistant'.",
        }
        what = f"{name} has role {quote(role)}; expected 'system', 'user' or 'assistant'."
        raise _RowFault(what, fixes.get(str(role), "Leave messages of other roles out."))
    return Message(role, _filled(fields["content"], f"the content of {name}"))


def _is_sharegpt(turn: Any) -> bool:
    return isinstance(turn, dict) and {"from", "value"} <= turn.keys()


def _type(value: Any) -> str:
    """The name that JSON gives to the value's type."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return names.get(type(value), "null")
