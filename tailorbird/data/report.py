"""The dataset report: what is in a file of examples, what is wrong with it, whether it can be used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.data import checks
from tailorbird.data.columns import Columns
from tailorbird.data.documents import KNOWN_KINDS, Unreadable, read_folder
from tailorbird.data.duplicates import comparable_texts, near_groups
from tailorbird.data.formats import scan
from tailorbird.data.keys import Keys, groups, is_on_disk, keys_of, numbered
from tailorbird.data.problems import Problem, plural, quote
from tailorbird.data.splits import Splits, split
from tailorbird.data.survey import CHARS_PER_TOKEN, CountTokens, Survey, estimated_tokens, survey
from tailorbird.data.task import TaskKind, is_classification, task_of
from tailorbird.errors import DataError
from tailorbird.records import Document, Example


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in tokens."""

    min: int
    median: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """The split that would be made. `num_leaking` examples nearly equal one of another part: always 0."""

    num_train: int
    num_dev: int
    num_test: int
    fingerprint: str
    num_leaking: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DocumentsSummary:
    """A folder of documents: `by_type` counts readable files by extension, `unreadable` says why not."""

    num_documents: int
    num_chars: int
    by_type: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DatasetReport:
    """All that `tailor check` has to say about a file.

    `num_rows` counts the file's rows, blank lines left out; `labels` maps each label to its rows, most first, and
    is empty for free answers. `tokens_estimated` is True where no tokenizer was at hand.
    """

    file: str
    num_rows: int
    num_examples: int
    task: TaskKind | None
    labels: dict[str, int]
    prompt_tokens: Lengths | None
    completion_tokens: Lengths | None
    tokens_estimated: bool
    num_duplicates: int
    num_near_groups: int
    num_conflicts: int
    num_removed_for_test: int
    split: SplitSummary | None
    documents: DocumentsSummary | None
    problems: tuple[Problem, ...] = field(default=())

    @property
    def trainable(self) -> bool:
        """Whether nothing stands in the way: no problem is an error."""
        return not any(p.severity == "error" for p in self.problems)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {**asdict(self), "trainable": self.trainable}

    def to_text(self, max_problems: int = 20) -> str:
        """The report for a terminal, at most `max_problems` of each severity."""
        sections = [self._facts(), self._problem_lines(max_problems)]
        verdict = (
            "Can be trained on." if self.trainable else "Cannot be trained on until the errors are fixed."
        )
        return "\n".join([*(line for section in sections for line in section), "", verdict]) + "\n"

    def _facts(self) -> list[str]:
        lines = [f"{self.file}: {plural(self.num_examples, 'example')} in {plural(self.num_rows, 'row')}"]
        if self.task:
            lines.append(f"  task         {_task_line(self.task, self.labels)}")
        for name, lengths in (("prompt", self.prompt_tokens), ("completion", self.completion_tokens)):
            if lengths:
                unit = (
                    f"tokens (estimated: characters / {CHARS_PER_TOKEN})"
                    if self.tokens_estimated
                    else "tokens"
                )
                numbers = f"min {lengths.min}, median {lengths.median}, p95 {lengths.p95}, max {lengths.max}"
                lines.append(f"  {name:<12} {numbers} {unit}")
        counted = [
            plural(self.num_duplicates, "repeated row"),
            plural(self.num_near_groups, "near-duplicate group"),
            plural(self.num_conflicts, "contradicted prompt"),
        ]
        lines.append(f"  repetition   {', '.join(counted)}")
        if self.split:
            s = self.split
            lines.append(
                f"  split        {s.num_train} train, {s.num_dev} dev, {s.num_test} test; "
                f"{s.num_leaking} leaking"
            )
            lines += [f"               {note}" for note in s.notes]
        if self.documents:
            lines.append(f"  documents    {_documents_line(self.documents)}")
        return lines

    def _problem_lines(self, limit: int) -> list[str]:
        lines: list[str] = []
        for severity in ("error", "warning", "info"):
            found = [p for p in self.problems if p.severity == severity]
            lines += [f"{severity:<8} {problem}" for problem in found[:limit]]
            if len(found) > limit:
                lines.append(f"{severity:<8} … and {len(found) - limit:,} more")
        return ["", *lines] if lines else []


def check(
    path: Path,
    *,
    documents: Path | None = None,
    test: Path | None = None,
    columns: Columns | None = None,
    count_tokens: CountTokens | None = None,
    max_tokens: int = 2048,
) -> DatasetReport:
    """Reads the whole file and reports everything at once.

    Args:
        path: Examples, in any form that `read_examples` takes.
        documents: A folder of documents to summarise as well.
        test: A test file of its own, checked for leakage and unknown labels.
        columns: Which columns hold the prompt and the completion, where their names don't tell.
        count_tokens: Counts the tokens of a text; None estimates them, and the report says so.
        max_tokens: A row longer than this, prompt and completion together, is reported.

    Raises:
        NotFound: A named file or folder does not exist.
        DataError: A named file is a folder, or cannot be opened.
    """
    examples, problems, num_rows = scan(path, columns)
    keys = keys_of(examples)
    task = task_of(keys.counts, longest=keys.longest) if examples else None
    labels = _labels(keys)
    seen = survey(examples, count_tokens or estimated_tokens)
    counts, found = _check_rows(examples, keys, seen, max_tokens=max_tokens, file=path.name)
    problems += found
    tested = _Tested(test, _test_examples(test, columns, problems)) if test else None
    splits, num_removed = _check_split(examples, tested, labels, path.name, problems)
    return DatasetReport(
        file=path.name,
        num_rows=num_rows,
        num_examples=len(examples),
        task=task.kind if task else None,
        labels=dict(sorted(labels.items(), key=lambda item: -item[1])),
        prompt_tokens=_lengths(seen.prompt_tokens),
        completion_tokens=_lengths(seen.completion_tokens),
        tokens_estimated=count_tokens is None,
        num_duplicates=counts[0],
        num_near_groups=counts[1],
        num_conflicts=counts[2],
        num_removed_for_test=num_removed,
        split=_summary(splits) if splits else None,
        documents=_documents(documents, examples, path, test, problems) if documents else None,
        problems=tuple(problems),
    )


def _check_rows(
    examples: Sequence[Example], keys: Keys, seen: Survey, *, max_tokens: int, file: str
) -> tuple[tuple[int, int, int], list[Problem]]:
    """Repeated rows, groups of near-duplicates, contradicted prompts; and every problem of the rows."""
    num_duplicates, repeated = checks.check_duplicates(examples, keys, file)
    num_near, near = checks.check_near_duplicates(examples, file)
    num_conflicts, conflicts = checks.check_conflicts(examples, keys, file)
    problems = [
        *checks.check_count(examples, file),
        *repeated,
        *conflicts,
        *near,
        *checks.check_lengths(examples, seen, max_tokens, file),
        *checks.check_prompt_template(seen.prompts, file),
        *checks.check_completion_ending(seen.completions, file),
        *checks.check_spaces(examples, seen, file),
        *checks.check_preferences(seen, file),
        *checks.check_one_completion(keys.counts or {}, file),
        *checks.check_almost_labels(keys.counts or {}, file),
        *checks.check_labels(_labels(keys), file),
    ]
    return (num_duplicates, num_near, num_conflicts), problems


def _labels(keys: Keys) -> dict[str, int]:
    """How often each label comes; empty if the completions are no labels."""
    return keys.counts if keys.counts and is_classification(keys.counts) else {}


@dataclass(frozen=True)
class _Tested:
    """A test file of its own, and its examples."""

    path: Path
    examples: Sequence[Example]


def _check_split(
    examples: Sequence[Example],
    test: _Tested | None,
    labels: dict[str, int],
    file: str,
    problems: list[Problem],
) -> tuple[Splits | None, int]:
    """The split that would be made, and how many rows a test file of its own takes out of training."""
    splits = _try_split(examples, test.examples if test else None, file, problems)
    if not (splits and test and test.examples):
        return splits, 0
    if labels:
        learnt = {*(keys_of(splits.train).counts or ()), *(keys_of(splits.dev).counts or ())}
        problems += checks.check_test_labels(learnt, keys_of(test.examples).counts or (), test.path.name)
    removed = splits.num_removed["in_test"] + splits.num_removed["near_test"]
    if removed:
        what = f"{plural(removed, 'row')} equal or nearly equal to one of {test.path.name}."
        fix = "Nothing to do: they are left out of training, or the score would lie."
        problems.append(Problem("warning", file, what, fix))
    return splits, removed


def _test_examples(test: Path, columns: Columns | None, problems: list[Problem]) -> Sequence[Example]:
    examples, found, _ = scan(test, columns)
    problems += found
    return examples


def _try_split(
    examples: Sequence[Example], test: Sequence[Example] | None, file: str, problems: list[Problem]
) -> Splits | None:
    if not examples:
        return None
    try:
        return split(examples, test_examples=test or None)
    except DataError as error:
        problems.append(Problem("error", file, str(error)))
        return None


def _summary(splits: Splits) -> SplitSummary:
    train, dev, test = map(len, (splits.train, splits.dev, splits.test))
    return SplitSummary(train, dev, test, splits.fingerprint, _num_leaking(splits), splits.notes)


def _num_leaking(splits: Splits) -> int:
    """Examples that nearly equal one of another part; on disk those whose prompt equals one."""
    parts = (splits.train, splits.dev, splits.test)
    part_of = np.repeat(np.arange(3), [len(part) for part in parts])
    if any(is_on_disk(part) for part in parts):
        near = groups(numbered(np.concatenate([keys_of(part).texts for part in parts])))
    else:
        near = near_groups(comparable_texts([e for part in parts for e in part]))
    return sum(len(group) for group in near if len(set(part_of[list(group)].tolist())) > 1)


def _lengths(counts: Sequence[int]) -> Lengths | None:
    if not counts:
        return None
    ordered = np.sort(np.asarray(counts))
    # nearest rank: a length that some row really has
    at = [int(ordered[math.ceil(q * len(ordered)) - 1]) for q in (0.5, 0.95)]
    return Lengths(int(ordered[0]), at[0], at[1], int(ordered[-1]))


def _task_line(task: TaskKind, labels: dict[str, int]) -> str:
    if task == "answer":
        return "free answers"
    (most, n), (least, m) = next(iter(labels.items())), list(labels.items())[-1]
    return f"classification, {len(labels)} labels ({quote(most, 40)} {n} to {quote(least, 40)} {m})"


def _documents_line(summary: DocumentsSummary) -> str:
    types = ", ".join(f"{count} {name}" for name, count in summary.by_type.items())
    text = f"{plural(summary.num_documents, 'file')} ({types}), {summary.num_chars:,} characters"
    return f"{text}, {len(summary.unreadable)} unreadable" if summary.unreadable else text


def _documents(
    folder: Path, examples: Sequence[Example], path: Path, test: Path | None, problems: list[Problem]
) -> DocumentsSummary:
    types: Counter[str] = Counter()
    unreadable: list[tuple[str, str]] = []
    known: set[str] = set()
    num_chars = 0
    for item in read_folder(folder):
        if isinstance(item, Document):
            types[Path(item.id).suffix.lower()] += 1
            num_chars += len(item.text)
            known.add(item.id)
        else:
            unreadable.append((item.id, item.reason))
            problems.append(_unreadable_problem(item))
    if not known:
        what = f"no document can be read; expected {KNOWN_KINDS}."
        problems.append(Problem("error", folder.name, what, "Name the folder that holds them."))
    problems += [
        Problem(
            "error",
            one.name,
            f"lies among the documents in {folder.name}, where its answers would be looked up.",
            "Move it out.",
        )
        for one in (path, test)
        if one and one.resolve().is_relative_to(folder.resolve())
    ]
    problems += _unknown_documents(examples, known, folder, path.name)
    return DocumentsSummary(len(known), num_chars, dict(types.most_common()), tuple(unreadable))


def _unreadable_problem(item: Unreadable) -> Problem:
    return Problem("warning", item.id, item.reason, "It is left out of the knowledge.")


def _unknown_documents(
    examples: Sequence[Example], known: set[str], folder: Path, file: str
) -> list[Problem]:
    num_lost, first = 0, None
    for example in examples:
        if example.document and example.document not in known:
            num_lost, first = num_lost + 1, first or example
    if first is None:
        return []
    rows = plural(num_lost, "row")
    what = f"{rows} with a document that is not in {folder.name} (first {quote(first.document)})."
    return [
        Problem(
            "warning", f"{file}:{first.line}", what, "Give its path inside the folder, with forward slashes."
        )
    ]
