"""What a test set can't bear out, whatever the numbers say: the verdict is held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tailorbird.data.problems import plural, quote
from tailorbird.evaluation.verdict import Verdict
from tailorbird.records import Example

FEWEST = 10
"""Test examples, or documents where examples share them, below which nothing is called a winner."""


def sound(verdict: Verdict, test: Sequence[Example]) -> Verdict:
    """The verdict, or `undecided` where the test set tells no arms apart.

    That is so where all of its examples expect one and the same, for then always saying that is always right, and
    where it has fewer than `FEWEST` independent examples. The arm to use until then stays.

    Args:
        verdict: what the scores say.
        test: the examples that they are of.
    """
    if verdict.arm is None or not verdict.differences:
        return verdict
    if (only := one_completion(test)) is not None:
        return _held_back(
            verdict,
            f"Undecided: all {plural(len(test), 'test example')} expect {quote(only, 40)}, so this test cannot tell an "
            f"arm that understands from one that always says that. Add test examples of other completions. Until then "
            f"use {verdict.arm}.",
        )
    units = independent(test)
    if verdict.kind != "undecided" and units < FEWEST:
        about = "test example" if units == len(test) else "document"
        more = FEWEST - units
        return _held_back(
            verdict,
            f"Undecided: {verdict.arm} did best, but {plural(units, about)} to test on are too few to call it the "
            f"winner. Add at least {more} more. Until then use {verdict.arm}.",
            more,
        )
    return verdict


def one_completion(test: Sequence[Example]) -> str | None:
    """What all of two or more examples expect; None where they expect different things."""
    if len(test) < 2:
        return None
    first = test[0].completion
    return first if all(example.completion == first for example in test) else None


def independent(test: Sequence[Example]) -> int:
    """How many examples there are, those of one document counted once."""
    return len({example.document or f"\0{number}" for number, example in enumerate(test)})


def _held_back(verdict: Verdict, headline: str, more: int | None = None) -> Verdict:
    notes = verdict.sentence[len(verdict.headline) :].strip()
    sentence = f"{headline} {notes}" if notes else headline
    return replace(verdict, kind="undecided", sentence=sentence, headline=headline, more_examples_needed=more)
