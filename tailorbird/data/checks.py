"""What can be wrong with examples that parse: each check gives the problems it finds.

After the classic checks of prompt/completion files: too few rows, repeated rows, over-long rows, a
common separator at the prompts' end, a common ending or beginning of the completions, stray spaces;
and what those do not look at: contradictions and near-duplicates, labels spelled in two ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from tailorbird.data.duplicates import Ints, SharedParts, comparable_texts, near_groups, normalise
from tailorbird.data.keys import Keys, groups, is_on_disk, numbered
from tailorbird.data.problems import Problem, plural, quote
from tailorbird.data.splits import conflict_groups
from tailorbird.data.survey import Survey
from tailorbird.data.task import MAX_LABEL_CHARS, MAX_LABELS, is_classification
from tailorbird.records import Example

FEW_EXAMPLES = 50
_SHOWN = 5
_LOOKED_AT = 1000


def check_count(examples: Sequence[Example], file: str) -> Iterator[Problem]:
    """Too few examples for a verdict."""
    if 0 < len(examples) < FEW_EXAMPLES:
        what = f"{plural(len(examples), 'example')} are few; differences between arms will hardly be certain."
        yield Problem("warning", file, what, f"Label {FEW_EXAMPLES} or more; a few hundred are better.")


def check_duplicates(examples: Sequence[Example], keys: Keys, file: str) -> tuple[int, list[Problem]]:
    """How many rows repeat an earlier one (same prompt, same completion, normalised), and where."""
    repeated = groups(numbered(keys.prompts, keys.answers))
    extra = sum(len(group) - 1 for group in repeated)
    if not extra:
        return 0, []
    what = f"{plural(extra, 'row')} repeat an earlier one ({_lines(examples, repeated)})."
    return extra, [Problem("warning", file, what, "Delete them; one of each is kept when the data is split.")]


def check_near_duplicates(examples: Sequence[Example], file: str) -> tuple[int, list[Problem]]:
    """How many groups of prompts are nearly the same though not equal, and where; not on disk."""
    if is_on_disk(examples):
        what = f"near-duplicates were not looked for among {plural(len(examples), 'example')}: the file is large."
        fix = "Examples of dev and test may nearly equal one of train; a smaller file is searched."
        return 0, [Problem("info", file, what, fix)]
    texts = comparable_texts(examples)
    near = [g for g in near_groups(texts) if len({texts[i] for i in g}) > 1]
    if not near:
        return 0, []
    what = f"{plural(len(near), 'group')} of prompts are nearly the same ({_lines(examples, near)})."
    fix = "Nothing to do: each group is kept in one part of the split, so that none leaks into the test."
    return len(near), [Problem("info", file, what, fix)]


def check_conflicts(examples: Sequence[Example], keys: Keys, file: str) -> tuple[int, list[Problem]]:
    """How many prompts have contradicting completions; one problem each, with lines."""
    conflicts = conflict_groups(keys)
    problems = [_conflict(examples, group, file) for group in conflicts[:_SHOWN]]
    if len(conflicts) > _SHOWN:
        where = _lines(examples, conflicts[_SHOWN:])
        what = f"{len(conflicts) - _SHOWN:,} more prompts have contradicting completions ({where})."
        problems.append(Problem("warning", file, what, "Decide on one completion for each."))
    return len(conflicts), problems


def _conflict(examples: Sequence[Example], group: Ints, file: str) -> Problem:
    first: dict[str, int] = {}
    for i in group[:_LOOKED_AT]:
        example = examples[int(i)]
        first.setdefault(example.completion, example.line)
    asked = examples[int(group[0])]
    named = ", ".join(f"{quote(c, 40)} (line {line})" for c, line in list(first.items())[:_SHOWN])
    what = f"the prompt {quote(asked.prompt)} has different completions: {named}."
    fix = "Decide on one; until then these rows are used for training only, never to judge."
    return Problem("warning", f"{file}:{asked.line}", what, fix)


def check_lengths(examples: Sequence[Example], seen: Survey, max_tokens: int, file: str) -> Iterator[Problem]:
    """Rows whose prompt and completion together exceed `max_tokens`."""
    tokens = np.asarray(seen.prompt_tokens, dtype=np.int64) + np.asarray(seen.completion_tokens)
    long = np.flatnonzero(tokens > max_tokens)
    if len(long):
        rows = plural(len(long), "row")
        what = (
            f"{rows} longer than {max_tokens:,} tokens ({_lines(examples, [long])}; "
            f"the longest {int(tokens.max()):,})."
        )
        yield Problem(
            "warning",
            file,
            what,
            "Shorten or split them; a model with a short context cannot read them whole.",
        )


def check_prompt_template(prompts: SharedParts, file: str) -> Iterator[Problem]:
    """A beginning or a separator that all prompts share: the chat template makes it superfluous."""
    if prompts.num_distinct < 10:
        return
    before, after = prompts.affixes()
    after = after.strip() or prompts.separator()
    if before.strip():
        what = f"all prompts begin with {quote(before)}."
        yield Problem("info", file, what, "Consider moving it into the instruction: users will not type it.")
    if after:
        what = f"all prompts end with {quote(after)}."
        fix = "Delete it: the chat template marks where a prompt ends, and users will not type it."
        yield Problem("warning", file, what, fix)


def check_completion_ending(completions: SharedParts, file: str) -> Iterator[Problem]:
    """An end mark that all completions share; it would become part of every answer."""
    if completions.num_distinct < 3:
        return
    ending = completions.separator()
    if ending and ending not in {".", "!", "?", '"', ")", "%"}:
        what = f"all completions end with {quote(ending)}, which the model would learn to write."
        yield Problem("warning", file, what, "Delete it: the end of an answer is marked for you.")


def check_spaces(examples: Sequence[Example], seen: Survey, file: str) -> Iterator[Problem]:
    """Completions that begin or end with white space: the model would learn it, and labels differ by it."""
    if seen.stray:
        where = _lines(examples, [seen.stray])
        what = (
            f"{plural(len(seen.stray), 'completion')} with white space at the beginning or the end ({where})."
        )
        yield Problem(
            "warning", file, what, "Strip it: older formats wanted a leading space, chat models do not."
        )


def check_preferences(seen: Survey, file: str) -> Iterator[Problem]:
    """Answers that should not come: said, because techniques learn from them only where they are told to."""
    count = len(seen.prompt_tokens)
    if not seen.num_rejected:
        return
    if seen.num_rejected == count:
        what = f"{plural(count, 'preference')}: every example has a rejected answer."
        fix = (
            'fine_tune learns to prefer the completions with objective = "dpo" under [fine_tune] in tailor.toml; '
            "without it, it learns them alone."
        )
    else:
        what = f"{seen.num_rejected:,} of {plural(count, 'example')} with a rejected answer."
        fix = (
            'The completions are learnt and the rejected answers left out; fine_tune\'s objective = "dpo" needs one '
            "in every example."
        )
    yield Problem("info", file, what, fix)


def check_labels(counts: Mapping[str, int], file: str) -> Iterator[Problem]:
    """Labels spelled in two ways, labels with a single example, one label that drowns the others."""
    if not counts:
        return
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
    label, most = max(counts.items(), key=lambda item: item[1])
    total = sum(counts.values())
    if most > 0.9 * total:
        share = f"{most / total:.0%} of the rows"
        what = f"{share} have the label {quote(label, 40)}; always saying it scores as high."
        yield Problem("warning", file, what, "Add examples of the other labels.")


def check_one_completion(counts: Mapping[str, int], file: str) -> Iterator[Problem]:
    """One completion for everything: nothing can be learnt from it, and every arm that says it is right."""
    if len(counts) == 1 and sum(counts.values()) > 1:
        what = f"all examples have the completion {quote(next(iter(counts)), 40)}: always saying it is always right."
        yield Problem("warning", file, what, "Add examples of other completions; these tell no arms apart.")


def check_almost_labels(counts: Mapping[str, int], file: str) -> Iterator[Problem]:
    """Short completions that repeat and are yet no labels, because they are too many or too rare."""
    total = sum(counts.values())
    if len(counts) < 2 or is_classification(counts) or total < 1.5 * len(counts):
        return
    if max(map(len, counts)) <= MAX_LABEL_CHARS:
        what = (
            f"{plural(total, 'example')} with {len(counts):,} different short completions are read as free answers. "
            f"Labels would be at most {MAX_LABELS}, with three examples each on average and few single ones."
        )
        yield Problem(
            "warning", file, what, "If these are labels, add examples of the rare ones or join them."
        )


def check_test_labels(learnt: Iterable[str], asked: Iterable[str], file: str) -> Iterator[Problem]:
    """Labels that the test file asks for and that no training example shows."""
    unseen = sorted(set(asked) - set(learnt))
    if unseen:
        what = f"{plural(len(unseen), 'label')} only in the test file: {_named(unseen)}."
        yield Problem("warning", file, what, "Add training examples of them, or correct their spelling.")


def _named(labels: Sequence[str]) -> str:
    more = "…" if len(labels) > _SHOWN else ""
    return ", ".join(quote(label, 40) for label in labels[:_SHOWN]) + more


def _lines(examples: Sequence[Example], found: Sequence[Sequence[int] | Ints]) -> str:
    """`lines 3, 17; 20, 21`: the first few places."""
    shown = "; ".join(", ".join(str(examples[int(i)].line) for i in g[:_SHOWN]) for g in found[:_SHOWN])
    cut = len(found) > _SHOWN or any(len(g) > _SHOWN for g in found[:_SHOWN])
    return f"lines {shown}{', …' if cut else ''}"
