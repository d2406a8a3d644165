"""faiss keeps the contract of vector stores; those that take long or need a server are in tests/slow."""

import pytest

from tailorbird.sources.faiss_store import FaissStore
from tailorbird.testing.stores import DIMENSIONS, check_vector_store


def test_faiss_keeps_the_contract(tmp_path):
    pytest.importorskip("faiss")
    make = lambda: FaissStore(tmp_path / "faiss", DIMENSIONS)  # noqa: E731
    check_vector_store(make(), make, count=3000)
