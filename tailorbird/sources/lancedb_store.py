"""Vectors in LanceDB: a folder, or object storage, for millions of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.errors import IntegrityError
from tailorbird.sources.optional import need_for_store
from tailorbird.sources.vector_store import Allowed, Batch, Numbers, Vectors

INDEXED_FROM = 20_000
"""Fewer vectors are compared one by one, which is exact."""
FEW = 20_000
"""So few allowed passages are asked for by number, and compared one by one."""
PROBED_SHARE = 0.3
"""How many of the partitions are searched."""
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
        query = table.search(vector.astype(np.float16), vector_column_name="vector").distance_type("dot")
        query = query.nprobes(self._num_probed(table)).refine_factor(REFINED)
        if allowed is not None:
            few = allowed.count <= FEW
            query = query.where(_condition(allowed, few=few), prefilter=True)
            if few:
                query = query.bypass_vector_index()
        found = query.limit(k).select(["number", "_distance"]).to_arrow()
        return found["number"].to_numpy().astype(np.int64)

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
            config = IvfSq(distance_type="dot", num_partitions=_num_partitions(count), max_iterations=15)
            table.create_index("vector", config=config)

    def _num_probed(self, table: Any) -> int:
        return max(8, math.ceil(PROBED_SHARE * _num_partitions(table.count_rows())))

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


def _condition(allowed: Allowed, *, few: bool) -> str:
    if few or allowed.pattern:
        return f"number IN ({', '.join(map(str, allowed.numbers().tolist())) or '-1'})"
    lists = (", ".join(f"'{quoted(term)}'" for term in terms) for terms in allowed.clauses)
    return " AND ".join(f"array_has_any(terms, [{terms}])" for terms in lists)


def quoted(term: str) -> str:
    """A term inside a text of SQL's."""
    return term.replace("'", "''")
