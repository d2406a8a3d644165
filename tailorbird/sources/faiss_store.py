"""Vectors in faiss: in eight bits, sorted into cells of which a search reads the nearest.

An inverted file (Jégou, Douze & Schmid 2011) with a scalar quantiser: a quarter of the memory, and candidates enough
for the index to compare in full. How many cells a search reads is measured when it is filled: so many that on a sample
.997 of the true ten best are found. The cells skip what is not allowed, and the smaller the part that is left,
the more of them are read, so that nothing is missed for the sake of what may not be seen.
"""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.data.storage import atomic_folder
from tailorbird.errors import IntegrityError, Unsupported
from tailorbird.sources.optional import need_for_store
from tailorbird.sources.vector_store import (
    Allowed,
    Batch,
    Numbers,
    Vectors,
    nearest_of,
    questions_between,
    spread,
)

CELLS, FACTS, HALVES = "cells.faiss", "facts.json", "halves.tmp"
CELLS_OF_ROOT, LEAST_PER_CELL = 2, 10
"""Twice the root of the number of vectors makes so many cells: fewer of them are read for the same recall than of half
as many, and placing them takes half a minute at a million."""
TRAINED_PER_CELL = 50
ROUNDS = 8
"""Rounds of k-means that place the cells."""
WANTED_RECALL = 0.997
"""On a sample of questions made from its own vectors; real ones find up to .01 less."""
LEAST_READ = 40_000
"""Vectors, in about 2 ms: no fewer are read whatever was measured, since `questions_between` may promise too much."""
SAMPLE = 200
NEAREST = 10
NOMINATED = 50
"""Among so many candidates the ten best are looked for, when it is measured."""
CHUNK = 8_192


@dataclass(frozen=True)
class Facts:
    """What was measured when it was filled. `probed` is how many cells a search reads, `recall` what that finds."""

    count: int
    dimensions: int
    cells: int
    probed: int
    recall: float
    size_bytes: int


class FaissStore:
    """Vectors in a file of a folder; see the module.

    Args:
        folder: where it is, or will be once it is filled.
        dimensions: of the vectors.

    Raises:
        Unsupported: faiss is not installed.
    """

    grows = False

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder = folder
        self.dimensions = dimensions
        need_for_store("faiss", "faiss")
        import faiss

        self._faiss: Any = faiss
        self._loaded: tuple[Any, Facts] | None = None
        self._lock = threading.Lock()

    def count(self) -> int:
        return self._opened()[1].count

    def fill(self, batches: Iterator[Batch], count: int) -> None:
        numbers = np.empty(count, dtype=np.int64)
        with atomic_folder(self.folder, replace=True) as folder:
            held = 0
            with (folder / HALVES).open("wb") as file:
                for batch in batches:
                    file.write(batch.vectors.astype(np.float16).tobytes())
                    numbers[held : held + len(batch.numbers)] = batch.numbers
                    held += len(batch.numbers)
            index, facts = self._filled(folder, numbers[:held])
            (folder / HALVES).unlink()
            self._faiss.write_index(index, str(folder / CELLS))
            facts = Facts(**{**asdict(facts), "size_bytes": (folder / CELLS).stat().st_size})
            (folder / FACTS).write_text(json.dumps(asdict(facts)))
        self._loaded = None

    def change(self, gone: Numbers, batches: Iterator[Batch]) -> None:  # noqa: ARG002
        raise Unsupported(
            f"{self.folder}: faiss's cells don't grow. Fill them anew, as `grows` says; an index does so by itself."
        )

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        index, facts = self._opened()
        if k <= 0 or not facts.count or (allowed is not None and not allowed.count):
            return np.empty(0, dtype=np.int64)
        # With more asked for than the cells hold on average, more of them are read.
        needed = math.ceil(k * facts.cells / facts.count)
        usual = max(facts.probed, math.ceil(LEAST_READ * facts.cells / facts.count))
        if allowed is None:
            return self._nearest(index, vector, k, min(facts.cells, usual + needed), None)
        share = allowed.count / facts.count
        # The nearest of a part lie further out than those of all: of 0.5 % nearly all cells are read.
        probed = math.ceil((usual + needed / share) / math.sqrt(share))
        bits = np.packbits(allowed.flags, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        return self._nearest(index, vector, k, min(facts.cells, probed), selector)

    def remove(self) -> None:
        self._loaded = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        self._loaded = None

    def _nearest(self, index: Any, vector: Vectors, k: int, probed: int, selector: Any) -> Numbers:
        parameters = self._faiss.IVFSearchParameters(nprobe=probed, sel=selector)
        _, found = index.search(vector[None], k, params=parameters)
        return found[0][found[0] >= 0]

    def _filled(self, folder: Path, numbers: Numbers) -> tuple[Any, Facts]:
        """The cells with all vectors, and how they are best searched."""
        held = len(numbers)
        if not held:
            return self._faiss.IndexFlatIP(self.dimensions), Facts(0, self.dimensions, 1, 1, 1.0, 0)
        halves = np.memmap(folder / HALVES, np.float16, "r", shape=(held, self.dimensions))
        cells = max(1, min(round(CELLS_OF_ROOT * math.sqrt(held)), held // LEAST_PER_CELL))
        index = self._faiss.index_factory(
            self.dimensions, f"IVF{cells},SQ8", self._faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter = ROUNDS
        # It says on stdout what it would rather have; these are enough to place cells whose number is measured after.
        index.cp.min_points_per_centroid = 1
        index.train(halves[spread(held, max(cells * TRAINED_PER_CELL, 10_000))].astype(np.float32))
        index.parallel_mode = 1  # One question's cells are shared out between the processors.
        for begin in range(0, held, CHUNK):
            index.add_with_ids(
                halves[begin : begin + CHUNK].astype(np.float32), numbers[begin : begin + CHUNK]
            )
        asked = questions_between(halves[spread(held, 2 * SAMPLE)].astype(np.float32))
        chunks = (
            (numbers[begin : begin + CHUNK], halves[begin : begin + CHUNK].astype(np.float32))
            for begin in range(0, held, CHUNK)
        )
        true = [set(row) for row in nearest_of(asked, chunks, NEAREST).tolist()]
        probed = min(4, cells)
        while True:
            found = [set(self._nearest(index, one, NOMINATED, probed, None).tolist()) for one in asked]
            hits = sum(len(some & best) for some, best in zip(found, true, strict=True))
            recall = hits / sum(map(len, true))
            if recall >= WANTED_RECALL or probed == cells:
                return index, Facts(held, self.dimensions, cells, probed, recall, 0)
            probed = min(cells, math.ceil(probed * 1.3))

    def _opened(self) -> tuple[Any, Facts]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[Any, Facts]:
        try:
            facts = Facts(**json.loads((self.folder / FACTS).read_text()))
            size = (self.folder / CELLS).stat().st_size
            if (size, facts.dimensions) != (facts.size_bytes, self.dimensions):
                raise ValueError(f"{size} bytes of {facts.dimensions} dimensions")  # noqa: TRY301
            index = self._faiss.read_index(str(self.folder / CELLS))
            if index.ntotal != facts.count:
                raise ValueError(f"{index.ntotal} vectors, expected {facts.count}")  # noqa: TRY301
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise IntegrityError(
                f"{self.folder}: faiss's vectors can't be opened: {' '.join(str(error).split())[:200]}. "
                "They are written again by the next `tailor knowledge sync`."
            ) from None
        if facts.count:
            index.parallel_mode = 1
        return index, facts
