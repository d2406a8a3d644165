"""What more would buy: the options that ask for it, and its few lines after the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from tailorbird.cli.output import say

PricePerHour = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour", metavar="USD", help="What an hour of this machine costs.", show_default="0.10"
    ),
]
Curve = Annotated[
    bool | None,
    typer.Option("--curve", help="Afterwards, the leading arms on fewer labels: what would more bring?"),
]
Ablate = Annotated[
    bool | None, typer.Option("--ablate", help="Afterwards, the leading arms without each of their parts.")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds", metavar="N", help="Afterwards, the leading arms with N seeds: how much is chance?"
    ),
]


def show_extras(extras: Mapping[str, Any]) -> None:
    """The sentences of what was measured beside the verdict; when something pays back, if anything does."""
    pays = extras.get("break_even", {})
    lines = [row["sentence"] for key in ("curve", "ablation", "seeds") for row in extras.get(key, ())]
    lines += [extras["seed_order"]] if extras.get("seed_order") else []
    lines += [*extras.get("notes", ()), *([pays["sentence"]] if pays.get("pairs") else [])]
    if not lines:
        return
    say()
    say("What more would buy (no part of the verdict):")
    for line in lines:
        say(f"  {line}")
