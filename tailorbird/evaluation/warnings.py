"""What a reader must know before believing a comparison: found in its data and results, shown near the verdict.

What sharing the examples out found (`data.findings`) is passed on; here is added what only results can tell.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from tailorbird.data.problems import Problem, plural, quote
from tailorbird.data.task import Data
from tailorbird.evaluation.comparison import ArmResult, Comparison, percent
from tailorbird.evaluation.evaluate import Evaluation
from tailorbird.evaluation.soundness import FEWEST, independent, one_completion
from tailorbird.evaluation.statistics import paired_p_value
from tailorbird.evaluation.verdict import ALPHA

Level = Literal["severe", "warning", "note"]

FEW_TEST = 50
FEW_PER_LABEL = 5
FEW_OF_SCRIPT = 5
_SHOWN = 6
_ALIKE = {"CJK": "Chinese or Japanese", "HIRAGANA": "Chinese or Japanese", "KATAKANA": "Chinese or Japanese"}


@dataclass(frozen=True, slots=True)
class Warned:
    """One thing to know. `severe`: the verdict can't be relied on; `warning`: scores may mislead; `note`: scope."""

    kind: str
    level: Level
    sentence: str

    def to_json(self) -> dict[str, str]:
        """As `comparison.json` holds it."""
        return asdict(self)


def warnings_of(comparison: Comparison, data: Data, problems: Sequence[Problem] = ()) -> list[dict[str, Any]]:
    """Everything to know of a finished comparison, the gravest first, as JSON-like values.

    Args:
        comparison: with its answers.
        data: what was learnt from and measured on.
        problems: from `data.findings`, passed on as they are.
    """
    found = [
        *_one_completion(data),
        *_few(comparison, data),
        *_labels(data),
        *(Warned("data", "severe" if p.severity == "error" else "warning", str(p)) for p in problems),
        *_repeated(comparison),
        *_nothing_learnt(comparison, data),
        *_left_out(comparison),
        *_scripts(comparison),
        *_documents(data),
    ]
    order: list[Level] = ["severe", "warning", "note"]
    return [warned.to_json() for warned in sorted(found, key=lambda w: order.index(w.level))]


def _one_completion(data: Data) -> Iterator[Warned]:
    if (only := one_completion(data.test)) is not None:
        what = f"All {plural(len(data.test), 'test example')} expect {quote(only, 40)}: this test tells no arms apart."
        yield Warned("one_completion", "severe", what)


def _few(comparison: Comparison, data: Data) -> Iterator[Warned]:
    units = independent(data.test)
    if units >= FEW_TEST:
        return
    things = plural(len(data.test), "test example")
    if units < len(data.test):
        things += f", about {plural(units, 'document')},"
    smallest = comparison.minimum_detectable_difference
    if smallest >= 1:
        told = f"{things} cannot show any difference between arms."
    else:
        least = f"about {smallest * 100:.0f} points or more"
        told = f"{things} show only differences of {least}, if arms differ on a fifth of them (80 % power)."
    level: Level = "severe" if units < FEWEST else "warning"
    wanted = f"Label {FEW_TEST} or more to test on; a few hundred are better."
    yield Warned("too_few", level, f"{told} {wanted}")


def _labels(data: Data) -> Iterator[Warned]:
    """Labels that nothing could have learnt."""
    if data.task.kind != "classify":
        return
    learnt = Counter(example.completion for example in data.train)
    asked = Counter(example.completion for example in data.test)
    unseen = sorted(label for label in asked if label not in learnt)
    if unseen:
        count = sum(asked[label] for label in unseen)
        named = ", ".join(quote(label, 40) for label in unseen[:_SHOWN]) + (
            "…" if len(unseen) > _SHOWN else ""
        )
        what = f"{plural(len(unseen), 'label')} in the test and in no training example ({named})"
        yield Warned(
            "unseen_labels",
            "warning",
            f"{what}: what learns from examples gets {plural(count, 'test example')} wrong.",
        )
    each = len(data.train) / len(data.task.labels)
    if each < FEW_PER_LABEL:
        count = plural(len(data.task.labels), "label")
        what = f"{count} with {each:.1f} training examples each on average: many can hardly be learnt."
        yield Warned("few_per_label", "warning", f"{what} {FEW_PER_LABEL} to 10 for each are a start.")


def _repeated(comparison: Comparison) -> Iterator[Warned]:
    repeated = comparison.data.get("repeated_in_test", 0)
    if repeated:
        what = f"{plural(repeated, 'test message')} of {comparison.num_test} also stand in train or dev, word for word"
        yield Warned("repeated_in_test", "warning", f"{what}: scores flatter.")


def _nothing_learnt(comparison: Comparison, data: Data) -> Iterator[Warned]:
    """Whether the best arm does better than always saying what training says most often."""
    ran = [arm for arm in comparison.arms if arm.name in comparison.evaluations]
    if data.task.kind != "classify" or not ran or not data.train or one_completion(data.test) is not None:
        return
    counts = Counter(example.completion for example in data.train)
    most = max(sorted(counts), key=lambda label: counts[label])
    best = max(ran, key=lambda arm: arm.score or 0.0)
    answers = comparison.evaluations[best.name]
    constant = [float(expected == most) for expected in answers.expected]
    scores = answers.scores(comparison.metric)
    better = sum(scores) > sum(constant)
    if better and paired_p_value(scores, constant, groups=answers.groups) < ALPHA:
        return
    share = percent(sum(constant) / len(constant))
    what = f"No arm is clearly better than always saying {quote(most, 40)}, which is right on {share} % of the test"
    yield Warned("nothing_learnt", "warning", f"{what}: nothing was learnt that this test could show.")


def _left_out(comparison: Comparison) -> Iterator[Warned]:
    """Arms that did not see their requests whole."""
    for arm in comparison.arms:
        rows = comparison.evaluations[arm.name].rows if arm.name in comparison.evaluations else ()
        cut = [row.completion.dropped for row in rows if row.completion.dropped]
        if cut:
            what = f"{arm.name} did not see {len(cut)} of {plural(len(rows), 'test request')} whole"
            yield Warned("left_out", "warning", f"{what}; left out, for one: {cut[0][0]}")


def _scripts(comparison: Comparison) -> Iterator[Warned]:
    """Scores apart for each script, where the test mixes some."""
    ran = [arm for arm in comparison.arms if arm.name in comparison.evaluations]
    if not ran:
        return
    rows = comparison.evaluations[ran[0].name].rows
    scripts = [script_of(row.question) for row in rows]
    counts = {
        name: count for name, count in Counter(scripts).most_common() if name and count >= FEW_OF_SCRIPT
    }
    if len(counts) < 2:
        return
    named = ", ".join(f"{count} in {name}" for name, count in counts.items())
    scores = "; ".join(_apart(arm, comparison, scripts, counts) for arm in ran[:_SHOWN])
    yield Warned(
        "scripts",
        "warning",
        f"The test mixes scripts ({named}), and one score hides the difference: {scores}.",
    )


def _apart(arm: ArmResult, comparison: Comparison, scripts: Sequence[str], counts: Mapping[str, int]) -> str:
    scores = _scores(comparison.evaluations[arm.name], comparison.metric)
    means = [
        f"{name} {percent(sum(s for s, script in zip(scores, scripts, strict=True) if script == name) / count)} %"
        for name, count in counts.items()
    ]
    return f"{arm.name} {', '.join(means)}"


def _scores(evaluation: Evaluation, metric: str) -> list[float]:
    return evaluation.scores(metric)


def _documents(data: Data) -> Iterator[Warned]:
    known = {example.document for example in data.train if example.document}
    shared = sum(example.document in known for example in data.test)
    if shared:
        what = f"{shared} of {plural(len(data.test), 'test example')} are about documents that training examples know"
        yield Warned("shared_documents", "note", f"{what}: scores are of known documents, not of new ones.")


def script_of(text: str) -> str:
    """The script of most letters of a text, as Unicode names it; empty where it has no letters.

    >>> script_of("Где мой заказ?"), script_of("Where is it?"), script_of("12:30")
    ('Cyrillic', 'Latin', '')
    """
    counts = Counter(name for letter in text[:1000] if (name := _script(letter)))
    return max(sorted(counts), key=lambda name: counts[name]) if counts else ""


@lru_cache(maxsize=10_000)
def _script(letter: str) -> str:
    if not letter.isalpha():
        return ""
    first = unicodedata.name(letter, "").partition(" ")[0].removeprefix("FULLWIDTH")
    return _ALIKE.get(first, first.capitalize())
