"""Vectors in LanceDB: a folder, or object storage, for millions of them."""

from __future__ import annotations

import math
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.errors import IntegrityError
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

INDEXED_FROM = 20_000
"""Fewer vectors are compared one by one, which is exact."""
FEW = 20_000
"""So few allowed passages are asked for by number, and compared one by one."""
WANTED_RECALL, SAMPLE, NEAREST = 0.997, 60, 10
"""So many of the nearest must be found, of a sample of questions made from its own vectors, when it is indexed."""
LEAST_READ, STEPS = 100_000, 10
"""Vectors that are read at least, since questions may be unlike the passages, and how many shares are tried."""
CHUNK = 20_000
"""Vectors that are compared with all questions of the sample at a time."""
DISTANCE = "l2"
"""Orders unit vectors as their products do. Partitions made by products find less: .965 where these find .994, of the
ten nearest of real questions in a fifth of 100,000 vectors."""
PROBED_SHARE = 0.4
"""How many of the partitions are searched where nothing was measured."""
PROBED = "tailorbird:partitions"
"""What the vectors' column says of itself: how many partitions a search reads."""
REFINED = 10
"""So many times as many candidates are compared by their whole vectors."""
TABLE = "vectors"


class LanceDBStore:
    """A table of vectors in half precision with an IVF_SQ index: partitions of vectors in eight bits.

    Args:
        folder: where it is, or will be once it is filled.
        dimensions: of the vectors.
        place: instead of the folder: another, or object storage such as `s3://bucket/knowledge`. What else is there
            stays as it is.
        table: its name there; several indexes may share a place.

    Raises:
        Unsupported: lancedb is not installed.
    """

    grows = True

    def __init__(self, folder: Path, dimensions: int, place: str = "", table: str = TABLE) -> None:
        self.place = place or str(folder)
        self.table = table
        self._own = not place
        self.dimensions = dimensions
        need_for_store("lancedb", "lancedb")
        import lancedb

        self._lancedb: Any = lancedb
        self._table: Any = None

    def count(self) -> int:
        return int(self._opened().count_rows())

    def fill(self, batches: Iterator[Batch], count: int) -> None:
        del count
        import pyarrow as pa
        from lancedb.index import BTree, LabelList

        rows = pa.RecordBatchReader.from_batches(self._schema(), map(self._rows, batches))
        mode = "overwrite" if self._is_there() else "create"
        table = self._lancedb.connect(self.place).create_table(self.table, data=rows, mode=mode)
        self._index_vectors(table)
        table.create_index("terms", config=LabelList())
        table.create_index("number", config=BTree())
        self._table = None

    def change(self, gone: Numbers, batches: Iterator[Batch]) -> None:
        import pyarrow as pa

        table = self._opened()
        self._delete(table, gone)
        for batch in batches:
            self._delete(table, batch.numbers)
            table.add(pa.Table.from_batches([self._rows(batch)]))
        table.optimize()
        if len(table.list_indices()) < 3:
            self._index_vectors(table)
        self._table = None

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        if k <= 0:
            return np.empty(0, dtype=np.int64)
        table = self._opened()
        query = _query(table, vector).nprobes(_num_probed(table, allowed))
        if allowed is not None:
            few = allowed.count <= FEW
            query = query.where(_condition(allowed, few=few), prefilter=True)
            if few:
                query = query.bypass_vector_index()
        return _nearest(query, k)

    def remove(self) -> None:
        self._table = None
        if self._own:
            shutil.rmtree(self.place, ignore_errors=True)
        else:
            self._lancedb.connect(self.place).drop_table(self.table, ignore_missing=True)

    def close(self) -> None:
        self._table = None

    def _is_there(self) -> bool:
        try:
            self._opened()
        except IntegrityError:
            return False
        return True

    def _opened(self) -> Any:
        if self._table is None:
            try:
                self._table = self._lancedb.connect(self.place).open_table(self.table)
            except (ValueError, RuntimeError, OSError) as error:
                raise IntegrityError(
                    f"{self.place}: LanceDB's vectors can't be opened: {str(error)[:200]}. "
                    "They are written again by the next `tailor knowledge sync`."
                ) from None
        return self._table

    def _index_vectors(self, table: Any) -> None:
        from lancedb.index import IvfSq

        count = table.count_rows()
        if count >= INDEXED_FROM:
            config = IvfSq(distance_type=DISTANCE, num_partitions=_num_partitions(count), max_iterations=15)
            table.create_index("vector", config=config)
            table.update_field_metadata({"path": "vector", "metadata": {PROBED: str(_enough(table))}})

    def _delete(self, table: Any, numbers: Numbers) -> None:
        if len(numbers):
            table.delete(f"number IN ({', '.join(map(str, numbers.tolist()))})")

    def _schema(self) -> Any:
        import pyarrow as pa

        vector = pa.list_(pa.float16(), self.dimensions)
        return pa.schema([("number", pa.int64()), ("vector", vector), ("terms", pa.list_(pa.string()))])

    def _rows(self, batch: Batch) -> Any:
        import pyarrow as pa

        halves = pa.array(batch.vectors.astype(np.float16).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(halves, self.dimensions)
        terms = pa.array([list(terms) for terms in batch.terms], pa.list_(pa.string()))
        return pa.RecordBatch.from_arrays([pa.array(batch.numbers), vectors, terms], schema=self._schema())


def _num_partitions(count: int) -> int:
    return max(1, round(math.sqrt(count)))


def _enough(table: Any) -> int:
    """How many partitions must be read to find nearly all that a comparison of all vectors finds."""
    count = table.count_rows()
    partitions = _num_partitions(count)
    least = max(1, math.ceil(LEAST_READ * partitions / count))
    if least >= partitions:
        return partitions
    rows = table.take_offsets(spread(count, 2 * SAMPLE).tolist()).select(["vector"]).to_arrow()
    asked = questions_between(np.stack(rows["vector"].to_numpy()).astype(np.float32))
    # One pass over all: a store may be far away, and large.
    batches = map(_read, table.search().select(["number", "vector"]).to_batches(CHUNK))
    true = [set(row) for row in nearest_of(asked, batches, NEAREST).tolist()]
    needed = WANTED_RECALL * sum(map(len, true))

    def finds(probed: int) -> bool:
        found = [set(_nearest(_query(table, one).nprobes(probed), NEAREST).tolist()) for one in asked]
        return sum(len(some & best) for some, best in zip(found, true, strict=True)) >= needed

    tried = np.unique(np.geomspace(least, partitions, STEPS).astype(np.int64))
    return int(tried[bisect_left(tried[:-1].tolist(), 1, key=finds)])


def _read(rows: Any) -> tuple[Numbers, Vectors]:
    """Numbers [N] and vectors [N, D] of a batch of Arrow's."""
    numbers = rows["number"].to_numpy().astype(np.int64)
    return numbers, rows["vector"].flatten().to_numpy().astype(np.float32).reshape(len(numbers), -1)


def _num_probed(table: Any, allowed: Allowed | None) -> int:
    """How many partitions a search reads: of a part of the vectors the nearest lie further out than those of all."""
    count = table.count_rows()
    partitions = _num_partitions(count)
    said = (table.schema.field("vector").metadata or {}).get(PROBED.encode())
    probed = int(said) if said else math.ceil(PROBED_SHARE * partitions)
    share = min(1.0, allowed.count / max(1, count)) if allowed is not None else 1.0
    return min(partitions, max(8, math.ceil(probed / math.sqrt(max(share, 1e-6)))))


def _query(table: Any, vector: Vectors) -> Any:
    query = table.search(vector.astype(np.float16), vector_column_name="vector").distance_type(DISTANCE)
    return query.refine_factor(REFINED)


def _nearest(query: Any, k: int) -> Numbers:
    found = query.limit(k).select(["number", "_distance"]).to_arrow()
    return found["number"].to_numpy().astype(np.int64)


def _condition(allowed: Allowed, *, few: bool) -> str:
    if few or allowed.pattern:
        return f"number IN ({', '.join(map(str, allowed.numbers().tolist())) or '-1'})"
    lists = (", ".join(f"'{quoted(term)}'" for term in terms) for terms in allowed.clauses)
    return " AND ".join(f"array_has_any(terms, [{terms}])" for terms in lists)


def quoted(term: str) -> str:
    """A term inside a text of SQL's."""
    return term.replace("'", "''")
