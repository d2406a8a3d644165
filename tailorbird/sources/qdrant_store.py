"""Vectors in a Qdrant server: for more of them than one machine holds, or one server for many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tailorbird.errors import EndpointError, IntegrityError
from tailorbird.sources.optional import need_for_store
from tailorbird.sources.vector_store import Allowed, Batch, Numbers, Vectors

FEW = 2_000
"""So few allowed passages are asked for by number."""
SENT_AT_ONCE = 500
EXPLORED = 256
"""Candidates that a search of the graph keeps (hnsw_ef)."""


class QdrantStore:
    """A collection of vectors whose payload are the terms, so that Qdrant filters while it searches.

    Args:
        place: the server's URL; a path without `://` is a folder for trying it out without a server.
        collection: its name.
        dimensions: of the vectors.
        key: the server's API key; empty if it needs none.

    Raises:
        Unsupported: qdrant-client is not installed.
    """

    grows = True

    def __init__(self, place: str, collection: str, dimensions: int, key: str = "") -> None:
        self.place = place
        self.collection = collection
        self.dimensions = dimensions
        self._models, self._client = _client(place, key)

    def count(self) -> int:
        with _told(self.place):
            if not self._client.collection_exists(self.collection):
                raise IntegrityError(
                    f"{self.place}: Qdrant has no collection {self.collection!r}. "
                    "It is filled again by the next `tailor knowledge sync`."
                )
            return int(self._client.count(self.collection, exact=True).count)

    def fill(self, batches: Iterator[Batch], count: int) -> None:
        del count
        models = self._models
        with _told(self.place):
            self._client.delete_collection(self.collection)
            self._client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(
                    size=self.dimensions, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16
                ),
            )
            if "://" in self.place:
                self._client.create_payload_index(self.collection, "terms", models.PayloadSchemaType.KEYWORD)
        self._upsert(batches)

    def change(self, gone: Numbers, batches: Iterator[Batch]) -> None:
        for begin in range(0, len(gone), SENT_AT_ONCE):
            points = self._models.PointIdsList(points=gone[begin : begin + SENT_AT_ONCE].tolist())
            with _told(self.place):
                self._client.delete(self.collection, points_selector=points, wait=True)
        self._upsert(batches)

    def search(self, vector: Vectors, k: int, allowed: Allowed | None = None) -> Numbers:
        if k <= 0:
            return np.empty(0, dtype=np.int64)
        with _told(self.place):
            found = self._client.query_points(
                self.collection,
                query=vector.tolist(),
                limit=k,
                query_filter=None if allowed is None else self._filter(allowed),
                search_params=self._models.SearchParams(hnsw_ef=max(EXPLORED, k)),
                with_payload=False,
            )
        return np.array([point.id for point in found.points], dtype=np.int64)

    def remove(self) -> None:
        with _told(self.place):
            self._client.delete_collection(self.collection)

    def close(self) -> None:
        self._client.close()

    def _upsert(self, batches: Iterator[Batch]) -> None:
        points = (
            self._models.PointStruct(id=number, vector=vector.tolist(), payload={"terms": list(terms)})
            for batch in batches
            for number, vector, terms in zip(batch.numbers.tolist(), batch.vectors, batch.terms, strict=True)
        )
        while some := list(itertools.islice(points, SENT_AT_ONCE)):
            with _told(self.place):
                self._client.upsert(self.collection, points=some, wait=True)

    def _filter(self, allowed: Allowed) -> Any:
        models = self._models
        if allowed.count <= FEW or allowed.pattern:
            return models.Filter(must=[models.HasIdCondition(has_id=allowed.numbers().tolist())])
        return models.Filter(
            must=[
                models.FieldCondition(key="terms", match=models.MatchAny(any=list(terms)))
                for terms in allowed.clauses
            ]
        )


class _told:  # noqa: N801
    """Says of an error of the server's which server it was."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

        if isinstance(error, (ApiException, ResponseHandlingException)):
            raise EndpointError(
                f"{self.place}: Qdrant can't be asked: {str(error)[:200]}. Start it, or choose another vector store: "
                "tailor knowledge store NAME auto"
            ) from None


def _client(place: str, key: str) -> tuple[Any, Any]:
    need_for_store("qdrant_client", "qdrant")
    from qdrant_client import QdrantClient, models

    if "://" in place:
        return models, QdrantClient(url=place, api_key=key or None, timeout=60, check_compatibility=False)
    return models, QdrantClient(path=place)
