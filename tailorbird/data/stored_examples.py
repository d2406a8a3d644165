"""Examples that stay on disk: where each row lies is kept in arrays, a row is read when asked for."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from tailorbird.data.columns import Columns
from tailorbird.data.duplicates import Ints
from tailorbird.data.keys import MOST_NAMES, Keys, KeysBuilder
from tailorbird.data.problems import RowFault
from tailorbird.data.row_shapes import examples_of, to_row
from tailorbird.data.storage import cache_folder
from tailorbird.errors import DataError
from tailorbird.records import Example

IN_MEMORY_BYTES = 64 * 2**20
"""Up to this many bytes of examples are kept in memory, as a tuple."""


class StoredExamples(Sequence[Example]):
    """Examples of a file of JSON lines, parsed when asked for; 18 bytes each beside their `keys`."""

    def __init__(self, name: str, columns: Columns | None, places: _Places) -> None:
        self._name, self._columns, self._places = name, columns, places
        self._state = _state(places.file)
        self.keys: Keys = places.keys.keys()

    def __len__(self) -> int:
        return len(self._places.starts)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return ExampleView(self, np.arange(len(self))[index])
        return self._read(range(len(self))[index])

    def _read(self, index: int) -> Example:
        places = self._places
        if _state(places.file) != self._state:
            raise self._changed()
        raw = os.pread(places.file.fileno(), places.sizes[index], places.starts[index])
        try:
            row = json.loads(raw)
            row = self._columns.rename(row) if self._columns else row
            return examples_of(row, self._name, places.lines[index])[places.parts[index]]
        except (ValueError, AttributeError, IndexError, RowFault):
            raise self._changed() from None

    def _changed(self) -> DataError:
        return DataError(
            f"{self._name}: the file was changed while it was in use; expected it to stay as it was read. "
            "Leave it alone, and start again."
        )


class ExampleView(Sequence[Example]):
    """Some of the examples of a larger set, in an order of their own."""

    def __init__(self, examples: Sequence[Example], indices: Ints) -> None:
        self._examples, self._indices = examples, indices

    @cached_property
    def keys(self) -> Keys | None:
        """The examples' keys, where the larger set has them."""
        known = getattr(self._examples, "keys", None)
        return known.at(self._indices) if isinstance(known, Keys) else None

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return ExampleView(self._examples, self._indices[index])
        return self._examples[int(self._indices[range(len(self))[index]])]


class _Places:
    """Where in `file` rows of examples lie, which line each has, and which of its row's examples each is."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        weakref.finalize(self, file.close)
        self.starts, self.sizes = array("Q"), array("I")
        self.lines, self.parts = array("I"), array("H")
        self.keys = KeysBuilder(MOST_NAMES)

    def add(self, start: int, size: int, part: int, example: Example) -> None:
        self.starts.append(start)
        self.sizes.append(size)
        self.lines.append(example.line)
        self.parts.append(part)
        self.keys.add(example)


class Gathering:
    """Takes the examples of a file as they are read, and keeps them in memory or on disk by their size.

    Args:
        path: the file.
        lines: whether it is plain JSON lines, which can be read again where they lie; the examples
            of any other file are written to a temporary one once they are too many.
        columns: what its prompt and completion columns are called.
    """

    def __init__(self, path: Path, *, lines: bool, columns: Columns | None) -> None:
        self._path, self._lines, self._columns = path, lines, columns
        self._kept: list[Example] = []
        self._size = 0
        self._places: _Places | None = None
        if lines and path.stat().st_size > IN_MEMORY_BYTES:
            self._places = _Places(path.open("rb"))

    def __len__(self) -> int:
        return len(self._places.starts) if self._places else len(self._kept)

    def add(self, examples: Sequence[Example], start: int, size: int) -> None:
        """Takes the examples of one row, which lies at `start` in the file and is `size` bytes long."""
        if self._places and self._lines:
            for part, example in enumerate(examples):
                self._places.add(start, size, part, example)
        elif self._places:
            self._write(examples)
        else:
            self._kept += examples
            self._size += sum(len(m.content) for e in examples for m in e.messages)
            self._size += sum(len(e.completion) for e in examples)
            if self._size > IN_MEMORY_BYTES and not self._lines:
                self._move_to_disk()

    def examples(self) -> Sequence[Example]:
        """All that was taken: a tuple, or examples on disk."""
        if self._places is None:
            return tuple(self._kept)
        self._places.file.flush()
        return StoredExamples(self._path.name, self._columns if self._lines else None, self._places)

    def _move_to_disk(self) -> None:
        # not in /tmp, which may be memory
        self._places = _Places(tempfile.TemporaryFile(dir=cache_folder()))  # noqa: SIM115 -- closed by the places
        self._write(self._kept)
        self._kept = []

    def _write(self, examples: Sequence[Example]) -> None:
        assert self._places is not None
        file = self._places.file
        for example in examples:
            line = json.dumps(to_row(example), ensure_ascii=False).encode() + b"\n"
            try:
                start = file.tell()
                file.write(line)
            except OSError as error:
                raise DataError(
                    f"{self._path.name}: its examples cannot be unpacked into {cache_folder()} "
                    f"({error.strerror}). Make room there, or name another folder with TAILORBIRD_HOME."
                ) from None
            self._places.add(start, len(line), 0, example)


def _state(file: IO[bytes]) -> tuple[Any, ...]:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns
