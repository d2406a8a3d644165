"""What a comparison must say of its examples, found once they are shared out: nothing is read again.

`data.report` checks a file as it stands; here the same checks see what was kept, and what sharing out found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from tailorbird.data import checks
from tailorbird.data.duplicates import Ints
from tailorbird.data.keys import Keys, is_on_disk, keys_of
from tailorbird.data.problems import Problem, plural
from tailorbird.data.splits import Splits, conflict_groups
from tailorbird.data.survey import survey
from tailorbird.data.task import is_classification
from tailorbird.records import Example

MAX_TOKENS = 2048
"""A row longer than this, by estimate, is reported: many small models take in no more."""
MANY_REPEATED = 0.1
"""The share of repeated rows from which they are more than a note."""


def findings(splits: Splits, *, file: str, test: str | None = None) -> tuple[Problem, ...]:
    """What may mislead about a comparison on these parts, the gravest first within each check.

    Args:
        splits: the parts and what was left out of them.
        file: the name of the file of examples.
        test: the name of the test file, where there was one of its own.
    """
    parts = [splits.train, splits.dev, splits.test]
    counts = _counts(parts)
    found = [
        *_repeated(splits, file),
        *(_leaking(splits, file, test) if test else ()),
        *_contradictions(splits, file, test),
        *(_labels(splits, counts, file, test) if counts else ()),
        *([] if any(map(is_on_disk, parts)) else _lengths(list(chain.from_iterable(parts)), file)),
    ]
    return tuple(problem for problem in found if problem.severity == "warning")


def _counts(parts: Sequence[Sequence[Example]]) -> Counter[str] | None:
    """How often each completion comes; None if they are too many to be labels."""
    total: Counter[str] = Counter()
    for part in parts:
        counts = keys_of(part).counts
        if counts is None:
            return None
        total += Counter(counts)
    return total


def _repeated(splits: Splits, file: str) -> Iterator[Problem]:
    repeated, kept = splits.num_removed["duplicate"], len(splits.train) + len(splits.dev) + len(splits.test)
    rows = repeated + kept
    if repeated > MANY_REPEATED * rows:
        what = (
            f"{repeated:,} of {plural(rows, 'row')} repeat another one; {plural(kept, 'example')} are left."
        )
        yield Problem(
            "warning", file, what, "Scores are of examples that differ: in use, what repeats counts more."
        )


def _leaking(splits: Splits, file: str, test: str) -> Iterator[Problem]:
    equal, near = splits.num_removed["in_test"], splits.num_removed["near_test"]
    if not equal + near:
        return
    what = f"{equal:,} of the examples equal one of {test}, and {near:,} nearly equal one."
    fix = "They are left out of training, or scores would be of what was learnt by heart; fewer are learnt from."
    yield Problem("warning", file, what, fix)


def _contradictions(splits: Splits, file: str, test: str | None) -> Iterator[Problem]:
    """Prompts with several completions, and the best accuracy that they leave to reach."""
    if splits.conflicts:
        lost = _lost(keys_of(splits.train))
        total = len(splits.train) + len(splits.dev) + len(splits.test)
        prompts = plural(len(splits.conflicts), "prompt")
        what = (
            f"{prompts} with contradicting completions: whatever answers them, it can agree with at most "
            f"{100 * (1 - lost / total):.1f} % of all examples."
        )
        fix = "Decide on one completion each (`tailor check` lists them); these rows teach, and never judge."
        yield Problem("warning", file, what, fix)
    lost = _lost(keys_of(splits.test))
    if test and lost:
        best = 100 * (1 - lost / len(splits.test))
        what = f"prompts with contradicting completions: no arm can be right on more than {best:.1f} % of this test."
        yield Problem("warning", test, what, "Decide on one completion each.")


def _lost(keys: Keys) -> int:
    """Examples that no answer can get right, because more of the same prompt expect something else."""

    def minority(group: Ints) -> int:
        return len(group) - int(np.unique(keys.completions[group], return_counts=True)[1].max())

    return sum(map(minority, conflict_groups(keys)))


def _labels(splits: Splits, counts: Counter[str], file: str, test: str | None) -> Iterator[Problem]:
    yield from checks.check_one_completion(counts, file)
    yield from checks.check_almost_labels(counts, file)
    if not is_classification(counts):
        return
    yield from checks.check_labels(counts, file)
    if test:
        learnt = _counts([splits.train, splits.dev]) or ()
        yield from checks.check_test_labels(learnt, keys_of(splits.test).counts or (), test)


def _lengths(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    seen = survey(examples)
    yield from checks.check_lengths(examples, seen, MAX_TOKENS, file)
    yield from checks.check_spaces(examples, seen, file)
