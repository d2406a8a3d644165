"""What can be wrong with examples that parse: each check gives the problems it finds.

After the classic checks of prompt/completion files: too few rows, repeated rows, over-long rows, a
common separator at the prompts' end, a common ending or beginning of the completions, stray spaces;
and what those do not look at: contradictions and near-duplicates, labels spelled in two ways.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tailorbird.data.duplicates import (
    common_prefix,
    comparable_texts,
    exact_groups,
    near_groups,
    normalise,
    prompt_key,
    shared_affixes,
)
from tailorbird.data.problems import Problem, plural, quote
from tailorbird.data.splits import conflict_groups
from tailorbird.data.task import Task
from tailorbird.records import Example

FEW_EXAMPLES = 50
_SHOWN = 5


def check_count(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    """Too few examples for a verdict."""
    if 0 < len(examples) < FEW_EXAMPLES:
        what = f"{plural(len(examples), 'example')} are few; differences between arms will hardly be certain."
        yield Problem("warning", file, what, f"Label {FEW_EXAMPLES} or more; a few hundred are better.")


def check_duplicates(examples: Sequence[Example], file: str) -> tuple[int, list[Problem]]:
    """How many rows repeat an earlier one (same prompt, same completion, normalised), and where."""
    groups = exact_groups([str((prompt_key(e), normalise(e.completion))) for e in examples])
    extra = sum(len(group) - 1 for group in groups)
    if not extra:
        return 0, []
    what = f"{plural(extra, 'row')} repeat an earlier one ({_lines(examples, groups)})."
    return extra, [Problem("warning", file, what, "Delete them; one of each is kept when the data is split.")]


def check_near_duplicates(examples: Sequence[Example], file: str) -> tuple[int, list[Problem]]:
    """How many groups of prompts are nearly the same though not equal, and where."""
    texts = comparable_texts(examples)
    groups = [g for g in near_groups(texts) if len({texts[i] for i in g}) > 1]
    if not groups:
        return 0, []
    what = f"{plural(len(groups), 'group')} of prompts are nearly the same ({_lines(examples, groups)})."
    fix = "Nothing to do: each group is kept in one part of the split, so that none leaks into the test."
    return len(groups), [Problem("info", file, what, fix)]


def check_conflicts(examples: Sequence[Example], file: str) -> tuple[int, list[Problem]]:
    """How many prompts have contradicting completions; one problem each, with lines."""
    groups = conflict_groups(examples)
    problems = [_conflict(examples, group, file) for group in groups[:_SHOWN]]
    if len(groups) > _SHOWN:
        where = _lines(examples, groups[_SHOWN:])
        what = f"{len(groups) - _SHOWN:,} more prompts have contradicting completions ({where})."
        problems.append(Problem("warning", file, what, "Decide on one completion for each."))
    return len(groups), problems


def _conflict(examples: Sequence[Example], group: tuple[int, ...], file: str) -> Problem:
    first: dict[str, int] = {}
    for i in group:
        first.setdefault(examples[i].completion, examples[i].line)
    named = ", ".join(f"{quote(c, 40)} (line {line})" for c, line in list(first.items())[:_SHOWN])
    what = f"the prompt {quote(examples[group[0]].prompt)} has different completions: {named}."
    fix = "Decide on one; until then these rows are used for training only, never to judge."
    return Problem("warning", f"{file}:{examples[group[0]].line}", what, fix)


def check_lengths(
    examples: Sequence[Example], tokens: Sequence[int], max_tokens: int, file: str
) -> Iterator[Problem]:
    """Rows whose prompt and completion together exceed `max_tokens`."""
    long = [i for i, count in enumerate(tokens) if count > max_tokens]
    if long:
        where = _lines(examples, [tuple(long)])
        rows = plural(len(long), "row")
        what = f"{rows} longer than {max_tokens:,} tokens ({where}; the longest {max(tokens):,})."
        yield Problem(
            "warning",
            file,
            what,
            "Shorten or split them; a model with a short context cannot read them whole.",
        )


def check_prompt_template(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    """A beginning or a separator that all prompts share: the chat template makes it superfluous."""
    prompts = {e.prompt for e in examples}
    if len(prompts) < 10:
        return
    before, after = shared_affixes(prompts)
    after = after.strip() or _separator(prompts)
    if before.strip():
        what = f"all prompts begin with {quote(before)}."
        yield Problem("info", file, what, "Consider moving it into the instruction: users will not type it.")
    if after:
        what = f"all prompts end with {quote(after)}."
        fix = "Delete it: the chat template marks where a prompt ends, and users will not type it."
        yield Problem("warning", file, what, fix)


def check_completion_ending(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    """An end mark that all completions share; it would become part of every answer."""
    completions = {e.completion for e in examples}
    if len(completions) < 3:
        return
    ending = _separator(completions)
    if ending and ending not in {".", "!", "?", '"', ")", "%"}:
        what = f"all completions end with {quote(ending)}, which the model would learn to write."
        yield Problem("warning", file, what, "Delete it: the end of an answer is marked for you.")


def _separator(texts: set[str]) -> str:
    """The common ending from its first sign on, such as ` ->` or ` END`; no mere common letters."""
    mirrored = [t.rstrip()[::-1] for t in texts]
    common = common_prefix(min(mirrored), max(mirrored))[::-1]
    start = next((i for i, c in enumerate(common) if not c.isalnum()), len(common))
    return common[start:].strip()


def check_spaces(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    """Completions that begin or end with white space: the model would learn it, and labels differ by it."""
    stray = [i for i, e in enumerate(examples) if e.completion != e.completion.strip()]
    if stray:
        where = _lines(examples, [tuple(stray)])
        what = f"{plural(len(stray), 'completion')} with white space at the beginning or the end ({where})."
        yield Problem(
            "warning", file, what, "Strip it: older formats wanted a leading space, chat models do not."
        )


def check_labels(examples: Sequence[Example], task: Task, file: str) -> Iterator[Problem]:
    """Labels spelled in two ways, labels with a single example, one label that drowns the others."""
    if task.kind != "classify":
        return
    counts = Counter(e.completion for e in examples)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        spellings[normalise(label).replace("_", " ").replace("-", " ")].append(label)
    for same in spellings.values():
        if len(same) > 1:
            named = ", ".join(
                f"{quote(label, 40)} ({plural(counts[label], 'row')})" for label in sorted(same)
            )
            yield Problem(
                "warning", file, f"one label is spelled in different ways: {named}.", "Choose one spelling."
            )
    single = sorted(label for label, n in counts.items() if n == 1)
    if single:
        what = f"{plural(len(single), 'label')} with a single example: {_named(single)}."
        yield Problem("warning", file, what, "Add examples: with one, a label can be learned but not tested.")
    label, most = counts.most_common(1)[0]
    if most > 0.9 * len(examples):
        share = f"{most / len(examples):.0%} of the rows"
        what = f"{share} have the label {quote(label, 40)}; always saying it scores as high."
        yield Problem("warning", file, what, "Add examples of the other labels.")


def check_test_labels(
    train: Sequence[Example], test: Sequence[Example], task: Task, file: str
) -> Iterator[Problem]:
    """Labels that the test file asks for and that no training example shows."""
    if task.kind != "classify":
        return
    unseen = sorted({e.completion for e in test} - {e.completion for e in train})
    if unseen:
        what = f"{plural(len(unseen), 'label')} only in the test file: {_named(unseen)}."
        yield Problem("warning", file, what, "Add training examples of them, or correct their spelling.")


def _named(labels: Sequence[str]) -> str:
    more = "…" if len(labels) > _SHOWN else ""
    return ", ".join(quote(label, 40) for label in labels[:_SHOWN]) + more


def _lines(examples: Sequence[Example], groups: Sequence[tuple[int, ...]]) -> str:
    """`lines 3, 17; 20, 21`: the first few places."""
    shown = ["; ".join(", ".join(str(examples[i].line) for i in g[:_SHOWN]) for g in groups[:_SHOWN])]
    cut = len(groups) > _SHOWN or any(len(g) > _SHOWN for g in groups[:_SHOWN])
    return f"lines {shown[0]}{', …' if cut else ''}"
