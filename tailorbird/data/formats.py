"""Reading examples: any usual file of rows, of any usual shape, mixed as they come.

    {"prompt": "My card has not come", "completion": "card_arrival"}
    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}

Rows may name their `document`. `row_shapes` tells the shapes apart, `file_forms` the files. A file
that cannot be used as it is, is explained, never guessed at.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailorbird.data.columns import Columns, in_doubt, recognised
from tailorbird.data.file_forms import Form, empty, form_of, rows_of, without_nulls
from tailorbird.data.json_rows import Row
from tailorbird.data.problems import Problem, RowFault, plural, quote
from tailorbird.data.row_shapes import examples_of, is_known_shape, to_row, unused_keys
from tailorbird.data.stored_examples import Gathering
from tailorbird.errors import DataError, NotFound
from tailorbird.records import Example

MOST_FAULTS = 1000
"""So many bad rows are named one by one; further ones are counted."""


class Scan(NamedTuple):
    """What a file holds: its good rows as examples, every problem, and how many rows there are."""

    examples: Sequence[Example]
    problems: list[Problem]
    num_rows: int


def read_examples(path: Path, columns: Columns | None = None) -> Sequence[Example]:
    """All examples of a file, in file order; strict: the first bad row is an error.

    A tuple, or, where they take more than 64 MB, a sequence that reads each from disk when asked.

    Args:
        path: JSON lines, a JSON array, CSV, TSV or Parquet, each also in gzip.
        columns: which columns hold the prompt and the completion, where their names don't tell.

    Raises:
        NotFound: There is no such file.
        DataError: The file or a row cannot be used; says how many further problems there are.
        Unsupported: The file is Parquet and pyarrow is not installed.
    """
    examples, problems, _ = scan(path, columns)
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        more = len(errors) - 1
        hint = f" ({plural(more, 'more problem')}: tailor check {path.name} lists them.)" if more else ""
        raise DataError(f"{errors[0]}{hint}")
    return examples


def scan(path: Path, columns: Columns | None = None) -> Scan:
    """The good rows as examples, and every problem; each bad row gives exactly one error.

    Columns that were recognised and keys that are not used are an `info` each. Raises only where
    there is no file to read.

    Raises:
        NotFound: There is no such file.
        DataError: It is a folder, or the system refuses to open it.
        Unsupported: The file is Parquet and pyarrow is not installed.
    """
    _refuse_no_file(path)
    form = form_of(path)
    if isinstance(form, Problem):
        return Scan((), [form], 0)
    return _Scanner(path, form, columns or None).scan()


def parse_row(row: Mapping[str, Any], file: str = "", line: int = 0) -> Example:
    """One decoded JSON object as an example; of several answers that are learnt, the last.

    Raises:
        DataError: The row is no example; names `file:line`, what was got, what was expected, a fix.
    """
    try:
        return examples_of(row, file, line)[-1]
    except RowFault as fault:
        raise DataError(str(Problem("error", f"{file}:{line}", fault.what, fault.fix))) from None


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Writes a JSONL file that `read_examples` reads back."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(to_row(e), ensure_ascii=False) + "\n" for e in examples)


class _Scanner:
    """One pass over a file."""

    def __init__(self, path: Path, form: Form, columns: Columns | None) -> None:
        self._path, self._form, self._columns = path, form, columns
        self._examples: Gathering | None = None
        self._problems: list[Problem] = []
        self._unused: Counter[str] = Counter()
        self._num_rows = self._num_faults = 0

    def scan(self) -> Scan:
        with contextlib.closing(rows_of(self._path, self._form)) as rows:
            for row in rows:
                if isinstance(row, Problem):
                    self._problems.append(row)
                    break
                if self._examples is None:
                    doubt = self._find_columns(row)
                    if doubt:
                        return Scan((), [doubt], 0)
                    self._examples = Gathering(self._path, lines=self._form.in_place, columns=self._columns)
                self._num_rows += 1
                self._take(row, self._examples)
        return Scan(self._examples.examples() if self._examples else (), self._all_problems(), self._num_rows)

    def _take(self, row: Row, examples: Gathering) -> None:
        try:
            if isinstance(row.fields, RowFault):
                raise row.fields
            fields = without_nulls(row.fields) if self._form.name == "Parquet" else row.fields
            fields = self._columns.rename(fields) if self._columns else fields
            examples.add(examples_of(fields, self._path.name, row.number), row.start, row.size)
            self._unused.update(unused_keys(fields))
        except RowFault as fault:
            self._num_faults += 1
            if self._num_faults <= MOST_FAULTS:
                self._problems.append(Problem("error", self._place(row.number), fault.what, fault.fix))

    def _place(self, number: int) -> str:
        return (
            f"{self._path.name}:{number}"
            if self._form.counts == "line"
            else f"{self._path.name}: row {number}"
        )

    def _find_columns(self, first: Row) -> Problem | None:
        """Decides by the first row what the columns are; a Problem where a table's are in doubt."""
        if self._columns or isinstance(first.fields, RowFault) or is_known_shape(list(first.fields)):
            return None
        names = list(first.fields)
        self._columns = recognised(names)
        if self._columns:
            prompt, completion = quote(self._columns.prompt), quote(self._columns.completion)
            what = f"column {prompt} is read as the prompt, column {completion} as the completion."
            fix = "If that is wrong, give --prompt-column and --completion-column."
            self._problems.append(Problem("info", self._path.name, what, fix))
        elif self._form.name in ("table", "Parquet"):
            return Problem("error", self._path.name, *in_doubt(names))
        return None

    def _all_problems(self) -> list[Problem]:
        if not self._num_rows and not self._problems:
            return [empty(self._path)]
        if self._num_faults > MOST_FAULTS:
            what = f"{plural(self._num_faults - MOST_FAULTS, 'more row')} cannot be read."
            self._problems.append(Problem("error", self._path.name, what, "Mend those above first."))
        return [*self._problems, *(_unused_key(self._path, *item) for item in sorted(self._unused.items()))]


def _unused_key(path: Path, key: str, count: int) -> Problem:
    what = f"key {quote(key)} in {plural(count, 'row')} is not used."
    return Problem("info", path.name, what, "Nothing to do, unless it was meant as part of the prompt.")


def _refuse_no_file(path: Path) -> None:
    if path.is_dir():
        known = {".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz"}
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in known)[:5]
        fix = (
            f"Name one of its files: {', '.join(inside)}." if inside else "Name a JSONL, CSV or Parquet file."
        )
        raise DataError(f"{path}: is a folder; expected a file of examples. {fix}")
    if not path.exists():
        near = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        fix = f"Did you mean {near[0]}?" if near else "Check the name and the folder you are in."
        raise NotFound(f"{path}: there is no such file. {fix}")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}). Check its permissions.") from None


def _names_beside(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


__all__ = ["Scan", "parse_row", "read_examples", "scan", "to_row", "write_examples"]
