"""What the terminal says beyond one comparison: warnings, the test set's past, what changed since an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailorbird.cli.output import say

if TYPE_CHECKING:
    from tailorbird.evaluation.comparison import Comparison

SHOWN_CHANGES = 12


def say_warnings(comparison: Comparison) -> None:
    """What to know before believing the verdict; notes stand in the report alone."""
    warned = [w["sentence"] for w in comparison.warnings if w["level"] != "note"]
    for sentence in [*warned, *comparison.openings.get("sentences", ())]:
        say(f"Warning: {sentence}")
    if warned or comparison.openings.get("sentences"):
        say()


def say_since(comparison: Comparison) -> None:
    """What became of every arm since the run that the comparison was held against, and what was changed."""
    held = comparison.against
    if held is None:
        return
    when = f" of {held['date']}" if held["date"] else ""
    say(f"Since {held['run']}{when}:", bold=True)
    for sentence in held["sentences"]:
        say(f"  {sentence}")
    changed = held["what_changed"]
    for sentence in changed[:SHOWN_CHANGES]:
        say(f"  changed: {sentence}")
    if len(changed) > SHOWN_CHANGES:
        say(f"  … and {len(changed) - SHOWN_CHANGES} more changes; the report lists them.")
    say()
