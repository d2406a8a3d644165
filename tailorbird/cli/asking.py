"""`tailor ask` and `tailor chat`: a model's answers, with what they rest on."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.options import AsJson, KeyEnv, ModelArgument
from tailorbird.cli.output import is_terminal, kept_for_json, print_json, remark, say
from tailorbird.cli.project import project_of
from tailorbird.cli.scoping import AskedDocuments, AskedFacts, AskedGroups, AskedTenant, read_scope
from tailorbird.errors import InputError, NotFound, TailorbirdError
from tailorbird.records import Completion, Message, Passage, Request

if TYPE_CHECKING:
    from tailorbird.workbench import OpenModel

SHOWN_PROBABILITIES = 3
SHOWN_QUOTE = 200

MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=1, help="The most tokens of an answer.")
]


def ask(
    context: typer.Context,
    model: ModelArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message; - reads standard input.")],
    *,
    max_tokens: MaxTokens = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON schema that the answer must keep to.")
    ] = None,
    tenant: AskedTenant = None,
    groups: AskedGroups = None,
    facts: AskedFacts = None,
    documents: AskedDocuments = "",
    key_env: KeyEnv = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model once; below the answer stand its labels' probabilities, or the passages it rests on."""
    message = _message(text)
    with kept_for_json(as_json):
        opened = project_of(context).workbench().open(model, key_env=key_env)
        request = _request(opened, [Message("user", message)], max_tokens, _schema(schema))
        request = replace(request, only=read_scope(tenant, groups, facts, documents))
        completion = opened.model.answer([request])[0]
    if as_json:
        print_json(answer_json(opened.id, completion))
    else:
        say(completion.cited_text)
        _say_grounds(completion)


def chat(
    context: typer.Context, model: ModelArgument, max_tokens: MaxTokens = None, key_env: KeyEnv = None
) -> None:
    """Talk with a model. /clear forgets what was said, /quit or Ctrl-D leaves."""
    opened = project_of(context).workbench().open(model, key_env=key_env)
    asking = is_terminal(sys.stdin)
    if asking:
        say(
            f"{opened.id}: /clear forgets what was said, /quit or Ctrl-D leaves, Ctrl-C stops an answer.",
            dim=True,
        )
    turns: list[Message] = []
    for line in _lines(asking):
        if line == "/quit":
            return
        if line == "/clear":
            turns.clear()
            say("Forgotten.", dim=True)
        elif line.startswith("/") and " " not in line:
            remark(f"{line}: no such command. There are /clear and /quit.")
        elif line:
            turns = _turn(opened, [*turns, Message("user", line)], max_tokens)


def answer_json(model: str, completion: Completion) -> dict[str, Any]:
    """What `tailor ask --json` prints."""
    return {
        "model": model,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "valid": completion.valid,
        "probabilities": None if completion.probabilities is None else dict(completion.probabilities),
        "citations": [asdict(citation) for citation in completion.citations],
        "support": completion.support,
        "withheld": completion.withheld,
        "evidence": [_passage(n, passage) for n, passage in enumerate(_evidence(completion), 1)],
        "dropped": list(completion.left_out),
        "usage": asdict(completion.usage),
        "seconds": completion.seconds,
    }


def _message(text: str) -> str:
    if text == "-":
        try:
            text = sys.stdin.read().strip("\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"standard input: not text in {error.encoding} ({error}). Convert it first."
            ) from error
    if not text.strip():
        raise InputError("TEXT is empty. Give the message to answer, or - to read it from standard input.")
    return text


def _request(
    opened: OpenModel, turns: list[Message], max_tokens: int | None, schema: str | None = None
) -> Request:
    request = opened.request(turns, schema=schema)
    if max_tokens is None:
        return request
    return replace(request, sampling=replace(request.sampling, max_tokens=max_tokens))


def _schema(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"{file}: no such file. Give a JSON schema with --schema FILE.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error}). Save it as UTF-8 text.") from error


def _say_grounds(completion: Completion) -> None:
    """The labels' probabilities, or the evidence; and whatever the answer alone doesn't tell."""
    if completion.probabilities:
        say(probabilities_line(completion.probabilities), dim=True)
    for number, passage in enumerate(_evidence(completion), 1):
        say(citation_line(number, passage), dim=True)
        for quote in dict.fromkeys(c.quote for c in completion.citations if c.number == number):
            say(f"    “{_one_line(quote)}”", dim=True)
    if completion.withheld is not None:
        remark(f"Withheld, as the passages hold too little of it: {_one_line(completion.withheld)}")
    if not completion.valid:
        remark("The answer names none of the labels.")
    if completion.finish_reason == "length":
        remark(f"Cut off after {completion.usage.output_tokens} tokens; --max-tokens allows more.")
    for dropped in completion.left_out:
        remark(f"Left out: {dropped}")


def probabilities_line(probabilities: Mapping[str, float]) -> str:
    """The likeliest labels, likeliest first, without those that were ruled out."""
    likeliest = sorted(probabilities.items(), key=lambda item: -item[1])[:SHOWN_PROBABILITIES]
    return ", ".join(f"{label} {share * 100:.1f} %" for label, share in likeliest if share >= 0.0005)


def citation_line(number: int, passage: Passage) -> str:
    """Where a passage stands, numbered as the model saw it: `[1] manual.pdf > Brakes (page 3)`.

    That of a live source has the source's name in front: `[2] wikipedia: https://…`.
    """
    page = f" (page {passage.page})" if passage.page is not None else ""
    source = f"{passage.source}: " if passage.source else ""
    return f"[{number}] {source}{' > '.join([passage.document, *passage.headings])}{page}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_QUOTE else f"{line[:SHOWN_QUOTE]}…"


def _passage(number: int, passage: Passage) -> dict[str, Any]:
    names = ("document", "title", "headings", "start", "end", "page", "score", "source")
    return {"number": number, **{name: getattr(passage, name) for name in names}}


def _evidence(completion: Completion) -> tuple[Passage, ...]:
    return completion.asked.evidence if completion.asked else ()


def _lines(asking: bool) -> Iterator[str]:
    """The user's lines until the end of input; Ctrl-C at the prompt leaves as well."""
    if asking:
        with contextlib.suppress(ImportError):  # line editing and history, where the system has it
            importlib.import_module("readline")
    while True:
        try:
            yield input("> " if asking else "").strip()
        except (EOFError, KeyboardInterrupt):
            if asking:
                say()
            return


def _turn(opened: OpenModel, turns: list[Message], max_tokens: int | None) -> list[Message]:
    """Streams the answer to the last message; what is remembered afterwards."""
    pieces: list[str] = []
    try:
        for piece in opened.model.stream(_request(opened, turns, max_tokens)):
            pieces.append(piece)
            say(piece, end="")
            sys.stdout.flush()
        say()
    except KeyboardInterrupt:
        say("\n(stopped)", dim=True)
    except TailorbirdError as error:
        # The conversation goes on: what could not be answered is forgotten.
        remark(f"Error: {error}")
        return turns[:-1]
    return [*turns, Message("assistant", "".join(pieces))]
