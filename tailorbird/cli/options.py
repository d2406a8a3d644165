"""The options that several commands share, each described once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from tailorbird.errors import InputError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else there.")]
Examples = Annotated[
    Path | None,
    typer.Option("--examples", metavar="FILE", help="Labelled examples: JSONL, JSON, CSV, TSV or Parquet."),
]
PromptColumn = Annotated[
    str | None,
    typer.Option("--prompt-column", metavar="NAME", help="Which column or key holds the prompt."),
]
CompletionColumn = Annotated[
    str | None,
    typer.Option("--completion-column", metavar="NAME", help="Which column or key holds the completion."),
]
Documents = Annotated[
    Path | None,
    typer.Option(
        "--documents",
        metavar="DIR",
        help="Documents to answer from: a folder of text, HTML, PDF, Office, …, or a knowledge base.",
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="A live source that knowledge asks: wikipedia, or one that tailor.toml describes. Repeatable.",
    ),
]
TestFile = Annotated[
    Path | None,
    typer.Option("--test", metavar="FILE", help="Test examples of their own; else some are set apart."),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="starter, a folder, a .gguf file, hf:org/name, a saved name or URL#model.",
    ),
]
BaseModels = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="starter, a folder, a .gguf file, hf:org/name, a saved name or URL#model. Repeatable: each arm on each.",
    ),
]
KeyEnv = Annotated[
    str | None,
    typer.Option("--key-env", metavar="NAME", help="The environment variable that holds the key."),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A saved name, winner, an arm, starter, a folder, hf:org/name or URL#model."
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track", metavar="A,B", help="Send training's curves to tensorboard, wandb or mlflow as well."
    ),
]


def tracker_names(track: str | None) -> list[str]:
    """The names in `--track`.

    Raises:
        InputError: there is none in it.
    """
    names = [word.strip() for word in (track or "").split(",") if word.strip()]
    if track is not None and not names:
        raise InputError(f"--track {track!r} names no tracker. Give one, as in --track tensorboard.")
    return names


def read_setting(text: str, example: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as TOML has it, or else a text.

    >>> [read_setting(text, "k=3") for text in ("max_pages=5", "sitemaps=false", "label=the shop")]
    [('max_pages', 5), ('sitemaps', False), ('label', 'the shop')]

    Raises:
        InputError: it is not of this form; `example` is one that is.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text!r}: expected KEY=VALUE, such as {example}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
