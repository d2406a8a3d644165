"""`tailor check --mask`: training examples token by token, and which tokens carry loss."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tailorbird.cli.output import is_terminal, printable, say

if TYPE_CHECKING:
    from tailorbird.workbench import MaskedToken, MaskPreview

BETWEEN = "\u2502"
"""Stands between two tokens."""


def show_mask(preview: MaskPreview) -> None:
    """Prints each example: tokens without loss, then those with it; coloured on a terminal."""
    for example in preview.examples:
        counts = (
            f"{example.num_prompt_tokens} tokens of prompt, {example.num_completion_tokens} of completion"
        )
        weight = "" if example.weight == 1 else f", weight {example.weight:g}"
        say()
        say(f"{example.where}: {counts}{weight}", bold=True)
        _show_tokens(example.tokens)
    say()
    say(preview.sentence, bold=True)


def _show_tokens(tokens: tuple[MaskedToken, ...]) -> None:
    if is_terminal(sys.stdout):
        _draw(tokens)
        return
    for name, loss in (("no loss", False), ("loss", True)):
        texts = [visible(token.text) for token in tokens if token.loss == loss]
        if texts:
            say(f"  {name:<9}{BETWEEN.join(texts)}")


def _draw(tokens: tuple[MaskedToken, ...]) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for token in tokens:
        line.append(visible(token.text), style="bold black on green" if token.loss else "dim")
        line.append(BETWEEN, style="dim")
    Console(highlight=False).print(line)


def visible(text: str) -> str:
    """A token's text on one line."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"))
